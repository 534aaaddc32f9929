//! Lists of jobs, one job, and acts on many.

use cronvec_nouns::token::Role;
use cronvec_tests::system::PROJECT;
use serde_json::{Value, json};

use super::Api;

fn ids(page: &Value) -> Vec<i64> {
    let jobs = page["jobs"].as_array().unwrap();
    jobs.iter()
        .map(|job| job["id"].as_str().unwrap().parse().unwrap())
        .collect()
}

/// All pages of a list.
async fn pages(api: &Api, secret: &str, query: &str) -> Vec<i64> {
    let mut all = Vec::new();
    let mut before = String::new();
    loop {
        let path = format!("/api/admin/jobs?limit=2{query}{before}");
        let page = api.call(secret, "GET", &path, None).await.is(200);
        all.extend(ids(&page));
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => return all,
        }
    }
}

#[tokio::test]
async fn jobs_are_paged_through_each_once_whatever_they_are_filtered_by() {
    let api = Api::new().await;
    api.system.create_project("other").await;
    let mut made = Vec::new();
    for n in 0..10 {
        let project = if n % 2 == 0 { PROJECT } else { "other" };
        let status = if n % 3 == 0 { "FAILED" } else { "PENDING" };
        made.push((api.job(project, status).await, project, status));
    }
    made.reverse();
    let of = |wanted: &dyn Fn(&str, &str) -> bool| -> Vec<i64> {
        made.iter()
            .filter(|(_, project, status)| wanted(project, status))
            .map(|(id, ..)| *id)
            .collect()
    };
    let secret = api.secret(Role::Manager).to_owned();
    let limited = api.limited(Role::Manager, &["other"]).await;
    assert_eq!(pages(&api, &secret, "").await, of(&|_, _| true));
    assert_eq!(
        pages(&api, &secret, "&status=failed").await,
        of(&|_, status| status == "FAILED")
    );
    assert_eq!(
        pages(&api, &secret, "&project=other").await,
        of(&|project, _| project == "other")
    );
    assert_eq!(
        pages(&api, &secret, "&type=INGEST_DATA&search=OTH").await,
        of(&|project, _| project == "other")
    );
    assert_eq!(pages(&api, &secret, "&type=VECTORIZE").await, of(&|_, _| false));
    assert_eq!(pages(&api, &limited, "").await, of(&|project, _| project == "other"));
    assert_eq!(pages(&api, &limited, "&search=articles").await, of(&|_, _| false));
    let one = made[3].0;
    assert_eq!(pages(&api, &secret, &format!("&search={one}")).await, [one]);
    let page = api
        .get(Role::Manager, "/api/admin/jobs?status=FAILED&limit=1")
        .await
        .is(200);
    let job = &page["jobs"][0];
    assert_eq!((&job["error"], &job["lane"]), (&json!("it broke"), &json!(0)));
    assert!(job["project"].is_string() && job["scheduledFor"].is_string());
    for wrong in [
        "status=DONE",
        "type=X",
        "limit=0",
        "limit=201",
        "before=x",
        "nonsense=1",
        "limit=2&limit=3",
    ] {
        api.get(Role::Manager, &format!("/api/admin/jobs?{wrong}"))
            .await
            .is(400);
    }
    api.call(&limited, "GET", "/api/admin/jobs?project=articles", None)
        .await
        .is(403);
}

#[tokio::test]
async fn a_job_is_shown_with_what_happened_to_it_and_its_payload_only_to_admins_who_ask() {
    let api = Api::new().await;
    let id = api.job(PROJECT, "FAILED").await;
    let path = format!("/api/admin/jobs/{id}");
    api.post(Role::Admin, &format!("/api/admin/queue/retry?jobId={id}"), json!({}))
        .await
        .is(200);
    api.post(Role::Admin, &format!("/api/admin/queue/cancel?jobId={id}"), json!({}))
        .await
        .is(200);
    let job = api.get(Role::Manager, &path).await.is(200);
    assert_eq!(
        (&job["id"], &job["status"], &job["payload"]),
        (&json!(id.to_string()), &json!("CANCELLED"), &Value::Null)
    );
    let timeline = job["timeline"].as_array().unwrap();
    let whats: Vec<&str> = timeline.iter().map(|event| event["what"].as_str().unwrap()).collect();
    assert_eq!(whats.first(), Some(&"created"), "{timeline:?}");
    assert!(
        ["claimed", "cancelled"].iter().all(|what| whats.contains(what)),
        "{whats:?}"
    );
    let acts: Vec<&str> = timeline
        .iter()
        .filter(|event| event["what"] == "acted on")
        .map(|event| event["detail"].as_str().unwrap())
        .collect();
    assert!(
        acts[0].starts_with("jobs retried by token") && acts[1].starts_with("jobs cancelled by"),
        "{acts:?}"
    );
    assert!(
        timeline
            .iter()
            .all(|event| event["at"].as_str().unwrap().ends_with('Z'))
    );
    api.get(Role::Manager, &format!("{path}?payload=true")).await.is(403);
    let whole = api.get(Role::Admin, &format!("{path}?payload=true")).await.is(200);
    assert!(
        whole["payload"]["records"][0].as_str().unwrap().contains("one"),
        "{whole}"
    );
    assert_eq!(api.get(Role::Admin, &path).await.is(200)["payload"], Value::Null);
    api.get(Role::Manager, "/api/admin/jobs/999999").await.is(404);
    api.get(Role::Manager, "/api/admin/jobs/x").await.is(400);
    let limited = api.limited(Role::Admin, &["other"]).await;
    api.call(&limited, "GET", &path, None).await.is(404);
    let retry = format!("/api/admin/queue/retry?jobId={id}");
    api.call(&limited, "POST", &retry, Some(json!({}))).await.is(404);
}

#[tokio::test]
async fn many_jobs_are_retried_and_cancelled_by_a_filter_or_by_their_ids() {
    let api = Api::new().await;
    api.system.create_project("other").await;
    let (mine, others) = (api.job(PROJECT, "FAILED").await, api.job("other", "FAILED").await);
    let waiting = api.job(PROJECT, "PENDING").await;
    let body = json!({"filter": {"project": PROJECT, "type": "INGEST_DATA"}});
    let done = api.post(Role::Admin, "/api/admin/jobs/retry", body).await.is(200);
    assert_eq!(
        done,
        json!({"success": true, "count": 1, "ids": [mine.to_string()], "passedOver": 0, "more": false}),
        "one that waits isn't retried"
    );
    let limited = api.limited(Role::Admin, &["other"]).await;
    let all = json!({"filter": {}});
    let done = api
        .call(&limited, "POST", "/api/admin/jobs/retry", Some(all.clone()))
        .await
        .is(200);
    assert_eq!(done["ids"], json!([others.to_string()]));
    let theirs = json!({"ids": [waiting.to_string()]});
    let done = api
        .call(&limited, "POST", "/api/admin/jobs/cancel", Some(theirs))
        .await
        .is(200);
    assert_eq!(done["count"], 0, "another's job is none");
    let named = json!({"ids": [waiting.to_string(), "999999"]});
    let done = api
        .post(Role::Admin, "/api/admin/jobs/cancel", named.clone())
        .await
        .is(200);
    assert_eq!(done["ids"], json!([waiting.to_string()]));
    let done = api.post(Role::Admin, "/api/admin/jobs/cancel", all).await.is(200);
    assert_eq!(done["count"], 2);
    for wrong in [
        json!({}),
        json!({"filter": {}, "ids": []}),
        json!({"ids": ["x"]}),
        json!({"filter": {"status": "DONE"}}),
        json!({"filter": {"nonsense": 1}}),
        json!({"ids": vec!["1"; 1001]}),
    ] {
        api.post(Role::Admin, "/api/admin/jobs/cancel", wrong).await.is(400);
    }
    let nowhere = json!({"filter": {"project": "nowhere"}});
    api.post(Role::Admin, "/api/admin/jobs/cancel", nowhere).await.is(404);
    // What can't be looked up isn't said to have moved on.
    api.system
        .run_sql("ALTER TABLE cronvec.job_queue RENAME COLUMN progress TO elsewhere")
        .await;
    api.post(Role::Admin, "/api/admin/jobs/cancel", named).await.is(500);
}

#[tokio::test]
async fn failures_are_grouped_by_their_reason() {
    let api = Api::new().await;
    api.system.create_project("other").await;
    let (_, last) = (api.job(PROJECT, "FAILED").await, api.job(PROJECT, "FAILED").await);
    api.job("other", "FAILED").await;
    api.system
        .run_sql("UPDATE cronvec.job_queue SET result = '{\"error\": \"another\"}' WHERE project = 'other'")
        .await;
    let failures = api.get(Role::Manager, "/api/admin/failures").await.is(200);
    let first = &failures[0];
    assert_eq!(
        (&first["reason"], &first["count"], &first["exampleJobId"]),
        (&json!("it broke"), &json!(2), &json!(last.to_string()))
    );
    assert!(first["lastAt"].is_string());
    assert_eq!(failures.as_array().unwrap().len(), 2);
    let limited = api.limited(Role::Manager, &["other"]).await;
    let theirs = api.call(&limited, "GET", "/api/admin/failures", None).await.is(200);
    assert_eq!(
        (theirs.as_array().unwrap().len(), &theirs[0]["reason"]),
        (1, &json!("another"))
    );
}
