//! An invocation ends by itself before its deadline, and what it did is neither lost nor done twice.
//!
//! The full figures, twenty invocations of 10 s with requests of 2 s, all at once:
//! `CRONVEC_FULL=1 cargo test -p cronvec-tests --test all bounded -- --nocapture`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cronvec_call::{self as call, CallOptions, Guard};
use cronvec_secrets::Secrets;
use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::between::Transaction;
use cronvec_tests::conditions::{assert_in_time, eventually};
use cronvec_tests::full_size;
use cronvec_tests::provider::{Answer, Options, Provider};
use cronvec_tests::system::{PROJECT, System, minute, record};
use futures::future::join_all;
use serde_json::{Value, json};
use vectorization::StoppedBecause;

/// So many records, `text number 1` and so on.
async fn with_records(provider: &Provider, records: u32) -> System {
    let system = System::embedding_as(provider, 8, &[]).await;
    system.put_many(PROJECT, records, "text number").await;
    system
}

/// A provider that takes its time.
async fn slow(latency: Duration) -> Provider {
    Provider::with(Options {
        latency,
        ..Options::default()
    })
    .await
}

fn assert_nothing_was_asked_twice(provider: &Provider, records: usize) {
    let log = provider.log();
    assert_eq!((log.inputs(), log.counts.len()), (records, records));
}

/// That nobody paid for the end of an invocation: not the job, not a record, not the provider.
async fn assert_nobody_was_charged(system: &System) {
    assert_nobody_was_charged_but_for_done(system).await;
    let elsewhere = "SELECT count(*) FROM cronvec.job_queue WHERE status <> 'PENDING'";
    assert_eq!(system.count(elsewhere).await, 0, "{elsewhere}");
}

/// The same where the job may be through.
async fn assert_nobody_was_charged_but_for_done(system: &System) {
    for charged in [
        "job_queue WHERE attempts > 0 OR crashes > 0",
        "pending WHERE attempts > 0",
        "quarantined_records",
        "provider_pauses",
    ] {
        let count = system.count(&format!("SELECT count(*) FROM cronvec.{charged}")).await;
        assert_eq!(count, 0, "{charged}");
    }
}

/// One bounded invocation, then the rest without haste. How long the first took, and what it stored. On a machine that is busy
/// with other things one may have no time for a request; then it begins none, and the next is the one.
async fn bounded(records: u32, latency: Duration, time: Duration) -> (Duration, u64) {
    let provider = slow(latency).await;
    let system = with_records(&provider, records).await;
    let mut tries = 0;
    let (took, stored) = loop {
        let began = Instant::now();
        let report = system.vectorize_with(CallOptions::default(), began + time).await;
        let took = began.elapsed();
        assert_in_time(began, time);
        assert_eq!(report.stopped_because, StoppedBecause::Deadline);
        assert!(report.remaining, "{report:?}");
        assert_eq!(
            report.records,
            provider.log().inputs() as u64,
            "what was asked for is stored"
        );
        // It wasn't cut off, which would leave the job leased.
        assert_nobody_was_charged(&system).await;
        if report.records > 0 {
            break (took, report.records);
        }
        tries += 1;
        assert!(tries < if full_size() { 1 } else { 10 }, "{report:?}");
    };

    provider.set_latency(Duration::ZERO);
    system.vectorize().await;
    assert_nothing_was_asked_twice(&provider, records as usize);
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
    (took, stored)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invocation_ends_by_itself_before_its_deadline_and_loses_and_repeats_nothing() {
    let (times, latency, time) = if full_size() {
        (20, Duration::from_secs(2), Duration::from_secs(10))
    } else {
        (4, Duration::from_millis(400), Duration::from_secs(4))
    };
    let all = join_all((0..times).map(|_| bounded(900, latency, time))).await;
    for (took, records) in all {
        println!("requests of {latency:?}, an invocation of {time:?}: ended after {took:?}, {records} records stored");
    }
}

#[tokio::test]
async fn a_provider_that_falls_silent_keeps_no_invocation_beyond_its_deadline() {
    let provider = slow(Duration::from_millis(50)).await;
    let system = with_records(&provider, 300).await;
    // The first requests are as fast as ever.
    provider.answer_next(4, Answer::Right);
    provider.answer_when(|_| true, Answer::Never);
    let (began, time) = (Instant::now(), Duration::from_secs(4));
    let report = system.vectorize_with(CallOptions::default(), began + time).await;
    // A request itself is given up no sooner than after 30 s.
    assert_in_time(began, time);
    assert_eq!(
        (report.stopped_because, report.records),
        (StoppedBecause::Deadline, 100)
    );
    assert_nobody_was_charged(&system).await;
    provider.behave();
    system.vectorize().await;
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
}

/// Nothing else would end it: not its own time, nor the closing of its connection, which a server that waits doesn't notice.
#[tokio::test]
async fn a_write_that_waits_for_a_lock_ends_with_its_pass() {
    let provider = Provider::start().await;
    let system = with_records(&provider, 10).await;
    let space = system
        .count("SELECT space_id::bigint FROM cronvec.project_spaces")
        .await;
    let user = Transaction::begin(&system).await;
    user.run(&format!("LOCK TABLE cronvec.chunks_{space} IN SHARE MODE"))
        .await;
    let deadline = Instant::now() + Duration::from_secs(5);
    let report = system.vectorize_with(CallOptions::default(), deadline).await;
    assert_eq!((report.records, report.remaining), (0, true));
    eventually("no statement waits any more", || async { waiting(&system).await == 0 }).await;
    user.commit().await;
    system.expire_leases().await;
    system.vectorize().await;
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
}

#[tokio::test]
async fn a_statement_that_the_server_ends_is_no_fault_of_the_job() {
    let provider = Provider::start().await;
    let system = with_records(&provider, 10).await;
    let new = [record("new", "another text")];
    system.enqueue(PROJECT, &new, EnqueueOptions::default()).await;
    let space = system
        .count("SELECT space_id::bigint FROM cronvec.project_spaces")
        .await;
    let user = Transaction::begin(&system).await;
    user.run(&format!("LOCK TABLE cronvec.chunks_{space}")).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let (vectorization, ingestion) = (system.vectorization(), system.ingestion());
    let embedded = impatiently(&system, vectorization.run(CallOptions::default(), deadline)).await;
    user.run("LOCK TABLE cronvec.records IN SHARE MODE").await;
    let stored = impatiently(&system, ingestion.run(CallOptions::default(), deadline)).await;
    assert_eq!((embedded.unwrap().records, stored.unwrap().records), (0, 0));
    assert_nobody_was_charged(&system).await;
    user.commit().await;
}

/// A pass beside which each statement that waits for a lock is ended, as the server does after `statement_timeout`.
async fn impatiently<T>(system: &System, pass: impl Future<Output = T>) -> T {
    let cancelled = AtomicBool::new(false);
    let waits = "WITH waits AS MATERIALIZED (
            SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')
        SELECT count(*) FROM waits WHERE pg_cancel_backend(pid)";
    let ending = async {
        loop {
            if system.count(waits).await > 0 {
                cancelled.store(true, Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let done = tokio::select! {
        done = pass => done,
        () = ending => unreachable!("it has no end"),
    };
    assert!(cancelled.load(Ordering::Relaxed), "none waited");
    done
}

/// Statements before somebody's lock.
async fn waiting(system: &System) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    system.count(sql).await
}

#[tokio::test]
async fn an_invocation_with_too_little_time_for_a_request_begins_nothing() {
    let provider = Provider::start().await;
    let system = with_records(&provider, 10).await;
    let worker = system.vectorization();
    let deadline = Instant::now() + Duration::from_millis(50);
    let report = worker.run(CallOptions::default(), deadline).await.unwrap();
    assert_eq!(
        (report.stopped_because, report.remaining),
        (StoppedBecause::Deadline, true)
    );
    assert_eq!(provider.log().inputs(), 0);
    assert_nobody_was_charged_but_for_done(&system).await;
    // On a busy machine the answer to its claim may come too late: then its next pass gives the job back.
    worker.run(CallOptions::default(), minute()).await.unwrap();
    assert_nobody_was_charged_but_for_done(&system).await;
    assert_nothing_was_asked_twice(&provider, 10);
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
}

#[tokio::test]
async fn max_records_bounds_a_call_to_the_record() {
    let provider = Provider::start().await;
    let system = with_records(&provider, 700).await;
    for (most, left) in [(100, 600), (333, 267)] {
        let options = CallOptions {
            max_records: Some(most),
            ..CallOptions::default()
        };
        let report = system.vectorize_with(options, minute()).await;
        assert_eq!((report.records, report.stopped_because), (most, StoppedBecause::Limit));
        assert_eq!(system.count("SELECT count(*) FROM cronvec.pending").await, left);
        assert_nobody_was_charged(&system).await;
    }
    system.vectorize().await;
    assert_nothing_was_asked_twice(&provider, 700);
}

#[tokio::test]
async fn max_seconds_bounds_a_call_and_its_answer_says_that_work_remains() {
    let provider = slow(Duration::from_millis(200)).await;
    let system = with_records(&provider, 2000).await;
    let worker = system.vectorization();
    let guard = Guard::new(&system.settings, Secrets::without_aws());
    let began = Instant::now();
    let work = async |options, deadline| worker.run(options, deadline).await;
    let event = json!({"maxSeconds": 4});
    let answer = call::answer(event, call::WorkerKind::Vectorization, &guard, minute(), work).await;
    let answer = answer.unwrap();
    assert_in_time(began, Duration::from_secs(4));
    assert_eq!(
        (
            &answer["success"],
            &answer["processed"],
            &answer["stoppedBecause"],
            &answer["remaining"]
        ),
        (&json!(true), &json!(1), &json!("deadline"), &json!(true))
    );
    assert_ne!(answer["records"], Value::from(0));
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_keeps_what_was_answered_and_the_next_goes_on() {
    let provider = Provider::start().await;
    let system = with_records(&provider, 500).await;
    let gate = provider.hold();
    let worker = Arc::new(system.vectorization());
    let pass = tokio::spawn({
        let worker = Arc::clone(&worker);
        async move { worker.run(CallOptions::default(), minute()).await }
    });
    provider.wait_open(4).await;
    worker.stop();
    gate.release();
    let report = pass.await.unwrap().unwrap();
    assert_eq!(
        (report.stopped_because, report.remaining),
        (StoppedBecause::Terminated, true)
    );
    assert_eq!(report.records, 100, "four requests were open");
    assert_nobody_was_charged(&system).await;

    system.vectorize().await;
    assert_nothing_was_asked_twice(&provider, 500);
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
}

/// Room for what is read ahead is short and every slice ends in the middle of a request: none goes half empty for that.
#[tokio::test]
async fn requests_are_full_however_slices_end() {
    let provider = Provider::with(Options {
        latency: Duration::from_millis(10),
        ..Options::default()
    })
    .await;
    let small = [
        ("EMBEDDING_CHUNK_TOKENS", "8"),
        ("EMBEDDING_BATCH_SIZE", "25"),
        ("VECTORIZE_RECORDS_PER_SLICE", "30"),
    ];
    let system = System::embedding_as(&provider, 8, &small).await;
    for n in 0..400 {
        let parts: Vec<String> = (0..3).map(|part| format!("part {part} of record {n}")).collect();
        system.put(PROJECT, &format!("r{n}"), &parts.join("\n\n")).await;
    }
    system.vectorize().await;
    let chunks = provider.log().inputs();
    assert!(chunks >= 1_200, "each record is several chunks, together {chunks}");
    let requests = provider.log().requests.len();
    assert!(
        requests <= chunks.div_ceil(25) + 1,
        "{requests} requests for {chunks} inputs"
    );
}
