//! `GET /api/admin/coverage`: complete, and without an end in sight where nothing moves.

use cronvec_nouns::token::Role;
use cronvec_tests::system::PROJECT;
use serde_json::{Value, json};

use super::Api;

async fn monitor(api: &Api) -> Value {
    api.get(Role::Manager, "/api/admin/monitor").await.is(200)
}

fn names(page: &Value) -> Vec<&str> {
    let all = page.as_array().unwrap().iter();
    all.map(|one| one["project"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn thousands_of_projects_come_page_by_page_and_what_is_left_out_is_told() {
    let api = Api::new().await;
    // Counting them took long, so they aren't counted again now; the last one never was counted.
    api.system
        .run_sql(
            "WITH made AS (
                 INSERT INTO cronvec.projects (name)
                 SELECT 'p' || to_char(n, 'FM0000') FROM generate_series(1, 2100) AS n RETURNING id)
             INSERT INTO cronvec.project_spaces (project_id, space_id, role)
             SELECT id, (SELECT min(space_id) FROM cronvec.project_spaces), 'live' FROM made;
             INSERT INTO cronvec.coverage_counts (project_id, total, embedded, pending, quarantined, percent, took_ms, counted_at)
             SELECT id, 1, 1, 0, 0, 100, 1000000, now() FROM cronvec.projects WHERE name <> 'p2100'",
        )
        .await;
    let first = api.get(Role::Manager, "/api/admin/coverage").await;
    assert_eq!(
        first.header("link"),
        "<coverage?after=p0999&limit=1000>; rel=\"next\"",
        "{first:?}"
    );
    let mut all = 1000;
    let mut page = first.is(200);
    assert_eq!((names(&page)[0], names(&page).len()), (PROJECT, 1000));
    while page.as_array().unwrap().len() == 1000 {
        let last = names(&page).last().unwrap().to_string();
        page = api
            .get(Role::Manager, &format!("/api/admin/coverage?after={last}"))
            .await
            .is(200);
        all += page.as_array().unwrap().len();
    }
    assert_eq!((all, names(&page).last()), (2101, Some(&"p2100")));
    let seen = monitor(&api).await;
    assert_eq!(seen["coverage"].as_array().unwrap().len(), 1000);
    assert_eq!(seen["coverageLeftOut"], 1101);
    api.get(Role::Manager, "/api/admin/coverage?limit=1001").await.is(400);
    let limited = api.limited(Role::Manager, &["p0007", "p2000"]).await;
    let theirs = api.call(&limited, "GET", "/api/admin/coverage?limit=1", None).await;
    assert_eq!(theirs.header("link"), "<coverage?after=p0007&limit=1>; rel=\"next\"");
    assert_eq!(names(&theirs.is(200)), ["p0007"]);
}

#[tokio::test]
async fn beside_what_cannot_move_stands_the_reason_and_no_time() {
    let api = Api::new().await;
    api.system.put_many(PROJECT, 20, "text").await;
    api.system.vectorize().await;
    api.system.put_many(PROJECT, 30, "another text").await;
    let covered = async || {
        api.system
            .run_sql("UPDATE cronvec.coverage_counts SET counted_at = now() - interval '1 day'")
            .await;
        monitor(&api).await["coverage"][0].clone()
    };
    let moves = covered().await;
    assert!(
        moves["etaSeconds"].as_i64() > Some(0) && moves["perSecond"].as_f64() > Some(0.0),
        "{moves}"
    );
    assert_eq!(moves["blocked"], Value::Null);
    for (wrong, right, said) in [
        (
            "UPDATE cronvec.projects SET paused = true",
            "UPDATE cronvec.projects SET paused = false",
            "the project is stopped",
        ),
        (
            "INSERT INTO cronvec.lane_holds (space_id, project_id, lane, job_id, reason, until)
             SELECT space_id, project_id, 0, 12, 'CANCELLED', 'infinity' FROM cronvec.project_spaces",
            "DELETE FROM cronvec.lane_holds",
            "job 12 ended CANCELLED and holds its lane until somebody retries it",
        ),
        (
            "INSERT INTO cronvec.provider_pauses (endpoint, until, circuit, message)
             VALUES ('static|in-process|minilm-static-256|-', now() + interval '1 hour', true, 'no such key')",
            "DELETE FROM cronvec.provider_pauses",
            "circuit open, static|in-process|minilm-static-256|-: no such key",
        ),
    ] {
        api.system.run_sql(wrong).await;
        let stands = covered().await;
        assert_eq!(
            (&stands["etaSeconds"], &stands["blocked"]),
            (&Value::Null, &json!(said)),
            "{wrong}"
        );
        assert_eq!(stands["pending"], 30);
        api.system.run_sql(right).await;
    }
    assert!(covered().await["etaSeconds"].as_i64() > Some(0));
}

#[tokio::test]
async fn the_last_hour_is_never_above_the_last_day() {
    let api = Api::new().await;
    let sum = |flow: &Value| -> f64 {
        let all = flow.as_array().unwrap().iter();
        all.map(|one| one["records"].as_f64().unwrap()).sum()
    };
    let embed = |records: u32| {
        format!(
            "INSERT INTO cronvec.performance_metrics (metric, value, project) VALUES ('records_embedded', {records}, '{PROJECT}')"
        )
    };
    api.system.run_sql(&embed(5)).await;
    let before = format!(
        "INSERT INTO cronvec.performance_metrics (timestamp, metric, value, project)
         VALUES (now() - interval '5 hours', 'records_embedded', 100, '{PROJECT}')"
    );
    api.system.run_sql(&before).await;
    let seen = monitor(&api).await;
    assert_eq!(
        (sum(&seen["throughput"]["hour"]), sum(&seen["throughput"]["day"])),
        (5.0, 105.0)
    );
    // Its former hours were read a moment ago, and aren't read again so soon.
    api.system.run_sql(&embed(2000)).await;
    let seen = monitor(&api).await;
    assert_eq!(
        (sum(&seen["throughput"]["hour"]), sum(&seen["throughput"]["day"])),
        (2005.0, 2105.0)
    );
}

#[tokio::test]
async fn the_page_knows_which_backfill_runs_and_how_far_it_is() {
    let api = Api::new().await;
    let project = api.system.store.project(PROJECT).await.unwrap();
    let (backfill, _) = api.system.store.begin_backfill(project.id, 0).await.unwrap();
    assert_eq!(
        monitor(&api).await["backfills"],
        json!([{"operation": backfill.id.to_string(), "project": PROJECT, "iteration": null, "iterations": null, "rounds": 0}])
    );
    api.system.store.drive_backfill(backfill.id, Some(10)).await.unwrap();
    assert!(api.system.store.is_running(backfill.id, 3).await.unwrap());
    let running = &monitor(&api).await["backfills"][0];
    assert_eq!((&running["iteration"], &running["iterations"]), (&json!(3), &json!(10)));
    let listed = &api.get(Role::Manager, "/api/admin/backfill").await.is(200)[0];
    assert_eq!(
        (
            &listed["iteration"],
            &listed["iterations"],
            &listed["pending"],
            &listed["percent"]
        ),
        (&json!(3), &json!(10), &json!(0), &json!(0.0))
    );
    let other = api.limited(Role::Manager, &["other"]).await;
    let theirs = api.call(&other, "GET", "/api/admin/monitor", None).await.is(200);
    assert_eq!(theirs["backfills"], json!([]));
}

#[tokio::test]
async fn a_load_balancer_asks_without_a_token_and_learns_nothing() {
    let api = Api::new().await;
    let answer = api.request("GET", "/healthz").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await.unwrap(), "ok");
    let head = api.request("HEAD", "/healthz").send().await.unwrap();
    assert_eq!(head.status(), 200);
    api.send(api.request("POST", "/healthz")).await.is(405);
}
