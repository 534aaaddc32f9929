//! Workers that are killed or frozen at any moment, as real processes.
//!
//! The full figures: `CRONVEC_FULL=1 cargo test -p cronvec-tests --test all killed -- --nocapture`

use std::collections::HashSet;
use std::time::{Duration, Instant};

use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::between::Transaction;
use cronvec_tests::conditions::{assert_in_time, eventually};
use cronvec_tests::full_size;
use cronvec_tests::process::Process;
use cronvec_tests::provider::{Options, Provider};
use cronvec_tests::skipped;
use cronvec_tests::system::{PROJECT, System, put, record};
use rand::Rng;
use serde_json::json;

const INPUTS_PER_REQUEST: usize = 10;
/// `EMBEDDING_CONCURRENT_REQUESTS`'s default.
const REQUESTS_AT_ONCE: usize = 4;
/// What one write carries at most.
const INPUTS_PER_WRITE: usize = 400;

/// A provider that takes a moment, so that a request is nearly always open.
async fn provider() -> Provider {
    Provider::with(Options {
        latency: Duration::from_millis(30),
        ..Options::default()
    })
    .await
}

async fn system(provider: &Provider) -> System {
    let batch = INPUTS_PER_REQUEST.to_string();
    System::embedding_as(provider, 8, &[("EMBEDDING_BATCH_SIZE", &batch)]).await
}

/// `cronvec tick` on this system.
async fn tick(worker: &str, system: &System, provider: &Provider) -> Process {
    let (url, batch) = (provider.url(), INPUTS_PER_REQUEST.to_string());
    let environment = [
        ("DATABASE_URL", system.database.url()),
        ("EMBEDDING_PROVIDER", "openai"),
        ("OPENAI_BASE_URL", &url),
        ("OPENAI_API_KEY", "sk-test-of-the-harness"),
        ("EMBEDDING_DIMENSIONS", "8"),
        ("EMBEDDING_BATCH_SIZE", &batch),
    ];
    Process::spawn("cronvec", &["tick", worker], &environment).await
}

/// Goes on at a random moment while the process has a request open.
async fn random_moment(provider: &Provider, process: &mut Process, most: Duration) {
    provider.wait_open(1).await;
    let wait = rand::rng().random_range(Duration::ZERO..most);
    tokio::time::sleep(wait).await;
    provider.wait_open(1).await;
    assert!(process.ended().is_none(), "work is left: {}", process.stderr());
}

/// Every 25th text has several chunks, and no two chunks are the same.
async fn put_texts(system: &System, records: u32) {
    system
        .run_sql(&format!(
            "SELECT count(cronvec.put_record('{PROJECT}', 'r' || n, CASE WHEN n % 25 > 0 THEN 'text number ' || n ELSE
                 (SELECT string_agg(format('Sentence %s of the long text %s.', i, n), ' ') FROM generate_series(1, 200) AS i)
             END)) FROM generate_series(1, {records}) AS n"
        ))
        .await;
}

async fn texts_in_store(system: &System) -> HashSet<String> {
    let rows = system.sql.query_typed("SELECT content FROM cronvec.chunks", &[]).await;
    rows.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Connections to the database, without those that the test itself has.
async fn wait_until_alone(system: &System, ours: i64) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()";
    eventually("the dead worker's statement has ended", || async {
        system.count(sql).await <= ours
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_often_workers_are_killed_each_record_ends_with_the_vector_of_its_current_text() {
    let (kills, records) = if full_size() { (50, 20_000) } else { (8, 4_000) };
    let provider = provider().await;
    let system = system(&provider).await;
    put_texts(&system, records).await;

    // Texts change all the while.
    let writer = system.database.client().await;
    let changing = tokio::spawn(async move {
        for version in 1.. {
            let id = format!("r{}", rand::rng().random_range(1..=records));
            put(&writer, PROJECT, &id, &format!("version {version} of {id}")).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let ours = system
        .count("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        .await;

    // For each worker: what it sent, and what was in the database after it.
    let mut lives: Vec<(HashSet<String>, HashSet<String>)> = Vec::new();
    let mut seen = 0;
    for life in 0..kills {
        // However fast they are, none finds too little to be killed over.
        if system.count("SELECT count(*) FROM cronvec.pending").await < i64::from(records / 2) {
            system
                .put_many(PROJECT, records / 2, &format!("life {life} of text"))
                .await;
        }
        let mut worker = tick("vectorization", &system, &provider).await;
        random_moment(&provider, &mut worker, Duration::from_millis(300)).await;
        worker.kill().await;
        eventually("its requests are given up", || async {
            *provider.open_requests().borrow() == 0
        })
        .await;
        wait_until_alone(&system, ours).await;
        system.expire_leases().await;
        let requests = provider.log().requests.split_off(seen);
        seen += requests.len();
        lives.push((requests.into_iter().flatten().collect(), texts_in_store(&system).await));
    }
    assert!(
        system.count("SELECT count(*) FROM cronvec.pending").await > 0,
        "work is left at the last kill"
    );
    changing.abort();
    let _ = changing.await;

    while system.vectorize().await.remaining {}
    // Of what was filled a moment ago the planner knows nothing.
    system.run_sql("ANALYZE").await;
    let aside = "SELECT coalesce(jsonb_agg(q), '[]') FROM cronvec.quarantined_records q";
    assert_eq!(system.value(aside).await, json!([]), "no record is blamed");
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
    assert_eq!(
        system.count("SELECT count(*) FROM cronvec.chunks").await,
        system.count("SELECT sum(chunks) FROM cronvec.embedded").await,
        "nothing is left of older texts"
    );
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.job_queue WHERE status <> 'COMPLETED'")
            .await,
        0,
        "no job is stuck"
    );

    let log = provider.log();
    let mut later: HashSet<String> = log.requests[seen..].iter().flatten().cloned().collect();
    for (life, (sent, stored)) in lives.iter().enumerate().rev() {
        let wasted: HashSet<&String> = sent.intersection(&later).collect();
        let unwritten = sent.difference(stored).count();
        println!(
            "kill {}: {} sent, {unwritten} of them not written, {} sent again",
            life + 1,
            sent.len(),
            wasted.len()
        );
        assert!(
            wasted.iter().all(|text| !stored.contains(*text)),
            "what was written isn't asked for again"
        );
        assert!(
            wasted.len() <= INPUTS_PER_REQUEST * REQUESTS_AT_ONCE + INPUTS_PER_WRITE,
            "{}",
            wasted.len()
        );
        later.extend(sent.iter().cloned());
    }
    let wasted = log.inputs() - log.counts.len();
    println!(
        "{kills} kills: {} texts, {wasted} inputs sent more than once",
        log.counts.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_frozen_in_the_middle_blocks_nobody_and_harms_nothing_when_it_goes_on() {
    let rounds = if full_size() { 20 } else { 4 };
    let provider = provider().await;
    let system = system(&provider).await;
    for round in 0..rounds {
        system.put_many(PROJECT, 300, &format!("round {round} text")).await;
        // However late we are to freeze it, what is held keeps it from its end.
        let gate = provider.hold();
        gate.pass(rand::rng().random_range(0..300 / INPUTS_PER_REQUEST - REQUESTS_AT_ONCE));
        let mut frozen = tick("vectorization", &system, &provider).await;
        random_moment(&provider, &mut frozen, Duration::from_millis(150)).await;
        frozen.freeze();
        gate.release();
        let began = Instant::now();
        system
            .put(PROJECT, "r1", &format!("round {round}, while it is frozen"))
            .await;
        system.expire_leases().await;
        while system.vectorize().await.remaining {}
        let waited = began.elapsed();
        system.assert_all_embedded_by_fake(PROJECT, 8).await;
        let before = system.written().await;

        frozen.thaw();
        assert!(frozen.wait().await.success(), "{}", frozen.stderr());
        assert!(system.written().await == before, "it changed nothing");
        println!(
            "round {round}: the others were done {waited:?} after the freeze; it said: {}",
            frozen.stdout().trim()
        );
    }
}

/// Its transaction has two statements, so it can stand idle between them; the server ends it after 10 s.
#[tokio::test]
async fn ingestion_that_is_frozen_in_its_transaction_holds_its_records_for_ten_seconds_at_most() {
    if !full_size() {
        return skipped("it takes more than ten seconds; CRONVEC_FULL=1 runs it");
    }
    let provider = provider().await;
    let system = system(&provider).await;
    let records: Vec<_> = (0..10)
        .map(|n| record(&format!("r{n}"), &format!("text {n}")))
        .collect();
    system.enqueue(PROJECT, &records, EnqueueOptions::default()).await;
    // It waits for a record that a user is writing; then it is frozen and the user gives up.
    let user = Transaction::begin(&system).await;
    user.run("SELECT cronvec.put_record('articles', 'r5', 'the user''s')")
        .await;
    let mut frozen = tick("ingestion", &system, &provider).await;
    system.wait_blocked(1).await;
    frozen.freeze();
    user.run("ROLLBACK").await;
    let stands =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'
                      AND query LIKE '%records%'";
    eventually("it stands idle in its transaction", || async {
        system.count(stands).await == 1
    })
    .await;

    let began = Instant::now();
    system.put(PROJECT, "another", "nobody waits for the project").await;
    assert_eq!(system.count(stands).await, 1, "nobody waited for its end");
    system.put(PROJECT, "r3", "the user's").await;
    assert_eq!(system.count(stands).await, 0, "the server has ended it");
    assert_in_time(began, Duration::from_secs(12));
    println!("a writer of the same record waited {:?}", began.elapsed());
    system.expire_leases().await;
    system.ingest().await;
    let before = system.written().await;
    assert_eq!(system.count("SELECT count(*) FROM cronvec.records").await, 11);
    frozen.thaw();
    frozen.wait().await;
    assert_eq!(system.written().await, before);
    while system.vectorize().await.remaining {}
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
}
