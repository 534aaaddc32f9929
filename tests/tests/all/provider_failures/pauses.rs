//! Endpoints that rest, for a while or until somebody mends them.

use cronvec_call::CallOptions;
use cronvec_tests::conditions::eventually;
use cronvec_tests::provider::Answer;
use cronvec_tests::system::{PROJECT, minute};
use serde_json::json;
use std::time::Duration;
use vectorization::StoppedBecause;

use super::{
    CANARY, WIDTH, assert_embedded_but, assert_nobody_is_charged, end_backoff, end_pauses, id, pause, quarantine, text,
    with_records,
};

fn insufficient_quota() -> Answer {
    Answer::error(429, "insufficient_quota", "you exceeded your current quota")
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
            Answer::error(424, "failed_dependency", "the model isn't loaded"),
            "HTTP 424: the model isn't loaded",
        ),
        (Answer::error(418, "teapot", "not for you"), "HTTP 418: not for you"),
        (
            Answer::error(302, "moved", "look elsewhere"),
            "HTTP 302: look elsewhere (redirects are not followed)",
        ),
        (
            Answer::Width(3),
            "the model answers 3 wide, the space is 16 wide and stays so: make a new project with EMBEDDING_DIMENSIONS=3, or \
             let the server answer with the model that the space was made for",
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
            json!({"circuit": true, "message": message, "seconds": 60})
        );
        assert_nobody_is_charged(&system, 60).await;
        let asked = provider.log().requests;
        assert!(
            asked.len() <= 8,
            "three batches, each once more, and a canary: {}",
            asked.len()
        );
        assert!(asked.iter().any(|inputs| inputs[..] == [CANARY]));
    }
}

#[tokio::test]
async fn one_refusal_beside_requests_that_succeed_opens_no_circuit() {
    for status in [401, 403, 404, 424, 451] {
        let (provider, system) = with_records(100).await;
        provider.answer_next(1, Answer::error(status, "moody", "a firewall is in a bad mood"));
        let report = system.vectorize().await;
        assert_eq!((report.records, report.failed), (100, 0), "{status}");
        assert_eq!(report.stopped_because, StoppedBecause::Drained, "{status}");
        assert_eq!(
            provider.log().requests.len(),
            5,
            "four batches, one of them twice: {status}"
        );
        assert_eq!(system.count("SELECT count(*) FROM cronvec.provider_pauses").await, 0);
        system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
    }
}

#[tokio::test]
async fn an_input_that_a_firewall_refuses_is_found_by_halves_and_opens_no_circuit() {
    let (provider, system) = with_records(50).await;
    provider.answer_containing(&text(13), Answer::error(403, "blocked", "attack detected"));
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed, report.quarantined), (49, 1, 0));
    assert_eq!(system.count("SELECT count(*) FROM cronvec.provider_pauses").await, 0);
    for _ in 0..2 {
        end_backoff(&system).await;
        system.vectorize().await;
    }
    let found = quarantine(&system).await;
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&found[0]["record_id"], &found[0]["reason"], &found[0]["attempts"]),
        (&json!(id(13)), &json!("provider_error"), &json!(3))
    );
    assert_embedded_but(&system, 50, 1).await;
}

#[tokio::test]
async fn a_429_that_comes_after_it_does_not_hide_what_a_person_must_mend() {
    let (provider, system) = with_records(50).await;
    // One batch, and the canary after it, meet the spent quota; the other batch is answered with 429 after that.
    let is_first = |inputs: &[String]| inputs.iter().any(|input| *input == text(0) || input == CANARY);
    let gate = provider.hold_when(move |inputs| !is_first(inputs));
    provider.answer_when(is_first, insufficient_quota());
    provider.answer_when(|_| true, Answer::throttled(7));
    let pass = system.vectorize();
    let test = async {
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
        json!({"circuit": true, "message": "HTTP 429: you exceeded your current quota", "seconds": 60})
    );
}

#[tokio::test]
async fn a_new_key_is_another_endpoint_and_is_tried_at_once() {
    let (provider, mut system) = with_records(30).await;
    provider.answer_when(|_| true, Answer::error(401, "invalid_api_key", "no such key"));
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
async fn a_429_that_says_so_by_its_budgets_alone_pauses_until_the_spent_one_is_full_again() {
    let (provider, system) = with_records(10).await;
    let headers = [
        ("x-ratelimit-remaining-requests", "99"),
        ("x-ratelimit-reset-requests", "6m0s"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "12s"),
    ];
    let answer = Answer::Status {
        status: 429,
        headers: headers.map(|(name, value)| (name.into(), value.into())).to_vec(),
        body: json!({"error": {"message": "too many tokens", "type": "tokens", "code": "rate_limit_exceeded"}}),
    };
    provider.answer_next(1, answer);
    assert_eq!(system.vectorize().await.stopped_because, StoppedBecause::Provider);
    assert_eq!(
        pause(&system).await,
        json!({"circuit": false, "message": "HTTP 429: too many tokens", "seconds": 12})
    );
    assert_nobody_is_charged(&system, 10).await;
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
