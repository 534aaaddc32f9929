//! Records that kill their worker, and records that are only beside when it is killed.

use std::time::{Duration, Instant};

use cronvec_call::CallOptions;
use cronvec_tests::process::Process;
use cronvec_tests::provider::{Answer, Provider};
use cronvec_tests::system::{PROJECT, System};
use serde_json::json;

const POISON: &str = "the text that kills";

async fn tick(system: &System, provider: &Provider) -> Process {
    tick_asking(system, provider, "4").await
}

/// With so many requests in flight.
async fn tick_asking(system: &System, provider: &Provider, requests: &str) -> Process {
    let url = provider.url();
    let environment = [
        ("DATABASE_URL", system.database.url()),
        ("EMBEDDING_PROVIDER", "openai"),
        ("OPENAI_BASE_URL", &url),
        ("OPENAI_API_KEY", "sk-test-of-the-harness"),
        ("EMBEDDING_DIMENSIONS", "8"),
        ("EMBEDDING_CONCURRENT_REQUESTS", requests),
    ];
    Process::spawn("cronvec", &["tick", "vectorization"], &environment).await
}

async fn system(provider: &Provider, records: u32) -> System {
    let system = System::embedding_with(provider, 8).await;
    system.put_many(PROJECT, records, "text number").await;
    system
}

/// Kills each worker that asks for the text, until one lives. Returns how many have died, those before among them.
async fn kill_whoever_asks(system: &System, provider: &Provider, mut crashes: u32) -> u32 {
    loop {
        let asked_before = provider.log().count(POISON);
        let mut worker = tick(system, provider).await;
        while worker.ended().is_none() && provider.log().count(POISON) == asked_before {
            tokio::task::yield_now().await;
        }
        if worker.ended().is_some() {
            return crashes;
        }
        worker.kill().await;
        crashes += 1;
        assert!(crashes <= 12, "it is found by now");
        system.expire_leases().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_kills_each_worker_is_found_in_at_most_12_crashes_and_the_others_are_embedded() {
    let provider = Provider::start().await;
    let system = system(&provider, 400).await;
    system.put(PROJECT, "poison", POISON).await;
    // A worker that asks for it gets no answer, and is killed while it waits.
    provider.answer_containing(POISON, Answer::Never);

    let crashes = kill_whoever_asks(&system, &provider, 0).await;
    while system.vectorize().await.remaining {}

    assert_eq!(
        system
            .value("SELECT jsonb_agg(jsonb_build_array(record_id, reason)) FROM cronvec.quarantine")
            .await,
        json!([["poison", "crashed_worker"]])
    );
    assert_eq!(system.count("SELECT count(*) FROM cronvec.embeddings").await, 400);
    assert_eq!(system.count("SELECT count(*) FROM cronvec.pending").await, 0);
    println!("found after {crashes} crashes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_shared_the_worker_with_a_killing_text_loses_nothing() {
    let provider = Provider::start().await;
    let system = system(&provider, 60).await;
    system.put(PROJECT, "poison", POISON).await;
    system.create_project("innocent").await;
    system.put_many("innocent", 300, "an innocent text").await;
    provider.answer_containing(POISON, Answer::Never);

    // The first worker holds both jobs when it is killed: neither is answered until then, and there is room for all the
    // requests of both, whichever comes first.
    let gate = provider.hold();
    let mut worker = tick_asking(&system, &provider, "16").await;
    let is_asked = |what: &str| provider.log().counts.keys().any(|text| text.starts_with(what));
    while !(is_asked(POISON) && is_asked("an innocent text")) {
        assert!(worker.ended().is_none(), "it waits for answers");
        tokio::task::yield_now().await;
    }
    worker.kill().await;
    gate.release();
    let held = "SELECT count(*) FROM cronvec.job_queue WHERE status = 'PROCESSING'";
    assert_eq!(system.count(held).await, 2, "it held both");
    system.expire_leases().await;

    kill_whoever_asks(&system, &provider, 1).await;
    while system.vectorize().await.remaining {}

    assert_eq!(
        system
            .value("SELECT jsonb_agg(jsonb_build_array(project, record_id, reason)) FROM cronvec.quarantine")
            .await,
        json!([[PROJECT, "poison", "crashed_worker"]])
    );
    let embedded = "SELECT jsonb_object_agg(project, n) FROM (
        SELECT project, count(*) AS n FROM cronvec.embeddings WHERE NOT stale GROUP BY project) AS e";
    assert_eq!(system.value(embedded).await, json!({ PROJECT: 60, "innocent": 300 }));
    let charged = "SELECT count(*) FROM cronvec.job_queue WHERE attempts > 0 OR crashes > 0 OR status <> 'COMPLETED'";
    assert_eq!(system.count(charged).await, 0, "no job is charged");
    assert_eq!(system.count("SELECT count(*) FROM cronvec.pending").await, 0);
}

/// A job that somebody has just died over, with what its cursor remembers.
async fn after_a_crash(system: &System, cursor: &serde_json::Value) {
    system.store.ensure_vectorize_jobs(3, 10_000).await.expect("a job");
    system
        .run_sql(&format!(
            "UPDATE cronvec.job_queue SET status = 'PROCESSING', turn = NULL, lease_token = gen_random_uuid(),
                 lease_expires_at = now() - interval '1 second', claimed_at = now(), crashes = 11, cursor = '{cursor}'"
        ))
        .await;
}

#[tokio::test]
async fn a_record_that_came_to_the_head_of_the_line_since_is_not_blamed_for_the_one_before_it() {
    let provider = Provider::start().await;
    let system = system(&provider, 3).await;
    let another = json!({"id": "another", "hash": "0".repeat(32)});
    let suspects = json!({"size": 1, "step": 1, "alone": 2, "seen": 11, "culprit": another, "is_checked": false});
    after_a_crash(&system, &json!({ "suspects": suspects })).await;

    while system.vectorize().await.remaining {}
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
}

#[tokio::test]
async fn a_record_is_not_blamed_when_its_worker_died_without_it_as_well() {
    let provider = Provider::start().await;
    let system = system(&provider, 3).await;
    let first = system
        .value(
            "SELECT jsonb_build_object('id', w.record_id, 'hash', encode(r.content_hash, 'hex'))
             FROM cronvec.pending w JOIN cronvec.records r ON r.project_id = w.project_id AND r.id = w.record_id
             ORDER BY w.not_before, w.record_id LIMIT 1",
        )
        .await;
    // The crash that is counted now came while something harmless was asked for.
    let suspects = json!({"size": 1, "step": 1, "alone": 3, "seen": 11, "culprit": first, "is_checked": true});
    after_a_crash(&system, &json!({ "suspects": suspects })).await;

    while system.vectorize().await.remaining {}
    system.assert_all_embedded_by_fake(PROJECT, 8).await;

    // The same without that crash: it is blamed.
    system.put(PROJECT, first["id"].as_str().unwrap(), "a new text").await;
    let hash = system
        .value(
            "SELECT encode(r.content_hash, 'hex') FROM cronvec.records r JOIN cronvec.pending w ON w.record_id = r.id",
        )
        .await;
    let suspects = json!({"size": 1, "step": 1, "alone": 2, "seen": 11,
        "culprit": {"id": first["id"], "hash": hash}, "is_checked": false});
    system.run_sql("DELETE FROM cronvec.job_queue").await;
    after_a_crash(&system, &json!({ "suspects": suspects })).await;
    while system.vectorize().await.remaining {}
    assert_eq!(
        system
            .value("SELECT jsonb_agg(record_id) FROM cronvec.quarantine")
            .await,
        json!([first["id"]])
    );
}

/// A system with a job that lost its worker: records of several chunks each, more than a pass can ask for one by one. And
/// another project beside it.
async fn with_a_crashed_job(provider: &Provider) -> System {
    let settings = [("EMBEDDING_BATCH_SIZE", "5"), ("EMBEDDING_CONCURRENT_REQUESTS", "2")];
    let system = System::embedding_as(provider, 8, &settings).await;
    for n in 0..40 {
        let text: String = (0..400).map(|word| format!("word-{n}-{word} ")).collect();
        system.put(PROJECT, &format!("long{n}"), &text).await;
    }
    let gate = provider.hold();
    let mut worker = tick(&system, provider).await;
    provider.wait_open(1).await;
    worker.kill().await;
    gate.release();
    system.expire_leases().await;
    system.create_project("beside").await;
    system.put_many("beside", 200, "beside").await;
    system
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_crashed_gets_on_in_each_pass_and_others_are_embedded_beside_it() {
    let provider = Provider::start().await;
    let system = with_a_crashed_job(&provider).await;
    provider.set_latency(Duration::from_millis(60));
    let chunks_of = async |project: &str| {
        let sql = format!(
            "SELECT count(*) FROM cronvec.chunks c JOIN cronvec.projects p ON p.id = c.project_id WHERE p.name = '{project}'"
        );
        system.count(&sql).await
    };
    let crashes = "SELECT coalesce(sum(crashes), 0)::bigint FROM cronvec.job_queue WHERE project = 'articles'";
    let stored = "SELECT count(*) FROM cronvec.chunks";
    let mut before = system.count(stored).await;
    let mut passes = 0;
    while passes == 0 || system.count("SELECT count(*) FROM cronvec.pending").await > 0 {
        let deadline = Instant::now() + Duration::from_secs(4);
        let report = system.vectorize_with(CallOptions::default(), deadline).await;
        passes += 1;
        if passes == 1 {
            assert_eq!(report.rescued, 1);
            assert!(chunks_of("beside").await > 0, "others get something in each pass");
            assert!(chunks_of(PROJECT).await > 0, "and so does the suspect");
        }
        let now = system.count(stored).await;
        assert!(now > before || !report.remaining, "something is stored in each pass");
        before = now;
        assert!(passes < 40, "it comes to its end");
    }
    assert_eq!(system.count(crashes).await, 0, "nobody is suspected any more");
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
    system.assert_all_embedded_by_fake("beside", 8).await;
    println!("{passes} passes");
}
