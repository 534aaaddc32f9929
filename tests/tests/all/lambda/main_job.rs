//! The main job, by both shapes of event.

use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::provider::Answer;
use cronvec_tests::system::{PROJECT, record};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

use super::{API_KEY, Deployment, SECRET, WIDTH, direct, has};

#[tokio::test]
async fn the_main_job_is_done_by_direct_calls() {
    let deployment = Deployment::new().await;
    let mut records: Vec<Value> = (0..60)
        .map(|n| record(&format!("r{n}"), &format!("text number {n}")))
        .collect();
    records.push(json!({"id": "no text"}));
    let system = &deployment.system;
    system.enqueue(PROJECT, &records, EnqueueOptions::default()).await;

    let mut ingestion = deployment.function("ingestion").await;
    has(
        &ingestion.call().await,
        json!({"success": true, "processed": 1, "records": 60, "rejected": 1, "stoppedBecause": "drained",
            "authorisedBy": "current"}),
    );
    let mut vectorization = deployment.function("vectorization").await;
    has(
        &vectorization.call().await,
        json!({"success": true, "processed": 1, "records": 60, "failed": 0, "remaining": false,
            "stoppedBecause": "drained", "authorisedBy": "current"}),
    );
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
    assert_eq!(deployment.provider.log().keys[0].as_deref(), Some(API_KEY));
    system
        .run_sql("UPDATE cronvec.job_queue SET completed_at = now() - interval '8 days'")
        .await;
    let mut cleanup = deployment.function("cleanup").await;
    has(
        &cleanup.call().await,
        json!({"success": true, "deletedCount": 2, "remaining": false, "authorisedBy": "current"}),
    );
    has(
        &vectorization.call().await,
        json!({"success": true, "processed": 0, "records": 0, "failed": 0, "remaining": false,
            "stoppedBecause": "drained", "authorisedBy": "current"}),
    );
    for function in [ingestion, vectorization, cleanup] {
        let said = function.end().await;
        assert!(said.contains("call answered"), "{said}");
    }
}

#[tokio::test]
async fn the_main_job_is_done_over_http_by_get_and_post_with_options() {
    let deployment = Deployment::new().await;
    let system = &deployment.system;
    system.create_project("letters & more").await;
    for (project, count) in [(PROJECT, 30), ("letters & more", 8)] {
        let records: Vec<Value> = (0..count)
            .map(|n| record(&format!("r{n}"), &format!("text number {n} of {project}")))
            .collect();
        system.enqueue(project, &records, EnqueueOptions::default()).await;
    }
    let mut ingestion = deployment.function("ingestion").await;
    let (status, body) = ingestion
        .http("GET", "/api/workers/ingestion", &[("project", PROJECT)])
        .await;
    assert_eq!(status, 200);
    has(&body, json!({"success": true, "processed": 1, "records": 30}));
    let (status, body) = ingestion.http("POST", "/api/workers/ingestion", &[]).await;
    assert_eq!(status, 200);
    has(&body, json!({"success": true, "processed": 1, "records": 8}));

    let mut vectorization = deployment.function("vectorization").await;
    let work = "/api/workers/vectorization";
    let (status, body) = vectorization
        .http("GET", work, &[("maxRecords", "10"), ("project", PROJECT)])
        .await;
    assert_eq!(status, 200);
    has(
        &body,
        json!({"success": true, "processed": 1, "records": 10, "failed": 0, "remaining": true,
            "stoppedBecause": "limit", "authorisedBy": "current"}),
    );
    let (_, body) = vectorization
        .http("POST", work, &[("project", "letters & more"), ("maxSeconds", "20.5")])
        .await;
    has(
        &body,
        json!({"success": true, "processed": 1, "records": 8, "remaining": false, "stoppedBecause": "drained"}),
    );
    let (_, body) = vectorization
        .http("POST", "/api/process-embedding-queue", &[("maxSeconds", "0.001")])
        .await;
    has(
        &body,
        json!({"success": true, "records": 0, "remaining": true, "stoppedBecause": "deadline"}),
    );
    let (status, body) = vectorization.http("POST", "/api/process-embedding-queue", &[]).await;
    assert_eq!(status, 200);
    has(
        &body,
        json!({"success": true, "processed": 1, "records": 20, "remaining": false, "stoppedBecause": "drained"}),
    );
    for project in [PROJECT, "letters & more"] {
        system.assert_all_embedded_by_fake(project, WIDTH.into()).await;
    }

    for (status, method, path, query) in [
        (400, "GET", work, &[("maxRecords", "0")]),
        (400, "GET", work, &[("project", "no such project")]),
        (404, "GET", "/api/workers/ingestion", &[("maxRecords", "1")]),
        (405, "DELETE", work, &[("maxRecords", "1")]),
    ] {
        let (answered, body) = vectorization.http(method, path, query).await;
        assert_eq!((answered, &body["success"]), (status, &json!(false)), "{body}");
        assert!(body["error"].is_string());
    }
    let mut cleanup = deployment.function("cleanup").await;
    let (status, body) = cleanup.http("GET", "/api/workers/cleanup", &[]).await;
    assert_eq!(status, 200);
    has(
        &body,
        json!({"success": true, "deletedCount": 0, "authorisedBy": "current"}),
    );
    for function in [ingestion, vectorization, cleanup] {
        function.end().await;
    }
}

#[tokio::test]
async fn an_invocation_ends_by_itself_before_its_own_deadline() {
    let deployment = Deployment::new().await;
    deployment.put(100).await;
    deployment.provider.answer_containing("number", Answer::Never);
    let mut function = deployment.function("vectorization").await;
    let begun = Instant::now();
    // A deadline that isn't kept kills the process.
    let answer = function.runtime.invoke(direct(SECRET), Duration::from_secs(4)).await;
    assert!(begun.elapsed() > Duration::from_secs(2), "the time there was is used");
    has(
        &answer.unwrap(),
        json!({"success": true, "processed": 1, "records": 0, "failed": 0, "remaining": true,
            "stoppedBecause": "deadline", "authorisedBy": "current"}),
    );
    let system = &deployment.system;
    let job = "SELECT to_jsonb(j) FROM cronvec.job_queue j";
    let job = system.value(job).await;
    assert_eq!((&job["status"], &job["attempts"]), (&json!("PENDING"), &json!(0)));
    assert_eq!(system.count("SELECT sum(attempts) FROM cronvec.pending").await, 0);
    deployment.provider.behave();
    has(
        &function.call().await,
        json!({"records": 100, "stoppedBecause": "drained"}),
    );
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
    function.end().await;
}

#[tokio::test]
async fn search_that_is_turned_off_embeds_nothing_and_says_so() {
    let mut deployment = Deployment::new().await;
    deployment.put(2).await;
    let mut function = deployment
        .set("SEMANTIC_SEARCH_ENABLED", "false")
        .function("vectorization")
        .await;
    has(
        &function.call().await,
        json!({"success": true, "processed": 0, "records": 0, "failed": 0, "remaining": false, "stoppedBecause": "disabled"}),
    );
    assert_eq!(
        deployment.system.count("SELECT count(*) FROM cronvec.pending").await,
        2,
        "nothing is forgotten"
    );
    function.end().await;
}
