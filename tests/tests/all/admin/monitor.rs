//! `GET /api/admin/monitor` and its parts.

use std::collections::BTreeSet;

use cronvec_nouns::token::Role;
use cronvec_tests::system::PROJECT;
use serde_json::{Value, json};

use super::{Answer, Api};

async fn look(api: &Api, secret: &str, known: Option<&str>) -> Answer {
    let mut request = api.request("GET", "/api/admin/monitor").bearer_auth(secret);
    if let Some(known) = known {
        request = request.header("if-none-match", known);
    }
    api.send(request).await
}

/// Two projects, of which one is embedded and the other failed.
async fn busy() -> Api {
    let api = Api::new().await;
    api.system.create_project("other").await;
    api.system.put_many(PROJECT, 20, "text").await;
    api.system.vectorize().await;
    api.system.put_many("other", 10, "text").await;
    api.job("other", "FAILED").await;
    api.job("other", "PENDING").await;
    let endpoint = "static|in-process|minilm-static-256|-";
    let minute = std::time::Duration::from_secs(60);
    api.system
        .store
        .pause_endpoint(endpoint, minute, false, "slow down")
        .await
        .unwrap();
    api
}

#[tokio::test]
async fn one_call_has_all_that_the_page_shows() {
    let api = busy().await;
    let all = look(&api, api.secret(Role::Manager), None).await.is(200);
    let fields: Vec<&str> = BTreeSet::from_iter(all.as_object().unwrap().keys().map(String::as_str))
        .into_iter()
        .collect();
    assert_eq!(
        fields,
        [
            "at",
            "backfills",
            "capped",
            "coverage",
            "coverageLeftOut",
            "endpoints",
            "failures",
            "oldestPendingJob",
            "paused",
            "projects",
            "queueStats",
            "recentJobs",
            "role",
            "throughput",
            "workers"
        ]
    );
    assert_eq!(
        all["queueStats"],
        json!({"pending": 1, "processing": 0, "completed": 1, "failed": 1})
    );
    let covered = &all["coverage"][0];
    assert_eq!(
        (
            &covered["project"],
            &covered["total"],
            &covered["embedded"],
            &covered["percent"],
            &covered["etaSeconds"]
        ),
        (&json!(PROJECT), &json!(20), &json!(20), &json!(100.0), &json!(0))
    );
    assert_eq!(all["coverage"][1]["pending"], 10);
    assert!(
        all["coverage"][1]["etaSeconds"]
            .as_i64()
            .is_some_and(|seconds| seconds > 0),
        "{all}"
    );
    for window in ["hour", "day"] {
        assert_eq!(all["throughput"][window][0]["records"], 20.0);
    }
    assert_eq!(all["failures"], json!([{"reason": "it broke", "count": 1}]));
    assert_eq!(
        (&all["endpoints"][0]["why"], &all["endpoints"][0]["circuit"]),
        (&json!("slow down"), &json!(false))
    );
    assert_eq!(all["paused"], json!({"all": false, "projects": []}));
    let worker = &all["workers"][0];
    assert_eq!(
        (&worker["name"], &worker["isRunning"]),
        (&json!("vectorization"), &json!(false))
    );
    assert!(
        worker["nextTickAt"].as_str() > worker["lastSeenAt"].as_str(),
        "{worker}"
    );
    assert_eq!(worker["lastResult"]["records"], 20);
    assert_eq!(all["recentJobs"].as_array().unwrap().len(), 3);
    assert_eq!((&all["role"], &all["projects"]), (&json!("manager"), &Value::Null));
}

#[tokio::test]
async fn what_has_not_changed_is_a_304_without_a_body_until_it_has() {
    let api = Api::new().await;
    let secret = api.secret(Role::Manager);
    let first = look(&api, secret, None).await;
    let tag = first.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.len() > 20, "{tag}");
    first.is(200);
    for known in [tag.clone(), format!("\"x\", W/{tag}")] {
        let same = look(&api, secret, Some(&known)).await;
        assert_eq!(
            (same.status, &same.body, same.header("etag")),
            (304, &Value::Null, tag.as_str())
        );
    }
    api.job(PROJECT, "FAILED").await;
    let changed = look(&api, secret, Some(&tag)).await;
    assert_ne!(changed.header("etag"), tag);
    changed.is(200);
}

#[tokio::test]
async fn a_token_that_is_limited_sees_its_projects_numbers_and_no_others() {
    let api = busy().await;
    let other = api.limited(Role::Manager, &["other"]).await;
    let theirs = look(&api, &other, None).await.is(200);
    assert_eq!(
        theirs["queueStats"],
        json!({"pending": 1, "processing": 0, "completed": 0, "failed": 1})
    );
    assert_eq!(theirs["throughput"], json!({"hour": [], "day": []}));
    assert_eq!(theirs["coverage"].as_array().unwrap().len(), 1);
    assert_eq!(theirs["projects"], json!(["other"]));
    assert_eq!(theirs["workers"][0]["lastResult"], Value::Null);
    assert!(!theirs.to_string().contains(PROJECT), "{theirs}");
    let articles = api.limited(Role::Manager, &[PROJECT]).await;
    let mine = look(&api, &articles, None).await.is(200);
    assert_eq!(
        mine["queueStats"],
        json!({"pending": 0, "processing": 0, "completed": 1, "failed": 0})
    );
    assert_eq!(
        (&mine["throughput"]["hour"][0]["records"], &mine["failures"]),
        (&json!(20.0), &json!([]))
    );
    assert!(!mine.to_string().contains("other"), "{mine}");
    let nobody = api.limited(Role::Manager, &["nowhere"]).await;
    let none = look(&api, &nobody, None).await.is(200);
    assert_eq!(
        (&none["coverage"], &none["recentJobs"], &none["endpoints"]),
        (&json!([]), &json!([]), &json!([]))
    );
}

#[tokio::test]
async fn the_parts_can_be_asked_for_by_themselves() {
    let api = busy().await;
    let all = look(&api, api.secret(Role::Manager), None).await.is(200);
    for (path, part) in [
        ("/api/admin/coverage", &all["coverage"]),
        ("/api/admin/throughput", &all["throughput"]["hour"]),
        ("/api/admin/throughput?window=day", &all["throughput"]["day"]),
        ("/api/admin/endpoints", &all["endpoints"]),
    ] {
        assert_eq!(&api.get(Role::Manager, path).await.is(200), part, "{path}");
    }
    api.get(Role::Manager, "/api/admin/throughput?window=week")
        .await
        .is(400);
}

#[tokio::test]
async fn coverage_is_counted_again_when_the_last_count_is_old_and_cheap() {
    let api = Api::new().await;
    let total = async |api: &Api| api.get(Role::Manager, "/api/admin/coverage").await.is(200)[0]["total"].clone();
    assert_eq!(total(&api).await, 0);
    api.system.put_many(PROJECT, 3, "text").await;
    assert_eq!(total(&api).await, 0, "it was counted a moment ago");
    let old = "UPDATE cronvec.coverage_counts SET counted_at = now() - interval '6 seconds', took_ms = ";
    api.system.run_sql(&format!("{old} 1000")).await;
    assert_eq!(total(&api).await, 0, "it took long");
    api.system.run_sql(&format!("{old} 1")).await;
    assert_eq!(total(&api).await, 3);
}
