//! `serve`: the long-lived process, over real HTTP.

use cronvec_tests::conditions::{assert_in_time, eventually, eventually_some};
use cronvec_tests::http;
use cronvec_tests::process::Process;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

use super::{Cli, DONE, FAILED, USAGE, objects, whole};

pub(super) const SECRET: &str = "a-long-secret";
const SESSION_SECRET: &str = "a-secret-of-more-than-32-characters";

/// A service and its address.
pub(super) struct Service {
    pub process: Process,
    pub address: String,
}

impl Service {
    pub async fn start(cli: &Cli, options: &str) -> Self {
        let line = format!("serve --json --listen 127.0.0.1:0 {options}");
        let process = cli.start(line.trim()).await;
        let address = eventually_some("it listens", || async {
            let said: Value = serde_json::from_str(process.stdout().lines().next()?).ok()?;
            Some(format!("http://{}", said["listening"].as_str()?))
        })
        .await;
        Self { process, address }
    }

    /// Status and body of a request with this bearer.
    pub async fn ask(&self, method: &str, path: &str, bearer: Option<&str>) -> (u16, String) {
        let method = method.parse().unwrap();
        let mut request = http::client().request(method, format!("{}{path}", self.address));
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub async fn call(&self, method: &str, path: &str) -> Value {
        let (status, body) = self.ask(method, path, Some(SECRET)).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// What Prometheus reads of this name.
    pub async fn metric(&self, name: &str) -> f64 {
        let (status, page) = self.ask("GET", "/metrics", None).await;
        assert_eq!(status, 200);
        let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {page}"))
    }
}

pub(super) fn production(system: &System, provider: &Provider) -> Cli {
    Cli::of(system, provider)
        .with("CRON_SECRET", SECRET)
        .with("OPENAI_API_KEY", "sk-test-of-the-harness")
        .with("EMBEDDING_WORKER_INTERVAL", "100")
        .with("SESSION_SECRET", SESSION_SECRET)
        .with("PUBLIC_URL", "https://cronvec.example.com")
}

#[tokio::test]
async fn serve_needs_what_production_needs_and_says_all_of_it() {
    let system = System::embedding_in_process().await;
    Cli { variables: Vec::new() }
        .refuses("serve", USAGE, &["EMBEDDING_PROVIDER is not set; production needs it"])
        .await;
    let bare = Cli::at(system.database.url()).with("EMBEDDING_PROVIDER", "static");
    let all = [
        "CRON_SECRET is not set",
        "SESSION_SECRET is not set",
        "PUBLIC_URL is not set",
    ];
    bare.refuses("serve", USAGE, &all).await;
    let both = ["SESSION_SECRET is not set", "PUBLIC_URL is not set"];
    let bare = bare.with("CRON_SECRET", SECRET);
    bare.refuses("serve", USAGE, &both).await;
    let bare = bare
        .with("SESSION_SECRET", "short")
        .with("PUBLIC_URL", "https://cronvec.example.com");
    bare.refuses("serve", USAGE, &["SESSION_SECRET has fewer than 32 characters"])
        .await;
    let nowhere = Cli { variables: Vec::new() }
        .with("EMBEDDING_PROVIDER", "static")
        .with("CRON_SECRET", SECRET)
        .with("SESSION_SECRET", SESSION_SECRET)
        .with("PUBLIC_URL", "https://cronvec.example.com");
    nowhere.refuses("serve", USAGE, &["DATABASE_URL is not set"]).await;
    let empty = cronvec_tests::database::Database::empty().await;
    let unmigrated = Cli::at(empty.url())
        .with("EMBEDDING_PROVIDER", "static")
        .with("CRON_SECRET", SECRET)
        .with("SESSION_SECRET", SESSION_SECRET)
        .with("PUBLIC_URL", "https://cronvec.example.com");
    unmigrated.refuses("serve", FAILED, &["cronvec migrate up"]).await;
}

#[tokio::test]
async fn what_is_written_is_stored_and_embedded_by_its_schedule_and_sigterm_ends_it_well() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = production(&system, &provider);
    let service = Service::start(&cli, "").await;
    cli.run_reading(
        "ingest -",
        "{\"id\":\"a\",\"content\":\"a text\"}\n{\"id\":\"b\",\"content\":\"another text\"}\n{\"id\":\"c\"}\n",
    )
    .await;
    eventually("both are embedded", || async {
        system.count("SELECT count(*) FROM cronvec.embeddings").await == 2
    })
    .await;
    let workers = "SELECT count(*) FROM cronvec.worker_status";
    eventually("all three workers were called", || async {
        system.count(workers).await == 3
    })
    .await;
    let (status, health) = service.ask("GET", "/api/health", None).await;
    assert_eq!((status, health.contains("ok")), (200, true), "{health}");
    eventually("the pass is counted", || async {
        service.metric("cronvec_records_total{worker=\"vectorization\"}").await >= 2.0
    })
    .await;
    assert_eq!(service.metric("cronvec_database_up").await, 1.0);
    assert_eq!(service.metric("cronvec_pending_records").await, 0.0);
    assert_eq!(service.metric("cronvec_rejected_records_total").await, 1.0);
    assert!(
        service
            .metric("cronvec_worker_last_seen_seconds{worker=\"ingestion\"}")
            .await
            < 60.0
    );
    service.process.terminate();
    let outcome = whole(service.process).await;
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
}

#[tokio::test]
async fn worker_calls_need_the_bearer_and_answer_as_the_functions_do() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let service = Service::start(&production(&system, &provider), "--no-schedule").await;
    for bearer in [None, Some("wrong")] {
        for path in [
            "/api/workers/vectorization",
            "/api/workers/cleanup",
            "/api/process-embedding-queue",
        ] {
            let (status, body) = service.ask("POST", path, bearer).await;
            assert_eq!(
                (status, body.contains("\"success\":false")),
                (401, true),
                "{path}: {body}"
            );
        }
    }
    for (method, path, wanted) in [
        ("GET", "/api/workers/nobody", 404),
        ("DELETE", "/api/workers/ingestion", 405),
        ("GET", "/api/process-embedding-queue", 405),
        ("GET", "/elsewhere", 404),
        ("GET", "/api/workers/vectorization?maxRecords=0", 400),
    ] {
        assert_eq!(
            service.ask(method, path, Some(SECRET)).await.0,
            wanted,
            "{method} {path}"
        );
    }
    system.put_many(PROJECT, 30, "text number").await;
    let limited = service.call("POST", "/api/process-embedding-queue?maxRecords=10").await;
    assert_eq!(
        (
            &limited["success"],
            &limited["records"],
            &limited["stoppedBecause"],
            &limited["authorisedBy"]
        ),
        (&json!(true), &json!(10), &json!("limit"), &json!("current"))
    );
    let rest = service
        .call("GET", &format!("/api/workers/vectorization?project={PROJECT}"))
        .await;
    assert_eq!((&rest["records"], &rest["remaining"]), (&json!(20), &json!(false)));
    assert_eq!(service.call("GET", "/api/workers/ingestion").await["processed"], 0);
    assert_eq!(service.call("GET", "/api/workers/cleanup").await["deletedCount"], 0);
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
}

#[tokio::test]
async fn sigterm_in_the_middle_of_a_pass_releases_its_job_within_ten_seconds() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    system.put_many(PROJECT, 200, "text number").await;
    let gate = provider.hold();
    let service = Service::start(&production(&system, &provider), "").await;
    provider.wait_open(4).await;
    gate.pass(4);
    eventually("the first batches are stored", || async {
        system.count("SELECT count(*) FROM cronvec.embedded").await == 100
    })
    .await;
    provider.wait_open(4).await;
    let begun = Instant::now();
    service.process.terminate();
    let outcome = whole(service.process).await;
    assert_in_time(begun, Duration::from_secs(10));
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
    let held = "SELECT count(*) FROM cronvec.job_queue WHERE status = 'PROCESSING' OR attempts > 0 OR crashes > 0";
    assert_eq!(system.count(held).await, 0);
    gate.release();
    assert_eq!(
        system.vectorize().await.records,
        100,
        "what was stored isn't asked for again"
    );
}

#[tokio::test]
async fn several_workers_serve_several_projects_at_once() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    system.create_project("other").await;
    system.put_many(PROJECT, 200, "text number").await;
    let gate = provider.hold();
    let cli = production(&system, &provider)
        .with("EMBEDDING_CONCURRENT_WORKERS", "2")
        .with("VECTORIZE_JOBS_PER_INVOCATION", "1");
    let _service = Service::start(&cli, "").await;
    // One has four requests in flight at most, and claims nothing while it waits for their answers.
    provider.wait_open(4).await;
    system.put_many("other", 200, "text number").await;
    provider.wait_open(8).await;
    gate.release();
}

#[tokio::test]
async fn a_database_that_goes_away_is_waited_for_and_metrics_say_so() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let mut service = Service::start(&production(&system, &provider), "").await;
    let name = system.database.name().to_owned();
    let other = cronvec_tests::database::connect(&cronvec_tests::database::server().await.url("postgres")).await;
    let forbid = format!(
        "ALTER DATABASE {name} ALLOW_CONNECTIONS false;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    );
    for statement in forbid.split(';') {
        other.batch_execute(statement).await.unwrap();
    }
    eventually("the metrics say so", || async {
        service.metric("cronvec_database_up").await == 0.0
    })
    .await;
    eventually("a pass has failed", || async {
        service
            .metric("cronvec_passes_failed_total{worker=\"vectorization\"}")
            .await
            > 0.0
    })
    .await;
    other
        .batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
        .await
        .unwrap();
    let sql = system.database.client().await;
    cronvec_tests::system::put(&sql, PROJECT, "a", "a text").await;
    eventually("it is embedded", || async {
        let rows = sql.query_typed("SELECT FROM cronvec.embedded", &[]).await;
        rows.is_ok_and(|rows| rows.len() == 1)
    })
    .await;
    assert!(service.process.ended().is_none());
}

#[tokio::test]
async fn a_backfill_works_through_a_deployment_by_its_url() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = production(&system, &provider);
    let service = Service::start(&cli, "--no-schedule").await;
    system.put_many(PROJECT, 60, "text number").await;
    system.run_sql("DELETE FROM cronvec.pending").await;
    let wrong = Cli::of(&system, &provider).with("CRON_SECRET", "another");
    let refused = wrong
        .run(&format!("backfill --yes --json --via {}", service.address))
        .await;
    assert_eq!(refused.code(), Some(FAILED), "{refused:?}");
    assert!(refused.stderr.contains("it answered 401"), "{refused:?}");
    for via in ["", "/api/process-embedding-queue"] {
        let outcome = cli
            .run(&format!("backfill --yes --json --via {}{via}", service.address))
            .await;
        assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
        assert_eq!(objects(&outcome).last().unwrap()["state"], "finished");
    }
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
    assert!(service.metric("cronvec_passes_total{worker=\"vectorization\"}").await >= 1.0);
}
