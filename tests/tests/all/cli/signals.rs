//! Interrupted, terminated and killed.

use cronvec_tests::conditions::{assert_in_time, eventually};
use cronvec_tests::folder::Folder;
use cronvec_tests::process::Process;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

use super::{Cli, DONE, INTERRUPTED, objects, whole};

/// Waits until nobody but these requests stands between a tick and its end, then signals.
async fn part_by(signal: impl Fn(&Process)) {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    for n in 0..200 {
        system
            .put(PROJECT, &format!("r{n:03}"), &format!("text number {n}"))
            .await;
    }
    let gate = provider.hold();
    let cli = Cli::of(&system, &provider);
    let tick = cli.start("--json tick vectorization").await;
    provider.wait_open(4).await;
    gate.pass(4);
    eventually("the first four batches are stored", || async {
        system.count("SELECT count(*) FROM cronvec.embeddings").await == 100
    })
    .await;
    provider.wait_open(4).await;

    let begun = Instant::now();
    signal(&tick);
    let outcome = whole(tick).await;
    // Two seconds for the answers that are under way, which don't come; and what ending a process takes.
    assert_in_time(begun, Duration::from_millis(2500));
    assert_eq!(outcome.code(), Some(INTERRUPTED), "{outcome:?}");
    let [report] = &objects(&outcome)[..] else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (&report["records"], &report["stoppedBecause"]),
        (&json!(100), &json!("terminated"))
    );
    let job = system.value("SELECT to_jsonb(j) FROM cronvec.job_queue j").await;
    for (field, value) in [
        ("status", json!("PENDING")),
        ("attempts", json!(0)),
        ("crashes", json!(0)),
        ("lease_token", Value::Null),
        ("lease_expires_at", Value::Null),
    ] {
        assert_eq!(job[field], value, "{field} in {job}");
    }
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.pending WHERE attempts = 0")
            .await,
        100
    );
    assert_eq!(system.count("SELECT count(*) FROM cronvec.provider_pauses").await, 0);

    gate.release();
    assert_eq!(
        cli.object("tick vectorization").await["records"],
        100,
        "the next one goes on at once"
    );
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
}

#[tokio::test]
async fn an_interrupted_tick_parts_from_its_job() {
    part_by(Process::interrupt).await;
}

#[tokio::test]
async fn a_terminated_tick_parts_from_its_job() {
    part_by(Process::terminate).await;
}

#[tokio::test]
async fn an_interrupted_ingestion_goes_on_where_it_stopped() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url()).with("INGEST_BATCH_SIZE", "10");
    let text: String = (0..3000)
        .map(|n| format!("{{\"id\":\"r{n}\",\"content\":\"text number {n}\"}}\n"))
        .collect();
    cli.run_reading("ingest -", &text).await;
    let records = "SELECT count(*) FROM cronvec.records";
    let tick = cli.start("tick ingestion --json").await;
    eventually("some are stored", || async { system.count(records).await > 100 }).await;
    tick.interrupt();
    let outcome = whole(tick).await;
    assert_eq!(outcome.code(), Some(INTERRUPTED), "{outcome:?}");
    assert_eq!(objects(&outcome)[0]["stoppedBecause"], "terminated");
    let held = "SELECT count(*) FROM cronvec.job_queue WHERE status = 'PROCESSING' OR attempts > 0 OR crashes > 0";
    assert_eq!(system.count(held).await, 0);
    assert!(system.count(records).await < 3000);
    cli.object("tick ingestion").await;
    let saved = "SELECT sum((result->>'savedCount')::int) FROM cronvec.job_queue WHERE status = 'COMPLETED'";
    assert_eq!(
        (system.count(saved).await, system.count(records).await),
        (3000, 3000),
        "none was stored twice"
    );
}

#[tokio::test]
async fn an_interrupted_ingest_leaves_its_job_to_the_next() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    let gate = provider.hold();
    let text: String = (0..60)
        .map(|n| format!("{{\"id\":\"r{n}\",\"content\":\"text number {n}\"}}\n"))
        .collect();
    let folder = Folder::new();
    let file = folder.file("records.ndjson", &text);
    let line = format!("ingest {file} --wait");
    let ingest = cli.start(&line).await;
    provider.wait_open(3).await;
    ingest.interrupt();
    let outcome = whole(ingest).await;
    assert_eq!(
        (outcome.code(), outcome.stdout.as_str()),
        (Some(INTERRUPTED), ""),
        "{outcome:?}"
    );
    let held = "SELECT count(*) FROM cronvec.job_queue WHERE status = 'PROCESSING' OR attempts + crashes > 0";
    assert_eq!(system.count(held).await, 0);
    gate.release();
    assert_eq!(cli.object(&line).await["skippedCount"], 60);
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
}

#[tokio::test]
async fn after_a_kill_the_next_run_waits_for_the_dead_ones_lease_and_goes_on() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    let gate = provider.hold();
    let folder = Folder::new();
    let file = folder.file("records.ndjson", "{\"id\":\"a\",\"content\":\"text\"}");
    let line = format!("ingest {file} --wait");
    let mut killed = cli.start(&line).await;
    provider.wait_open(1).await;
    killed.kill().await;
    gate.release();
    let mut next = cli.start(&line).await;
    eventually("it waits", || {
        let waits = next.stderr().contains("another worker holds the job") || next.ended().is_some();
        async move { waits }
    })
    .await;
    system.expire_leases().await;
    let outcome = whole(next).await;
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
}
