//! `backfill`: what it would do, what it does, how it is stopped, gone on with and taken back.

use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::conditions::eventually;
use cronvec_tests::provider::{Answer, Provider};
use cronvec_tests::system::{PROJECT, System, record};
use serde_json::{Value, json};

use super::{Cli, DONE, FAILED, USAGE, objects, whole};

const PENDING: &str = "SELECT count(*) FROM cronvec.pending";
pub(super) const EMBEDDED: &str = "SELECT count(*) FROM cronvec.embedded";

/// Records that were stored and that nothing has asked to embed.
pub(super) async fn unasked(records: u32) -> (Provider, System, Cli) {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let all: Vec<Value> = (1..=records)
        .map(|n| record(&format!("r{n:04}"), &format!("text number {n}")))
        .collect();
    let options = EnqueueOptions {
        embed: false,
        ..EnqueueOptions::default()
    };
    system.enqueue(PROJECT, &all, options).await;
    system.ingest().await;
    assert_eq!(system.count(PENDING).await, 0);
    let cli = Cli::of(&system, &provider).with("OPENAI_API_KEY", "sk-test-of-the-harness");
    (provider, system, cli)
}

/// The last line of what it said: the summary.
pub(super) fn summary(lines: &[Value]) -> Value {
    let last = lines.last().expect("a summary").clone();
    assert_eq!(last["step"], "ended", "{last}");
    last
}

#[tokio::test]
async fn a_dry_run_says_records_tokens_time_and_cost_and_does_nothing() {
    let (_provider, system, cli) = unasked(40).await;
    let estimate = cli.object("backfill --dry-run").await;
    assert_eq!(
        (
            &estimate["records"],
            &estimate["pending"],
            &estimate["seconds"],
            &estimate["price"]
        ),
        (&json!(40), &json!(0), &Value::Null, &json!(0.02)),
        "{estimate}"
    );
    let tokens = estimate["tokens"].as_i64().unwrap();
    assert!(tokens > 80 && tokens < 800, "{estimate}");
    system
        .run_sql("INSERT INTO cronvec.performance_metrics (metric, value) VALUES ('records_embedded', 100), ('vectorization_ms', 5000)")
        .await;
    let dear = Cli::of(&system, &_provider).with("EMBEDDING_PRICES", "other=1, text-embedding-3-small=1000000");
    let estimate = dear.object("backfill --dry-run").await;
    assert_eq!(
        (
            &estimate["seconds"],
            &estimate["recordsPerSecond"],
            estimate["cost"].as_f64()
        ),
        (&json!(2.0), &json!(20.0), Some(tokens as f64))
    );
    assert_eq!(
        (
            system.count(PENDING).await,
            system.count("SELECT count(*) FROM cronvec.backfills").await
        ),
        (0, 0)
    );
    let wrong = Cli::of(&system, &_provider).with("EMBEDDING_PRICES", "cheap");
    wrong
        .refuses("backfill --dry-run", USAGE, &["EMBEDDING_PRICES has 'cheap'"])
        .await;
    cli.refuses("backfill", USAGE, &["Embed 40 records of articles?", "--yes"])
        .await;
    assert_eq!(system.count(PENDING).await, 0);
    for line in [
        "backfill --parallel 0",
        "backfill --priority x",
        "backfill --via ftp://x --yes",
        "backfill --via http://example.com --yes",
        "backfill --passes 0",
        "backfill --delay -1",
    ] {
        cli.refuses(line, USAGE, &["error: "]).await;
    }
    cli.refuses("backfill --via lambda:worker --yes", USAGE, &["AWS_REGION is not set"])
        .await;
    cli.refuses("backfill --project nobody --yes", FAILED, &["no project 'nobody'"])
        .await;
}

#[tokio::test]
async fn a_backfill_embeds_what_nothing_had_asked_for_and_sums_up() {
    let (_provider, system, cli) = unasked(230).await;
    let ended = summary(&cli.lines("backfill --yes --batch-size 50").await);
    assert_eq!(
        (
            &ended["state"],
            &ended["marked"],
            &ended["embedded"],
            &ended["left"],
            &ended["quarantined"]
        ),
        (&json!("finished"), &json!(230), &json!(230), &json!(0), &json!(0)),
        "{ended}"
    );
    assert_eq!(ended["coverage"]["percent"], 100.0);
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
    let status = cli.object("backfill status").await;
    assert_eq!(
        (
            &status["operation"],
            &status["state"],
            &status["done"],
            &status["percent"]
        ),
        (&ended["operation"], &json!("finished"), &json!(230), &json!(100.0))
    );
    let acts = cli
        .lines(&format!("audit --operation {}", ended["operation"].as_str().unwrap()))
        .await;
    assert_eq!(acts.len(), 1, "{acts:?}");
    let again = summary(&cli.lines("backfill --yes").await);
    assert_eq!(
        (&again["marked"], &again["ticks"].as_i64().map(|ticks| ticks <= 1)),
        (&json!(0), &Some(true))
    );
    let said = cli.run("backfill --yes").await;
    assert!(said.stdout.contains("finished: 0 embedded"), "{said:?}");
}

#[tokio::test]
async fn a_backfill_takes_what_waits_already_along_and_sets_bad_records_aside() {
    let (provider, system, cli) = unasked(60).await;
    provider.answer_containing("number 7", Answer::rejected());
    system.put(PROJECT, "late", "a text that waits").await;
    let ended = summary(&cli.lines("backfill --yes").await);
    assert_eq!(
        (
            &ended["state"],
            &ended["marked"],
            &ended["embedded"],
            &ended["quarantined"]
        ),
        (&json!("finished"), &json!(60), &json!(60), &json!(1)),
        "{ended}"
    );
    assert_eq!(cli.object("explain r0007").await["state"], "quarantined");
    assert_eq!(
        summary(&cli.lines("backfill --yes").await)["marked"],
        0,
        "what stands aside isn't asked for again"
    );
}

#[tokio::test]
async fn it_goes_round_again_for_records_that_a_user_had_locked() {
    let (provider, system, cli) = unasked(50).await;
    let user = system.database.client().await;
    user.batch_execute("BEGIN; SELECT FROM cronvec.records WHERE id = 'r0020' FOR UPDATE")
        .await
        .unwrap();
    let gate = provider.hold();
    let backfill = cli.start("backfill --yes --json").await;
    provider.wait_open(1).await;
    assert_eq!(
        system.count("SELECT marked FROM cronvec.backfills").await,
        49,
        "nobody waited for the user"
    );
    user.batch_execute("COMMIT").await.unwrap();
    gate.release();
    let outcome = whole(backfill).await;
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
    let ended = summary(&objects(&outcome));
    assert_eq!(
        (&ended["marked"], &ended["embedded"]),
        (&json!(50), &json!(50)),
        "{ended}"
    );
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
}

#[tokio::test]
async fn several_lanes_work_at_once_each_by_a_worker_of_its_own() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    // Records of one lane of three.
    let put = async |lane: u32| {
        let sql = format!(
            "SELECT count(cronvec.put_record('articles', 'r' || n, 'text number ' || n)) FROM generate_series(1, 600) AS n
             WHERE cronvec.bucket('r' || n) % 3 = {lane}"
        );
        system.run_sql(&sql).await;
    };
    let gate = provider.hold();
    put(0).await;
    let backfill = cli.start("backfill --yes --json --parallel 3").await;
    // A worker has four requests in flight at most; who waits for their answers claims nothing.
    provider.wait_open(4).await;
    put(1).await;
    provider.wait_open(8).await;
    put(2).await;
    provider.wait_open(12).await;
    gate.release();
    let outcome = whole(backfill).await;
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
    assert_eq!(summary(&objects(&outcome))["embedded"], 600);
    assert_eq!(cli.object("projects list").await["lanes"], 3);
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
}

#[tokio::test]
async fn iterations_bound_the_ticks_and_what_is_left_is_gone_on_with() {
    let (provider, system, cli) = unasked(100).await;
    provider.answer_next(1, Answer::throttled(1));
    let ended = summary(&cli.lines("backfill --yes --iterations 1").await);
    assert_eq!(
        (&ended["ticks"], &ended["state"], &ended["because"]),
        (&json!(1), &json!("stopped"), &json!("its iterations are over")),
        "{ended}"
    );
    let ended = summary(&cli.lines("backfill --yes --delay 0.01").await);
    assert_eq!(
        ended["state"], "finished",
        "it waited for the end of the pause: {ended}"
    );
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
}

#[tokio::test]
async fn an_open_circuit_ends_it_with_1_and_the_reason() {
    let (provider, _system, cli) = unasked(10).await;
    provider.answer_when(|_| true, Answer::error(401, "auth", "no such key"));
    let outcome = cli.run("backfill --yes --json").await;
    assert_eq!(outcome.code(), Some(FAILED), "{outcome:?}");
    let ended = summary(&objects(&outcome));
    assert!(ended["because"].as_str().unwrap().contains("shut off"), "{ended}");
}

#[tokio::test]
async fn a_stopped_project_and_a_switched_off_search_are_told_at_once() {
    let (_provider, system, cli) = unasked(1).await;
    cli.object("stop").await;
    cli.refuses(
        "backfill --yes",
        USAGE,
        &["project articles is stopped", "cronvec start"],
    )
    .await;
    let off = Cli::at(system.database.url()).with("SEMANTIC_SEARCH_ENABLED", "false");
    off.refuses("backfill --yes", FAILED, &["SEMANTIC_SEARCH_ENABLED"])
        .await;
}

/// What a function of that name was sent; it answers with what a pass in this process said.
async fn lambda(system: &System) -> (String, std::sync::Arc<std::sync::Mutex<Vec<(String, Value)>>>) {
    use axum::extract::Path;
    use axum::http::HeaderMap;
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (worker, log) = (
        std::sync::Arc::new(system.vectorization()),
        std::sync::Arc::clone(&seen),
    );
    let answer = move |Path(name): Path<String>, headers: HeaderMap, body: String| {
        let (worker, log) = (std::sync::Arc::clone(&worker), std::sync::Arc::clone(&log));
        async move {
            let signed = headers["authorization"].to_str().unwrap().to_owned();
            assert!(
                signed.starts_with("AWS4-HMAC-SHA256") && signed.contains("/eu-west-1/lambda/"),
                "{signed}"
            );
            log.lock().unwrap().push((name, serde_json::from_str(&body).unwrap()));
            let report = worker
                .run(cronvec_call::CallOptions::default(), cronvec_tests::system::minute())
                .await
                .unwrap();
            let mut report = serde_json::to_value(report).unwrap();
            report["success"] = json!(true);
            let known = log.lock().unwrap().iter().all(|(name, _)| name == "vectorization");
            match known {
                true => (axum::http::StatusCode::OK, axum::Json(report)),
                false => (
                    axum::http::StatusCode::NOT_FOUND,
                    axum::Json(json!({"Message": "no such function"})),
                ),
            }
        }
    };
    let router = axum::Router::new().route("/2015-03-31/functions/{name}/invocations", axum::routing::post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, seen)
}

#[tokio::test]
async fn a_backfill_works_through_a_function_by_its_name() {
    let (_provider, system, cli) = unasked(60).await;
    let (address, seen) = lambda(&system).await;
    let cli = cli
        .with("CRON_SECRET", "a-long-secret")
        .with("AWS_ENDPOINT_URL", &address)
        .with("AWS_REGION", "eu-west-1")
        .with("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .with("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI-EXAMPLEKEY");
    let ended = summary(&cli.lines("backfill --yes --via lambda:vectorization").await);
    assert_eq!(
        (&ended["state"], &ended["embedded"]),
        (&json!("finished"), &json!(60)),
        "{ended}"
    );
    let seen = seen.lock().unwrap().clone();
    assert_eq!(
        seen[0],
        (
            "vectorization".to_owned(),
            json!({"authorization": "Bearer a-long-secret", "project": PROJECT})
        )
    );
    let refused = cli.run("backfill --yes --json --via lambda:a/b").await;
    assert_eq!(refused.code(), Some(FAILED), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("the function a/b answered 404: no such function"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn marking_beside_what_was_embedded_a_moment_ago_reads_it_once_and_not_once_for_each_record() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    // There are no statistics yet, and none come meanwhile.
    system
        .run_sql(
            "DO $$ DECLARE name text; BEGIN
                 FOR name IN SELECT oid::regclass::text FROM pg_class
                     WHERE relnamespace = 'cronvec'::regnamespace AND relkind = 'r' LOOP
                     EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', name);
                 END LOOP;
             END $$",
        )
        .await;
    system.put_many(PROJECT, 4_000, "text number").await;
    let options = cronvec_call::CallOptions {
        max_records: Some(2_000),
        ..Default::default()
    };
    system.vectorize_with(options, cronvec_tests::system::minute()).await;
    let project = system.store.project(PROJECT).await.unwrap();
    let backfill = system.store.begin_backfill(project.id, 0).await.unwrap().0;
    // Statistics are told by a connection that ends.
    let store = cronvec_store::Store::new(cronvec_store::Database::at(system.database.url(), 1).unwrap());
    while !store.mark_page(backfill.id, 1_000).await.unwrap().unwrap().is_through {}
    drop(store);
    let index = |what: &str| {
        format!("SELECT coalesce(sum({what}), 0)::bigint FROM pg_stat_user_indexes WHERE relname LIKE 'embedded%'")
    };
    eventually("the statistics are there", || async {
        system.count(&index("idx_scan")).await >= 4_000
    })
    .await;
    let read = system.count(&index("idx_tup_read")).await;
    assert!(
        read < 100_000,
        "{read} entries of the index were read for 4,000 records"
    );
}
