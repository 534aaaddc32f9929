//! What a provider can do wrong, who is charged for it, and what happens next: a test a row of the table.

use std::time::{Duration, Instant};

use cronvec_tests::conditions::eventually;
use cronvec_tests::provider::{Answer, Log, Provider};
use cronvec_tests::proxy::Proxy;
use cronvec_tests::system::{PROJECT, System, minute};
use serde_json::{Value, json};
use shared::call::CallOptions;
use vectorization::{Report, StoppedBecause};

const WIDTH: u16 = 16;
/// Requests that finding one bad input in a batch of 25 may cost: both halves of each level, and three.
const SEARCH: usize = 12;

/// A provider, and a system that has this many records for it.
async fn with_records(count: usize) -> (Provider, System) {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, WIDTH).await;
    for n in 0..count {
        put(&system, n).await;
    }
    (provider, system)
}

async fn put(system: &System, n: usize) {
    system.put(PROJECT, &id(n), &text(n)).await;
}

fn id(n: usize) -> String {
    format!("r{n:03}")
}

/// Ends in a mark, so that no text is a part of another.
fn text(n: usize) -> String {
    format!("text number {n}.")
}

fn insufficient_quota() -> Answer {
    Answer::error(429, "insufficient_quota", "you exceeded your current quota")
}

async fn jobs(system: &System) -> Vec<String> {
    let jobs = "SELECT coalesce(jsonb_agg(status ORDER BY id), '[]') FROM cronvec.job_queue";
    serde_json::from_value(system.value(jobs).await).unwrap()
}

async fn quarantine(system: &System) -> Vec<Value> {
    let rows = "SELECT coalesce(jsonb_agg(to_jsonb(q) - 'last_attempt_at' ORDER BY record_id), '[]') FROM cronvec.quarantine q";
    serde_json::from_value(system.value(rows).await).unwrap()
}

/// The only pause there is.
async fn pause(system: &System) -> Value {
    assert_eq!(system.count("SELECT count(*) FROM cronvec.provider_pauses").await, 1);
    let row = "SELECT jsonb_build_object('circuit', circuit, 'message', message,
                   'seconds', round(extract(epoch FROM until - updated_at))) FROM cronvec.provider_pauses";
    system.value(row).await
}

async fn end_pauses(system: &System) {
    system
        .run_sql("UPDATE cronvec.provider_pauses SET until = now() - interval '1 second'")
        .await;
}

/// Lets what waits for another attempt be due now.
async fn end_backoff(system: &System) {
    system
        .run_sql("UPDATE cronvec.pending SET not_before = now() - interval '1 second'")
        .await;
}

/// Neither a record nor a job pays for what happened, and nothing stands aside.
async fn assert_nobody_is_charged(system: &System, pending: i64) {
    let charged = "SELECT count(*) FROM cronvec.pending WHERE attempts > 0 OR not_before > now()";
    assert_eq!(system.count(charged).await, 0, "no record is charged");
    assert_eq!(system.count("SELECT count(*) FROM cronvec.pending").await, pending);
    let charged = "SELECT count(*) FROM cronvec.job_queue WHERE attempts > 0 OR crashes > 0 OR status <> 'PENDING'";
    assert_eq!(system.count(charged).await, 0, "no job is charged");
    assert_eq!(quarantine(system).await, [] as [Value; 0]);
}

/// Every record but these is embedded.
async fn assert_embedded_but(system: &System, total: i64, others: i64) {
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.embeddings WHERE NOT stale")
            .await,
        total - others
    );
}

fn times_asked(log: &Log, n: usize) -> usize {
    log.count(&text(n))
}

fn assert_found_by_halves(log: &Log, batches: usize) {
    let extra = log.requests.len() - batches;
    assert!(extra <= SEARCH, "{extra} requests more than batches");
}

#[tokio::test]
async fn a_rejected_input_is_found_by_halves_and_stands_aside_with_the_providers_message() {
    let (provider, system) = with_records(200).await;
    provider.answer_containing(
        &text(77),
        Answer::error(400, "invalid_request_error", "input 3 is too odd"),
    );
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed, report.quarantined), (199, 1, 1));
    assert_eq!(report.stopped_because, StoppedBecause::Drained);
    assert_eq!(
        quarantine(&system).await,
        [
            json!({"project": PROJECT, "record_id": id(77), "reason": "rejected", "attempts": 1,
            "message": "HTTP 400: input 3 is too odd"})
        ]
    );
    assert_eq!(jobs(&system).await, ["COMPLETED"]);
    assert_embedded_but(&system, 200, 1).await;
    assert_found_by_halves(&provider.log(), 8);
    assert_eq!(system.count("SELECT count(*) FROM cronvec.provider_pauses").await, 0);
}

#[tokio::test]
async fn wherever_the_rejected_input_stands_it_is_found_in_as_many_requests() {
    let (provider, system) = with_records(25).await;
    for n in [0, 12, 24] {
        let before = provider.log().requests.len();
        for other in 0..25 {
            let text = format!("a new {}", text(other + 100 * n));
            system.put(PROJECT, &id(other), &text).await;
        }
        provider.behave();
        provider.answer_containing(&text(n + 100 * n), Answer::rejected());
        let report = system.vectorize().await;
        assert_eq!((report.records, report.quarantined), (24, 1));
        assert_eq!(quarantine(&system).await[0]["record_id"], id(n));
        let asked = provider.log().requests.len() - before;
        assert!(asked <= 1 + SEARCH, "{asked} requests for the input at {n}");
    }
}

#[tokio::test]
async fn three_rejected_inputs_in_different_batches_are_found_and_the_others_go_on() {
    let (provider, system) = with_records(200).await;
    let bad = [10, 60, 199];
    for n in bad {
        provider.answer_containing(&text(n), Answer::rejected());
    }
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed, report.quarantined), (197, 3, 3));
    let aside: Vec<Value> = quarantine(&system)
        .await
        .iter()
        .map(|row| row["record_id"].clone())
        .collect();
    assert_eq!(aside, bad.map(|n| json!(id(n))));
    assert_eq!(jobs(&system).await, ["COMPLETED"]);
    assert_embedded_but(&system, 200, 3).await;
    let extra = provider.log().requests.len() - 8;
    assert!(extra <= 3 * SEARCH, "{extra} requests more than batches");
}

#[tokio::test]
async fn a_rejected_record_is_not_asked_for_again_until_its_text_changes() {
    let (provider, system) = with_records(30).await;
    provider.answer_containing(&text(7), Answer::rejected());
    system.vectorize().await;
    assert_eq!(quarantine(&system).await.len(), 1);
    let asked = times_asked(&provider.log(), 7);
    for _ in 0..3 {
        assert_eq!(system.vectorize().await.requests, 0);
    }
    // Neither does it come back for being written again as it was.
    put(&system, 7).await;
    assert_eq!(system.vectorize().await.requests, 0);
    assert_eq!(times_asked(&provider.log(), 7), asked);

    system.put(PROJECT, &id(7), "a text that pleases").await;
    assert_eq!(quarantine(&system).await.len(), 0, "a new text has its chance");
    assert_eq!(system.vectorize().await.records, 1);
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test]
async fn a_provider_that_rejects_everything_opens_the_circuit_and_nobody_is_charged() {
    let (provider, system) = with_records(200).await;
    let refusal = Answer::error(400, "invalid_request_error", "dimensions must be 1024");
    provider.answer_when(|_| true, refusal);
    let report = system.vectorize().await;
    assert_eq!(
        (report.records, report.failed, report.stopped_because),
        (0, 0, StoppedBecause::Provider)
    );
    assert!(report.remaining);
    assert_eq!(
        pause(&system).await,
        json!({"circuit": true, "message": "HTTP 400: dimensions must be 1024", "seconds": 3600})
    );
    assert_nobody_is_charged(&system, 200).await;
    let asked = provider.log().requests.len();
    assert!(asked < 20, "it isn't asked in vain: {asked} requests");

    let report = system.vectorize().await;
    assert_eq!((report.requests, report.stopped_because), (0, StoppedBecause::Paused));
    provider.behave();
    end_pauses(&system).await;
    assert_eq!(system.vectorize().await.records, 200);
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test]
async fn an_input_that_always_gives_500_is_found_tried_again_later_and_set_aside_in_the_end() {
    let (provider, system) = with_records(60).await;
    provider.answer_containing(&text(33), Answer::error(500, "server_error", "the model fell over"));
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed, report.quarantined), (59, 1, 0));
    assert_eq!(report.stopped_because, StoppedBecause::Drained);
    assert_embedded_but(&system, 60, 1).await;
    assert_eq!(jobs(&system).await, ["COMPLETED"]);
    for (attempt, least, most) in [(1, 9, 12), (2, 19, 23)] {
        let pending = "SELECT jsonb_build_array(record_id, attempts, extract(epoch FROM not_before - now())) FROM cronvec.pending";
        let pending = system.value(pending).await;
        assert_eq!((&pending[0], &pending[1]), (&json!(id(33)), &json!(attempt)));
        let wait = pending[2].as_f64().unwrap();
        assert!(
            (f64::from(least)..f64::from(most)).contains(&wait),
            "attempt {attempt} waits {wait} s"
        );
        assert_eq!(system.vectorize().await.requests, 0, "not before its time");
        end_backoff(&system).await;
        let report = system.vectorize().await;
        assert_eq!((report.failed, report.quarantined), (1, u64::from(attempt == 2)));
    }
    let aside = quarantine(&system).await;
    assert_eq!(
        aside,
        [
            json!({"project": PROJECT, "record_id": id(33), "reason": "provider_error", "attempts": 3,
            "message": "HTTP 500: the model fell over"})
        ]
    );
    assert_eq!(system.count("SELECT count(*) FROM cronvec.provider_pauses").await, 0);
    let failed = "SELECT count(*) FROM cronvec.job_queue WHERE status <> 'COMPLETED' OR attempts > 0";
    assert_eq!(system.count(failed).await, 0, "the jobs aren't to blame");
}

#[tokio::test]
async fn a_500_that_passes_costs_one_request_more_and_nobody_anything() {
    let (provider, system) = with_records(50).await;
    provider.answer_next(1, Answer::error(500, "server_error", "a hiccup"));
    provider.answer_next(1, Answer::CutShort);
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed, report.requests), (50, 0, 4));
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test]
async fn a_provider_that_fails_for_everyone_rests_and_nobody_is_charged() {
    let (provider, system) = with_records(60).await;
    provider.answer_when(|_| true, Answer::error(503, "overloaded", "come back later"));
    let report = system.vectorize().await;
    assert_eq!(
        (report.records, report.failed, report.stopped_because),
        (0, 0, StoppedBecause::Provider)
    );
    assert_eq!(
        pause(&system).await,
        json!({"circuit": false, "message": "HTTP 503: come back later", "seconds": 30})
    );
    assert_nobody_is_charged(&system, 60).await;
    assert_eq!(system.vectorize().await.stopped_because, StoppedBecause::Paused);
}

#[tokio::test]
async fn retry_after_pauses_that_endpoint_for_so_long_and_another_goes_on() {
    let (provider, system) = with_records(200).await;
    let url = provider.url();
    // Another model at the same address is another endpoint.
    let other = [
        ("EMBEDDING_PROVIDER", "openai"),
        ("EMBEDDING_MODEL", "text-embedding-3-large"),
        ("EMBEDDING_DIMENSIONS", "8"),
        ("OPENAI_BASE_URL", &url),
    ];
    let settings = cronvec_tests::system::settings(system.database.url(), &other);
    let space = system.store.ensure_space(&settings.embedding.new_space).await.unwrap();
    system.store.ensure_project("other", space.id, 1).await.unwrap();
    provider.answer_next(1, Answer::throttled(7));
    let first = system.vectorize().await;
    assert_eq!(
        (first.failed, first.stopped_because, first.remaining),
        (0, StoppedBecause::Provider, true)
    );
    assert_eq!(
        pause(&system).await,
        json!({"circuit": false, "message": "HTTP 429: rate limit reached", "seconds": 7})
    );
    let stored = i64::try_from(first.records).unwrap();
    assert_nobody_is_charged(&system, 200 - stored).await;

    for n in 0..40 {
        system.put("other", &id(n), &text(n)).await;
    }
    let asked = provider.log().requests.len();
    let report = system.vectorize().await;
    assert_eq!(
        (report.records, report.processed, report.stopped_because),
        (40, 1, StoppedBecause::Paused)
    );
    assert_eq!(provider.log().requests.len(), asked + 2, "the other alone was asked");
    let of_other = "SELECT count(*) FROM cronvec.embeddings WHERE project = 'other' AND dimensions = 8";
    assert_eq!(system.count(of_other).await, 40);

    end_pauses(&system).await;
    let report = system.vectorize().await;
    assert_eq!(
        (report.records, report.stopped_because),
        (200 - first.records, StoppedBecause::Drained)
    );
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test]
async fn a_pause_is_kept_by_the_workers_that_hold_jobs_already() {
    let (provider, system) = with_records(0).await;
    system.create_project("other").await;
    for n in 0..1000 {
        system.put("other", &id(n), &text(n)).await;
    }
    provider.set_latency(Duration::from_millis(200));
    let only = |project: &str| CallOptions {
        project: Some(project.to_owned()),
        ..CallOptions::default()
    };
    let other = system.vectorize_with(only("other"), minute());
    let throttled = async {
        provider.wait_open(4).await;
        system.put(PROJECT, "a", "the text that is too much").await;
        provider.answer_containing("too much", Answer::throttled(7));
        system.vectorize_with(only(PROJECT), minute()).await
    };
    let (other, throttled) = tokio::join!(other, throttled);
    assert_eq!(
        (throttled.records, throttled.stopped_because),
        (0, StoppedBecause::Provider)
    );
    assert_eq!(
        (other.failed, other.stopped_because, other.remaining),
        (0, StoppedBecause::Provider, true)
    );
    assert!((1..1000).contains(&other.records), "{other:?}");
    assert_nobody_is_charged(&system, 1001 - i64::try_from(other.records).unwrap()).await;
}

#[tokio::test]
async fn a_pause_holds_for_the_other_jobs_of_the_same_worker_at_once() {
    let (provider, system) = with_records(300).await;
    system.create_project("other").await;
    for n in 300..600 {
        system.put("other", &id(n), &text(n)).await;
    }
    provider.answer_next(1, Answer::throttled(7));
    let gate = provider.hold();
    let pass = system.vectorize();
    let test = async {
        provider.wait_open(4).await;
        gate.pass(1);
        eventually("the endpoint rests", || async {
            system.count("SELECT count(*) FROM cronvec.provider_pauses").await == 1
        })
        .await;
        gate.release();
    };
    let (report, ()) = tokio::join!(pass, test);
    assert_eq!((report.failed, report.stopped_because), (0, StoppedBecause::Provider));
    let asked = provider.log().requests.len();
    assert!(asked <= 6, "{asked} requests, of which four were under way");
}

#[tokio::test]
async fn what_only_a_person_can_mend_opens_the_circuit() {
    for (answer, message) in [
        (insufficient_quota(), "HTTP 429: you exceeded your current quota"),
        (
            Answer::error(401, "invalid_api_key", "no such key"),
            "HTTP 401: no such key",
        ),
        (
            Answer::error(404, "model_not_found", "no such model"),
            "HTTP 404: no such model",
        ),
        (
            Answer::error(302, "moved", "look elsewhere"),
            "HTTP 302: look elsewhere (redirects are not followed)",
        ),
        (
            Answer::Width(3),
            "the model answers 3 wide, the space is 16 wide: set EMBEDDING_DIMENSIONS to the model's width",
        ),
    ] {
        let (provider, system) = with_records(60).await;
        provider.answer_when(|_| true, answer);
        let report = system.vectorize().await;
        assert_eq!(
            (report.records, report.failed, report.stopped_because),
            (0, 0, StoppedBecause::Provider)
        );
        assert_eq!(
            pause(&system).await,
            json!({"circuit": true, "message": message, "seconds": 3600})
        );
        assert_nobody_is_charged(&system, 60).await;
        assert!(provider.log().requests.len() <= 4, "it isn't asked again");
    }
}

#[tokio::test]
async fn a_429_that_comes_after_it_does_not_hide_what_a_person_must_mend() {
    let (provider, system) = with_records(50).await;
    let gate = provider.hold();
    provider.answer_next(1, insufficient_quota());
    provider.answer_next(1, Answer::throttled(7));
    let pass = system.vectorize();
    let test = async {
        provider.wait_open(2).await;
        gate.pass(1);
        eventually("the circuit is open", || async {
            system.count("SELECT count(*) FROM cronvec.provider_pauses").await == 1
        })
        .await;
        gate.release();
    };
    let (report, ()) = tokio::join!(pass, test);
    assert_eq!(report.stopped_because, StoppedBecause::Provider);
    assert_eq!(
        pause(&system).await,
        json!({"circuit": true, "message": "HTTP 429: you exceeded your current quota", "seconds": 3600})
    );
}

#[tokio::test]
async fn a_new_key_is_another_endpoint_and_is_tried_at_once() {
    let (provider, mut system) = with_records(30).await;
    provider.answer_next(4, Answer::error(401, "invalid_api_key", "no such key"));
    assert_eq!(system.vectorize().await.stopped_because, StoppedBecause::Provider);
    provider.behave();
    assert_eq!(system.vectorize().await.requests, 0);
    let (url, url_of_provider) = (system.database.url().to_owned(), provider.url());
    system.settings = cronvec_tests::system::settings(
        &url,
        &[
            ("EMBEDDING_PROVIDER", "openai"),
            ("OPENAI_BASE_URL", &url_of_provider),
            ("OPENAI_API_KEY", "sk-another-key"),
        ],
    );
    assert_eq!(system.vectorize().await.records, 30);
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test]
async fn a_429_that_does_not_say_for_how_long_pauses_for_20_seconds() {
    let (provider, system) = with_records(10).await;
    provider.answer_next(1, Answer::error(429, "requests", "slow down"));
    assert_eq!(system.vectorize().await.stopped_because, StoppedBecause::Provider);
    assert_eq!(
        pause(&system).await,
        json!({"circuit": false, "message": "HTTP 429: slow down", "seconds": 20})
    );
    assert_nobody_is_charged(&system, 10).await;
}

#[tokio::test]
async fn a_provider_that_takes_smaller_batches_only_gets_them() {
    let (provider, system) = with_records(200).await;
    provider.answer_when(
        |inputs| inputs.len() > 10,
        Answer::error(413, "too_large", "at most 10 inputs"),
    );
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed), (200, 0));
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
    let asked = provider.log().requests.len();
    // Seven a batch, and a canary now and then.
    assert!((8 * 7..=8 * 8).contains(&asked), "{asked} requests");
}

/// Three ticks of a record that is charged each time, and its end in quarantine.
async fn assert_set_aside_after_three(system: &System, first: &Report, message: &str) {
    assert_eq!(
        (first.failed, first.quarantined, first.stopped_because),
        (1, 0, StoppedBecause::Drained)
    );
    for quarantined in [0, 1] {
        end_backoff(system).await;
        let report = system.vectorize().await;
        assert_eq!((report.records, report.failed, report.quarantined), (0, 1, quarantined));
    }
    let aside = quarantine(system).await;
    assert_eq!(
        (&aside[0]["record_id"], &aside[0]["reason"], &aside[0]["attempts"]),
        (&json!(id(0)), &json!("unusable_answer"), &json!(3))
    );
    let said = aside[0]["message"].as_str().unwrap();
    assert!(said.contains(message), "{said}");
    assert_eq!(system.count("SELECT count(*) FROM cronvec.provider_pauses").await, 0);
}

#[tokio::test]
async fn a_vector_of_zeros_or_with_a_nan_is_its_inputs_fault_alone() {
    for (answer, message) in [
        (Answer::Zero, "a vector of zeros"),
        (Answer::NotANumber, "a vector that isn't finite"),
    ] {
        let (provider, system) = with_records(60).await;
        // The answer spoils the first vector of a batch, and this record is its first.
        provider.answer_containing(&text(0), answer);
        let report = system.vectorize().await;
        assert_eq!(
            (report.records, report.requests),
            (59, 3),
            "the neighbours' vectors are good"
        );
        assert_set_aside_after_three(&system, &report, message).await;
    }
}

#[tokio::test]
async fn an_input_that_makes_the_answer_too_short_is_found_by_halves() {
    let (provider, system) = with_records(60).await;
    provider.answer_containing(&text(0), Answer::Fewer(1));
    let report = system.vectorize().await;
    assert_eq!(report.records, 59);
    assert_set_aside_after_three(&system, &report, "0 vectors for 1 inputs").await;
}

#[tokio::test]
async fn answers_that_are_unusable_for_everyone_let_the_provider_rest() {
    for (answer, message) in [
        (Answer::Fewer(1), "0 vectors for 1 inputs"),
        (Answer::NotANumber, "isn't finite"),
        (Answer::Zero, "zeros"),
    ] {
        let (provider, system) = with_records(1).await;
        provider.answer_when(|_| true, answer);
        let report = system.vectorize().await;
        assert_eq!(
            (report.records, report.failed, report.stopped_because),
            (0, 0, StoppedBecause::Provider)
        );
        let pause = pause(&system).await;
        assert_eq!((&pause["circuit"], &pause["seconds"]), (&json!(false), &json!(30)));
        assert!(pause["message"].as_str().unwrap().contains(message), "{pause}");
        assert_nobody_is_charged(&system, 1).await;
    }
}

#[tokio::test]
async fn vectors_in_another_order_are_put_in_theirs() {
    let (provider, system) = with_records(60).await;
    provider.answer_when(|_| true, Answer::Reversed);
    assert_eq!(system.vectorize().await.records, 60);
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test]
async fn a_provider_that_never_answers_costs_the_time_there_is_and_nobody_anything() {
    let (provider, system) = with_records(60).await;
    provider.answer_containing(&text(30), Answer::Never);
    let deadline = Instant::now() + Duration::from_secs(4);
    let report = system.vectorize_with(CallOptions::default(), deadline).await;
    assert!(Instant::now() < deadline);
    assert_eq!(
        (report.failed, report.stopped_because, report.remaining),
        (0, StoppedBecause::Deadline, true)
    );
    assert_eq!(report.records, 35, "the other batches are stored");
    assert_nobody_is_charged(&system, 25).await;
    assert_eq!(
        system.count("SELECT count(*) FROM cronvec.provider_pauses").await,
        0,
        "it says nothing about the provider"
    );
    provider.behave();
    assert_eq!(system.vectorize().await.records, 25);
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test]
async fn a_provider_that_is_down_rests_and_all_is_embedded_when_it_is_back() {
    let provider = Provider::start().await;
    let mut proxy = Proxy::to(provider.address()).await;
    let url = format!("http://{}/v1", proxy.address());
    let system = System::with(&[
        ("EMBEDDING_PROVIDER", "openai"),
        ("OPENAI_BASE_URL", &url),
        ("EMBEDDING_DIMENSIONS", "16"),
    ])
    .await;
    for down_before in [true, false] {
        for n in 0..60 {
            let text = format!("{} {down_before}", text(n));
            system.put(PROJECT, &id(n), &text).await;
        }
        proxy.close().await;
        let report = system.vectorize_with(CallOptions::default(), minute()).await;
        assert_eq!(
            (report.records, report.failed, report.stopped_because),
            (0, 0, StoppedBecause::Provider)
        );
        let pause = pause(&system).await;
        assert_eq!((&pause["circuit"], &pause["seconds"]), (&json!(false), &json!(30)));
        assert!(pause["message"].as_str().unwrap().contains("can't connect"), "{pause}");
        assert_nobody_is_charged(&system, 60).await;
        proxy.open();
        end_pauses(&system).await;
        assert_eq!(system.vectorize().await.records, 60);
        system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
        system
            .run_sql("DELETE FROM cronvec.job_queue; DELETE FROM cronvec.provider_pauses")
            .await;
    }
}

#[tokio::test]
async fn records_of_one_rejected_text_stand_aside_together() {
    let (provider, system) = with_records(10).await;
    for n in 20..23 {
        system.put(PROJECT, &id(n), "the same bad text").await;
    }
    provider.answer_containing("bad text", Answer::rejected());
    let report = system.vectorize().await;
    assert_eq!((report.records, report.quarantined), (10, 3));
    assert_eq!(quarantine(&system).await.len(), 3);
    assert_eq!(jobs(&system).await, ["COMPLETED"]);
}

#[tokio::test]
async fn a_long_record_with_one_rejected_chunk_stands_aside_once() {
    let (provider, system) = with_records(5).await;
    let mut long: Vec<String> = (0..600).map(|n| format!("Sentence {n} of a long text.")).collect();
    long[400] = "Sentence that is poison.".to_owned();
    system.put(PROJECT, "long", &long.join(" ")).await;
    provider.answer_containing("poison", Answer::rejected());
    let report = system.vectorize().await;
    assert_eq!((report.records, report.quarantined), (5, 1));
    assert_eq!(quarantine(&system).await[0]["record_id"], "long");
    assert_eq!(system.count("SELECT count(*) FROM cronvec.pending").await, 0);
    assert_eq!(
        system
            .count("SELECT count(DISTINCT record_id) FROM cronvec.embeddings")
            .await,
        5,
        "half a record isn't shown"
    );
    assert_eq!(jobs(&system).await, ["COMPLETED"]);
    assert_eq!(system.vectorize().await.requests, 0);
}
