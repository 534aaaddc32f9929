//! What was learnt of refused texts outlives the pass that paid for it.
//!
//! At full size, and with workers that are killed:
//! `CRONVEC_FULL=1 cargo test -p cronvec-tests --test all -- learnt --nocapture --test-threads 1`

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use cronvec_tests::full_size;
use cronvec_tests::process::Process;
use cronvec_tests::provider::{Answer, Provider};
use cronvec_tests::system::{PROJECT, System};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::{CANARY, WIDTH, end_pauses, quarantine, with_records};

/// A system whose provider always rejects so many of its records.
async fn rejecting(records: u32, rejected: usize) -> (Provider, System) {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, WIDTH).await;
    let mut seeded = StdRng::seed_from_u64(7);
    let all: Vec<u32> = (1..=records).collect();
    let bad: HashSet<u32> = all.choose_multiple(&mut seeded, rejected).copied().collect();
    system
        .run_sql(&format!(
            "SELECT count(cronvec.put_record('{PROJECT}', 'r' || n, CASE WHEN n IN ({}) THEN 'bad ' ELSE 'good ' END || n || '.'))
             FROM generate_series(1, {records}) AS n",
            bad.iter().map(u32::to_string).chain(["0".to_owned()]).collect::<Vec<_>>().join(", ")
        ))
        .await;
    (provider, system)
}

/// Each tenth request is answered with 429, whatever it asks for; then what is bad is rejected.
fn misbehave(provider: &Provider, limits: bool) {
    let asked = AtomicUsize::new(0);
    if limits {
        provider.answer_when(
            move |_| asked.fetch_add(1, Ordering::Relaxed) % 10 == 9,
            Answer::throttled(1),
        );
    }
    provider.answer_containing("bad ", Answer::rejected());
}

/// One tick after another, until nothing is left; gives the requests but for those that were answered with 429.
async fn requests(provider: &Provider, system: &System) -> u64 {
    let mut limited = 0;
    loop {
        let report = system.vectorize().await;
        limited += report.rate_limited;
        if !report.remaining {
            break;
        }
        end_pauses(system).await;
    }
    provider.log().requests.len() as u64 - limited
}

#[tokio::test]
async fn rejected_texts_and_rate_limits_together_cost_hardly_more_than_rejected_texts_alone() {
    let (records, cases) = match full_size() {
        true => (2_000, [0, 1, 29, 500]),
        false => (300, [0, 1, 5, 75]),
    };
    for rejected in cases {
        let mut took = Vec::new();
        for limits in [false, true] {
            let (provider, system) = rejecting(records, rejected).await;
            misbehave(&provider, limits);
            took.push(requests(&provider, &system).await);
            let found = quarantine(&system).await;
            assert_eq!(found.len(), rejected, "all of them, and no other");
            let embedded = system
                .count("SELECT count(*) FROM cronvec.embeddings WHERE NOT stale")
                .await;
            assert_eq!(embedded, i64::from(records) - i64::try_from(rejected).unwrap());
        }
        println!(
            "{rejected} of {records} rejected: {} requests, with 429s {}",
            took[0], took[1]
        );
        // A tick that a 429 ends sends a request less than full.
        assert!(took[1] as f64 <= took[0] as f64 * 1.3 + 2.0, "{rejected}: {took:?}");
    }
}

#[tokio::test]
async fn what_was_learnt_of_a_batch_is_not_paid_for_again_by_the_next_pass() {
    let (provider, system) = with_records(25).await;
    system.put(PROJECT, "r007", "bad 7.").await;
    provider.answer_containing("bad ", Answer::rejected());
    // The whole batch is rejected, and then everything rests.
    let whole = |inputs: &[String]| inputs.len() == 25;
    provider.behave();
    provider.answer_when(whole, Answer::rejected());
    provider.answer_when(|_| true, Answer::throttled(1));
    system.vectorize().await;
    let asked = provider.log().requests.len();

    provider.behave();
    provider.answer_containing("bad ", Answer::rejected());
    end_pauses(&system).await;
    let report = system.vectorize().await;
    assert_eq!((report.records, report.quarantined, report.remaining), (24, 1, false));
    let requests = &provider.log().requests[asked..];
    assert!(
        requests.iter().all(|inputs| inputs.len() <= 13),
        "it begins with the halves"
    );
}

#[tokio::test]
async fn a_text_that_was_rejected_alone_needs_but_the_canary_that_a_429_has_kept_from_it() {
    let (provider, system) = with_records(1).await;
    system.put(PROJECT, "r000", "bad 0.").await;
    provider.answer_when(|inputs| inputs[..] == [CANARY.to_owned()], Answer::throttled(1));
    provider.answer_containing("bad ", Answer::rejected());
    system.vectorize().await;
    assert_eq!(
        quarantine(&system).await.len(),
        0,
        "nobody is charged before the canary is answered"
    );
    let asked = provider.log().requests.len();

    provider.behave();
    provider.answer_containing("bad ", Answer::rejected());
    end_pauses(&system).await;
    assert_eq!(system.vectorize().await.quarantined, 1);
    assert_eq!(provider.log().requests[asked..], [[CANARY.to_owned()]]);
    assert_eq!(
        quarantine(&system).await[0]["message"],
        json!("HTTP 400: an input is invalid")
    );
}

#[tokio::test]
async fn another_text_is_not_suspected_for_what_its_former_one_was() {
    let (provider, system) = with_records(25).await;
    provider.answer_when(|inputs| inputs.len() == 25, Answer::rejected());
    provider.answer_when(|_| true, Answer::throttled(1));
    system.vectorize().await;
    for n in 0..25 {
        system.put(PROJECT, &super::id(n), &format!("a new text {n}.")).await;
    }
    provider.behave();
    end_pauses(&system).await;
    let asked = provider.log().requests.len();
    assert_eq!(system.vectorize().await.records, 25);
    assert_eq!(provider.log().requests.len() - asked, 1, "one request for all");
}

#[tokio::test]
async fn a_request_that_times_out_is_halved_and_a_slow_text_waits_and_nobody_is_charged() {
    let provider = Provider::start().await;
    let settings = [("EMBEDDING_REQUEST_TIMEOUT", "1000"), ("EMBEDDING_BATCH_SIZE", "4")];
    let system = System::embedding_as(&provider, WIDTH, &settings).await;
    system.put_many(PROJECT, 7, "text number").await;
    system.put(PROJECT, "slow", "a slow text").await;
    provider.answer_containing("a slow text", Answer::Never);
    let report = system.vectorize().await;
    assert_eq!(
        (report.records, report.failed, report.quarantined),
        (7, 0, 0),
        "{report:?}"
    );
    let wait =
        "SELECT round(extract(epoch FROM not_before - now()) / 60)::bigint FROM cronvec.pending WHERE attempts = 0";
    assert_eq!(system.count(wait).await, 10, "minutes");
    let facts = system.store.record_facts(PROJECT, "slow").await.unwrap();
    assert_eq!(facts.suspect_reason.as_deref(), Some("timed_out"));
    assert_eq!(system.count("SELECT count(*) FROM cronvec.provider_pauses").await, 0);
    assert_eq!(system.vectorize().await.requests, 0, "until then it isn't asked for");

    super::end_backoff(&system).await;
    let asked = provider.log().requests.len();
    system.vectorize().await;
    assert_eq!(provider.log().count("a slow text"), 4, "alone, from the first on");
    assert!(provider.log().requests[asked..].len() <= 2);
    assert_eq!(system.count(wait).await, 60, "an hour from now on");
    provider.behave();
    super::end_backoff(&system).await;
    assert_eq!(system.vectorize().await.records, 1);
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test]
async fn a_request_that_takes_longer_than_an_invocation_is_asked_in_smaller_parts_by_the_next() {
    let provider = Provider::start().await;
    let system = System::embedding_as(&provider, WIDTH, &[("EMBEDDING_BATCH_SIZE", "8")]).await;
    system.put_many(PROJECT, 8, "text number").await;
    provider.answer_when(|inputs| inputs.len() > 2, Answer::Never);
    for _ in 0..5 {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
        system
            .vectorize_with(cronvec_call::CallOptions::default(), deadline)
            .await;
        end_pauses(&system).await;
    }
    assert_eq!(system.count("SELECT count(*) FROM cronvec.pending").await, 0);
    let charged = "SELECT count(*) FROM cronvec.quarantined_records";
    assert_eq!(system.count(charged).await, 0);
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_are_killed_do_not_make_the_search_begin_anew() {
    let (records, rejected, kills) = if full_size() { (2_000, 29, 6) } else { (300, 5, 3) };
    let (provider, system) = rejecting(records, rejected).await;
    misbehave(&provider, false);
    let alone = requests(&provider, &system).await;

    let (provider, system) = rejecting(records, rejected).await;
    misbehave(&provider, true);
    let (url, width) = (provider.url(), WIDTH.to_string());
    let environment = [
        ("DATABASE_URL", system.database.url()),
        ("EMBEDDING_PROVIDER", "openai"),
        ("OPENAI_BASE_URL", &url),
        ("OPENAI_API_KEY", "sk-test-of-the-harness"),
        ("EMBEDDING_DIMENSIONS", &width),
    ];
    let mut seeded = StdRng::seed_from_u64(11);
    for _ in 0..kills {
        end_pauses(&system).await;
        let asked = provider.log().requests.len();
        let until = asked + seeded.random_range(5..25);
        let mut worker = Process::spawn("cronvec", &["tick", "vectorization"], &environment).await;
        while worker.ended().is_none() && provider.log().requests.len() < until {
            tokio::task::yield_now().await;
        }
        worker.kill().await;
        system.expire_leases().await;
    }
    end_pauses(&system).await;
    requests(&provider, &system).await;
    let limited = provider.log().requests.len() as u64 / 10;
    let asked = provider.log().requests.len() as u64 - limited;
    // What a killed worker had in flight, or not yet written, is asked for again.
    let lost = kills * 8;
    println!("{asked} requests, {alone} without kills and 429s");
    assert!(
        asked as f64 <= alone as f64 * 1.3 + f64::from(lost),
        "{asked}, {alone} without"
    );
    assert_eq!(quarantine(&system).await.len(), rejected);
    assert_eq!(system.count("SELECT count(*) FROM cronvec.pending").await, 0);
}
