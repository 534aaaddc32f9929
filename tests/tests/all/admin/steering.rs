//! Projects, pauses, backfills, tokens, audit and health.

use cronvec_nouns::token::Role;
use cronvec_tests::system::PROJECT;
use serde_json::{Value, json};

use super::Api;

#[tokio::test]
async fn a_project_is_made_listed_paused_and_resumed() {
    let api = Api::new().await;
    let made = api
        .post(Role::Admin, "/api/admin/projects", json!({"name": "new"}))
        .await
        .is(201);
    assert_eq!(made, json!({"name": "new", "created": true}));
    let again = api
        .post(Role::Admin, "/api/admin/projects", json!({"name": "new"}))
        .await
        .is(200);
    assert_eq!(again["created"], false);
    for name in ["".to_owned(), "x".repeat(201), "a\u{0}b".to_owned()] {
        api.post(Role::Admin, "/api/admin/projects", json!({"name": name}))
            .await
            .is(400);
    }
    let paused = api
        .post(Role::Admin, "/api/admin/pause", json!({"project": "new"}))
        .await
        .is(200);
    assert_eq!(paused, json!({"success": true, "projects": ["new"]}));
    let projects = api.get(Role::Manager, "/api/admin/projects").await.is(200);
    let named = |name: &str| {
        projects
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["name"] == name)
            .cloned()
            .unwrap()
    };
    assert_eq!(
        (&named("new")["paused"], &named(PROJECT)["paused"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(named("new")["liveSpace"]["provider"], "static");
    let limited = api.limited(Role::Admin, &[PROJECT]).await;
    let all = api
        .call(&limited, "POST", "/api/admin/pause", Some(json!({})))
        .await
        .is(200);
    assert_eq!(all["projects"], json!([PROJECT]));
    let resumed = api.post(Role::Admin, "/api/admin/resume", json!({})).await.is(200);
    assert_eq!(resumed["projects"], json!([PROJECT, "new"]));
    assert_eq!(
        api.system
            .count("SELECT count(*) FROM cronvec.projects WHERE paused")
            .await,
        0
    );
    api.post(Role::Admin, "/api/admin/pause", json!({"project": "nowhere"}))
        .await
        .is(404);
    api.call(&limited, "POST", "/api/admin/pause", Some(json!({"project": "new"})))
        .await
        .is(403);
    api.call(&limited, "POST", "/api/admin/projects", Some(json!({"name": "mine"})))
        .await
        .is(403);
}

#[tokio::test]
async fn a_backfill_marks_what_is_missing_and_is_finished_when_the_schedule_is_through() {
    let api = Api::new().await;
    api.system.put_many(PROJECT, 30, "text").await;
    api.system.run_sql("DELETE FROM cronvec.pending").await;
    let begun = api
        .post(Role::Admin, "/api/admin/backfill", json!({"project": PROJECT}))
        .await
        .is(202);
    assert_eq!(
        (
            &begun["state"],
            &begun["marked"],
            &begun["left"],
            &begun["priority"],
            &begun["markedAll"]
        ),
        (&json!("running"), &json!(30), &json!(30), &json!(-10), &json!(true))
    );
    let again = api
        .post(Role::Admin, "/api/admin/backfill", json!({"project": PROJECT}))
        .await
        .is(202);
    assert_eq!(again["operation"], begun["operation"], "it is gone on with");
    api.system.vectorize().await;
    let list = api.get(Role::Manager, "/api/admin/backfill").await.is(200);
    assert_eq!(
        (&list[0]["state"], &list[0]["left"]),
        (&json!("running"), &json!(0)),
        "somebody may drive it"
    );
    api.system
        .run_sql("UPDATE cronvec.backfills SET updated_at = now() - interval '31 seconds'")
        .await;
    let list = api.get(Role::Manager, "/api/admin/backfill").await.is(200);
    assert_eq!(
        (&list[0]["state"], &list[0]["percent"]),
        (&json!("finished"), &json!(100.0))
    );
    api.system.run_sql("DELETE FROM cronvec.embedded").await;
    api.post(
        Role::Admin,
        "/api/admin/backfill",
        json!({"project": PROJECT, "priority": 5}),
    )
    .await
    .is(202);
    let stopped = api
        .post(Role::Admin, "/api/admin/backfill/stop", json!({}))
        .await
        .is(200);
    assert_eq!(stopped["stopped"].as_array().unwrap().len(), 1);
    api.post(Role::Admin, "/api/admin/backfill", json!({"project": "nowhere"}))
        .await
        .is(404);
    api.get(Role::Manager, "/api/admin/backfill?limit=101").await.is(400);
}

#[tokio::test]
async fn a_token_is_made_shown_once_listed_and_revoked() {
    let api = Api::new().await;
    let body = json!({"name": "importer", "role": "producer", "projects": [PROJECT], "expiresInDays": 1});
    let made = api.post(Role::Admin, "/api/admin/tokens", body.clone()).await.is(201);
    let secret = made["token"].as_str().unwrap().to_owned();
    let me = api.call(&secret, "GET", "/api/me", None).await.is(200);
    assert_eq!(
        me,
        json!({"name": "importer", "role": "producer", "projects": [PROJECT]})
    );
    api.post(Role::Admin, "/api/admin/tokens", body).await.is(409);
    let list = api.get(Role::Admin, "/api/admin/tokens").await.is(200);
    assert_eq!(list[0]["name"], "importer");
    assert!(!list.to_string().contains(&secret), "{list}");
    let path = format!("/api/admin/tokens/{}", made["id"].as_str().unwrap());
    api.call(api.secret(Role::Admin), "DELETE", &path, None).await.is(200);
    api.call(api.secret(Role::Admin), "DELETE", &path, None).await.is(404);
    api.call(&secret, "GET", "/api/me", None).await.is(401);
    assert_eq!(
        api.get(Role::Admin, "/api/admin/tokens")
            .await
            .is(200)
            .as_array()
            .unwrap()
            .len(),
        4
    );
    assert_eq!(
        api.get(Role::Admin, "/api/admin/tokens?all=true")
            .await
            .is(200)
            .as_array()
            .unwrap()
            .len(),
        5
    );
    for wrong in [
        json!({"name": "", "role": "reader"}),
        json!({"name": "x", "role": "root"}),
        json!({"name": "x", "role": "reader", "projects": []}),
        json!({"name": "x", "role": "reader", "expiresInDays": 0}),
        json!({"name": "x"}),
    ] {
        api.post(Role::Admin, "/api/admin/tokens", wrong).await.is(400);
    }
    let limited = api.limited(Role::Admin, &[PROJECT]).await;
    let more = json!({"name": "more", "role": "admin"});
    api.call(&limited, "POST", "/api/admin/tokens", Some(more))
        .await
        .is(403);
    api.call(&limited, "GET", "/api/admin/tokens", None).await.is(403);
}

#[tokio::test]
async fn the_audit_says_who_did_what_and_a_limited_token_sees_what_names_its_projects() {
    let api = Api::new().await;
    api.system.create_project("other").await;
    for project in [PROJECT, "other", PROJECT] {
        api.post(Role::Admin, "/api/admin/pause", json!({"project": project}))
            .await
            .is(200);
    }
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = api
            .get(Role::Manager, &format!("/api/admin/audit?limit=1{after}"))
            .await
            .is(200);
        seen.extend(
            page["entries"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| entry["metadata"]["project"].clone()),
        );
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, [PROJECT, "other", PROJECT]);
    let limited = api.limited(Role::Manager, &["other"]).await;
    let page = api.call(&limited, "GET", "/api/admin/audit", None).await.is(200);
    let entries = page["entries"].as_array().unwrap();
    assert_eq!(
        (entries.len(), &entries[0]["metadata"]["project"]),
        (1, &json!("other"))
    );
    assert!(entries[0]["metadata"]["who"].as_str().unwrap().contains("(admin)"));
}

#[tokio::test]
async fn health_is_what_the_command_line_checks() {
    let api = Api::new().await;
    let checks = |health: &Value| -> Vec<String> {
        let checks = health["checks"].as_array().unwrap();
        checks
            .iter()
            .map(|check| check["check"].as_str().unwrap().to_owned())
            .collect()
    };
    let health = api.get(Role::Manager, "/api/admin/health").await.is(200);
    assert_eq!(health["healthy"], true, "{health}");
    let all = [
        "database",
        "schema",
        "worker ingestion",
        "worker vectorization",
        "worker cleanup",
        "oldest pending",
        "circuits",
        "stuck jobs",
    ];
    assert_eq!(checks(&health), all);
    let id = api.job(PROJECT, "PENDING").await;
    api.system
        .run_sql(&format!(
            "UPDATE cronvec.job_queue SET scheduled_for = now() - interval '1 hour' WHERE id = {id}"
        ))
        .await;
    assert_eq!(
        api.get(Role::Manager, "/api/admin/health").await.is(200)["healthy"],
        false
    );
    let limited = api.limited(Role::Manager, &["other"]).await;
    let theirs = api.call(&limited, "GET", "/api/admin/health", None).await.is(200);
    assert_eq!(theirs["healthy"], true, "{theirs}");
    assert!(!theirs.to_string().contains(PROJECT));
}
