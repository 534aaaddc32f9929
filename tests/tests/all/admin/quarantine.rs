//! Records that stand aside.

use cronvec_nouns::token::Role;
use cronvec_tests::system::PROJECT;
use serde_json::{Value, json};

use super::Api;

async fn with_records_aside() -> Api {
    let api = Api::new().await;
    api.system.create_project("other").await;
    api.system.put_many(PROJECT, 5, "text").await;
    api.system.put_many("other", 2, "text").await;
    api.system
        .run_sql(
            "DELETE FROM cronvec.pending;
             INSERT INTO cronvec.quarantined_records
                 (space_id, project_id, record_id, content_hash, reason, message, attempts)
             SELECT (SELECT space_id FROM cronvec.project_spaces l WHERE l.project_id = p.id AND l.role = 'live'), p.id, r.id, r.content_hash, CASE WHEN r.id = 'r1' THEN 'too_long' ELSE 'rejected' END,
                 'no', 1
             FROM cronvec.records r JOIN cronvec.projects p ON p.id = r.project_id",
        )
        .await;
    api
}

async fn pages(api: &Api, secret: &str, query: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/api/admin/quarantine?limit=2{query}{after}");
        let page = api.call(secret, "GET", &path, None).await.is(200);
        let records = page["records"].as_array().unwrap();
        let named = |record: &Value| {
            format!(
                "{}/{}",
                record["project"].as_str().unwrap(),
                record["recordId"].as_str().unwrap()
            )
        };
        all.extend(records.iter().map(named));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

#[tokio::test]
async fn records_that_stand_aside_are_paged_through_each_once() {
    let api = with_records_aside().await;
    let secret = api.secret(Role::Manager).to_owned();
    let all = pages(&api, &secret, "").await;
    let expected: Vec<String> = (1..=5)
        .map(|n| format!("{PROJECT}/r{n}"))
        .chain((1..=2).map(|n| format!("other/r{n}")))
        .collect();
    assert_eq!(all, expected);
    assert_eq!(
        pages(&api, &secret, "&reason=too_long").await,
        [format!("{PROJECT}/r1"), "other/r1".to_owned()]
    );
    assert_eq!(pages(&api, &secret, "&project=other").await.len(), 2);
    let limited = api.limited(Role::Manager, &["other"]).await;
    assert_eq!(pages(&api, &limited, "").await, ["other/r1", "other/r2"]);
    api.call(&limited, "GET", "/api/admin/quarantine?project=articles", None)
        .await
        .is(403);
    api.get(Role::Manager, "/api/admin/quarantine?after=x").await.is(400);
}

#[tokio::test]
async fn they_are_replayed_and_purged_by_what_was_said_and_by_nothing_nobody_said() {
    let api = with_records_aside().await;
    let body = json!({"project": PROJECT, "ids": ["r2", "r3"]});
    let done = api
        .post(Role::Admin, "/api/admin/quarantine/replay", body)
        .await
        .is(200);
    assert_eq!(
        done,
        json!({"success": true, "count": 2, "ids": ["r2", "r3"], "more": false})
    );
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.pending").await, 2);
    let limited = api.limited(Role::Admin, &["other"]).await;
    let reason = json!({"reason": "too_long"});
    let done = api
        .call(&limited, "POST", "/api/admin/quarantine/purge", Some(reason))
        .await
        .is(200);
    assert_eq!((&done["count"], &done["ids"]), (&json!(1), &json!(["r1"])));
    assert_eq!(
        api.system
            .count("SELECT count(*) FROM cronvec.quarantined_records")
            .await,
        4
    );
    api.post(Role::Admin, "/api/admin/quarantine/purge", json!({}))
        .await
        .is(400);
    api.post(Role::Admin, "/api/admin/quarantine/purge", json!({"ids": ["r1"]}))
        .await
        .is(400);
    api.post(
        Role::Admin,
        "/api/admin/quarantine/purge",
        json!({"project": "nowhere"}),
    )
    .await
    .is(404);
    let acts = "SELECT count(*) FROM cronvec.audit_log WHERE category = 'quarantine'";
    assert_eq!(api.system.count(acts).await, 2);
}
