//! `/api/admin/queue/…`, field by field.

use std::collections::BTreeSet;

use cronvec_nouns::token::Role;
use cronvec_tests::between::Transaction;
use cronvec_tests::conditions::eventually;
use cronvec_tests::system::{PROJECT, System};
use serde_json::{Value, json};

use super::Api;

fn fields(value: &Value) -> Vec<&str> {
    let names = value.as_object().unwrap().keys().map(String::as_str);
    BTreeSet::from_iter(names).into_iter().collect()
}

#[tokio::test]
async fn the_stats_have_the_fields_that_programs_rely_on_and_no_others() {
    let api = Api::new().await;
    let empty = api.get(Role::Manager, "/api/admin/queue/stats").await.is(200);
    let none = json!({"pending": 0, "processing": 0, "completed": 0, "failed": 0});
    assert_eq!(
        empty,
        json!({"queueStats": none, "recentJobs": [], "oldestPendingJob": null})
    );
    for status in ["COMPLETED", "FAILED", "PROCESSING", "CANCELLED", "PENDING", "PENDING"] {
        api.job(PROJECT, status).await;
    }
    let stats = api.get(Role::Manager, "/api/admin/queue/stats").await.is(200);
    assert_eq!(
        stats["queueStats"],
        json!({"pending": 2, "processing": 1, "completed": 1, "failed": 1})
    );
    let jobs = stats["recentJobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 6);
    let wanted = [
        "attempts",
        "completedAt",
        "createdAt",
        "id",
        "jobType",
        "maxAttempts",
        "priority",
        "progress",
        "result",
        "startedAt",
        "status",
    ];
    assert!(jobs.iter().all(|job| fields(job) == wanted), "{jobs:?}");
    assert!(
        jobs.iter()
            .all(|job| job["id"].is_string() && job["jobType"] == "INGEST_DATA")
    );
    let failed = jobs.iter().find(|job| job["status"] == "FAILED").unwrap();
    assert_eq!(failed["result"]["error"], "it broke");
    assert_eq!(fields(&stats["oldestPendingJob"]), ["ageMinutes", "createdAt", "id"]);
    assert!(stats["oldestPendingJob"]["id"].is_string());
}

#[tokio::test]
async fn ages_count_from_when_a_job_could_be_claimed_and_large_numbers_are_capped_by_name() {
    let api = Api::new().await;
    let later = api.job(PROJECT, "PENDING").await;
    let now = api.job(PROJECT, "PENDING").await;
    api.system
        .run_sql(&format!(
            "UPDATE cronvec.job_queue SET scheduled_for = now() + interval '1 hour', created_at = now() - interval '1 day' WHERE id = {later};
             UPDATE cronvec.job_queue SET scheduled_for = now() - interval '90 seconds', created_at = now() - interval '1 day' WHERE id = {now};
             INSERT INTO cronvec.job_queue (job_type, project, project_id, status, completed_at)
             SELECT 'INGEST_DATA', name, id, 'COMPLETED', now() FROM cronvec.projects, generate_series(1, 10001)"
        ))
        .await;
    let limited = api.limited(Role::Manager, &[PROJECT]).await;
    for secret in [api.secret(Role::Manager), limited.as_str()] {
        let stats = api.call(secret, "GET", "/api/admin/queue/stats", None).await.is(200);
        assert_eq!(stats["oldestPendingJob"]["id"], now.to_string());
        assert_eq!(stats["oldestPendingJob"]["ageMinutes"], 1.5);
        assert_eq!(
            (&stats["queueStats"]["completed"], &stats["capped"]),
            (&json!(10_000), &json!(["completed"]))
        );
        assert_eq!(stats["recentJobs"].as_array().unwrap().len(), 50);
    }
}

#[tokio::test]
async fn a_failed_or_cancelled_job_is_retried_with_its_attempts_anew_and_no_other() {
    let api = Api::new().await;
    for status in ["FAILED", "CANCELLED"] {
        let id = api.job(PROJECT, status).await;
        let path = format!("/api/admin/queue/retry?jobId={id}");
        let done = api.post(Role::Admin, &path, json!({})).await.is(200);
        assert_eq!(done, json!({"success": true, "jobId": id.to_string()}));
        let row = format!("SELECT jsonb_build_array(status, attempts) FROM cronvec.job_queue WHERE id = {id}");
        assert_eq!(api.system.value(&row).await, json!(["PENDING", 0]));
        api.post(Role::Admin, &path, json!({})).await.is(400);
    }
    let id = api.job(PROJECT, "COMPLETED").await;
    api.post(Role::Admin, &format!("/api/admin/queue/retry?jobId={id}"), json!({}))
        .await
        .is(400);
    api.post(Role::Admin, "/api/admin/queue/retry?jobId=999999", json!({}))
        .await
        .is(404);
    for path in [
        "/api/admin/queue/retry",
        "/api/admin/queue/retry?jobId=x",
        "/api/admin/queue/retry?jobId=-1",
    ] {
        api.post(Role::Admin, path, json!({})).await.is(400);
    }
    let audit =
        "SELECT count(*) FROM cronvec.audit_log WHERE message = 'jobs retried' AND metadata->>'who' LIKE 'token %'";
    assert_eq!(api.system.count(audit).await, 2);
}

#[tokio::test]
async fn a_retry_whose_lane_has_another_job_is_a_409_that_names_it() {
    let api = Api::of(System::embedding_in_process().await).await;
    api.system.put(PROJECT, "a", "one").await;
    let made = |api: &Api| {
        let store = api.system.store.clone();
        async move { store.ensure_vectorize_jobs(3, 1000).await.unwrap() }
    };
    assert_eq!(made(&api).await, 1);
    let first = api.system.count("SELECT max(id) FROM cronvec.job_queue").await;
    api.system
        .run_sql(&format!(
            "UPDATE cronvec.job_queue SET status = 'FAILED', turn = NULL, completed_at = now() WHERE id = {first}"
        ))
        .await;
    assert_eq!(made(&api).await, 1);
    let active = api.system.count("SELECT max(id) FROM cronvec.job_queue").await;
    let refused = api
        .post(Role::Admin, &format!("/api/admin/queue/retry?jobId={first}"), json!({}))
        .await
        .is(409);
    assert_eq!(refused["activeJobId"], active.to_string());
}

#[tokio::test]
async fn a_job_is_cancelled_while_it_waits_or_runs_and_not_when_it_has_ended() {
    let api = Api::new().await;
    for status in ["PENDING", "PROCESSING"] {
        let id = api.job(PROJECT, status).await;
        let path = format!("/api/admin/queue/cancel?jobId={id}");
        let done = api.post(Role::Admin, &path, json!({})).await.is(200);
        assert_eq!(done, json!({"success": true, "jobId": id.to_string()}));
        let row = format!("SELECT status FROM cronvec.job_queue WHERE id = {id}");
        assert_eq!(api.system.value(&row).await, "CANCELLED");
        let again = api.post(Role::Admin, &path, json!({})).await.is(400);
        assert!(again["error"].as_str().unwrap().contains("already ended"), "{again}");
    }
    api.post(Role::Admin, "/api/admin/queue/cancel?jobId=999999", json!({}))
        .await
        .is(404);
}

#[tokio::test]
async fn an_act_on_many_jobs_whose_caller_hangs_up_is_done_and_written_down_as_a_whole() {
    let api = Api::new().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(api.job(PROJECT, "PENDING").await.to_string());
    }
    let other = Transaction::begin(&api.system).await;
    other
        .run(&format!(
            "SELECT FROM cronvec.job_queue WHERE id = {} FOR UPDATE",
            ids[1]
        ))
        .await;
    tokio::select! {
        answer = api.post(Role::Admin, "/api/admin/jobs/cancel", json!({"ids": ids})) => panic!("{answer:?}"),
        () = api.system.wait_blocked(1) => {}
    }
    // By then the server has heard that its caller is gone.
    for _ in 0..10 {
        api.get(Role::Manager, "/api/me").await.is(200);
    }
    other.commit().await;
    let audited = "SELECT metadata->'ids' FROM cronvec.audit_log WHERE message = 'jobs cancelled'";
    eventually("it is written down", || async {
        api.system.value(audited).await == json!(ids)
    })
    .await;
    let cancelled = "SELECT count(*) FROM cronvec.job_queue WHERE status = 'CANCELLED'";
    assert_eq!(api.system.count(cancelled).await, 3);
}
