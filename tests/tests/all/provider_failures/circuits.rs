//! What only a person can fix: one canary at a time, and `provider test`.

use std::time::Duration;

use cronvec_call::CallOptions;
use cronvec_tests::process::{Outcome, Process};
use cronvec_tests::provider::{Answer, Provider};
use cronvec_tests::system::{PROJECT, System, minute};
use serde_json::{Value, json};
use vectorization::StoppedBecause;

use super::{CANARY, WIDTH, assert_nobody_is_charged, end_pauses, id, pause, text, with_records};

fn bad_key() -> Answer {
    Answer::error(401, "invalid_api_key", "no such key")
}

async fn cli(system: &System, provider: &Provider, line: &[&str]) -> Outcome {
    let (url, width) = (provider.url(), WIDTH.to_string());
    let environment = [
        ("DATABASE_URL", system.database.url()),
        ("EMBEDDING_PROVIDER", "openai"),
        ("OPENAI_BASE_URL", &url),
        ("OPENAI_API_KEY", "sk-test-of-the-harness"),
        ("EMBEDDING_DIMENSIONS", &width),
    ];
    Process::spawn("cronvec", line, &environment).await.outcome().await
}

#[tokio::test]
async fn an_open_circuit_lets_one_canary_through_each_after_twice_as_long_and_nothing_else() {
    let (provider, system) = with_records(60).await;
    provider.answer_when(|_| true, bad_key());
    system.vectorize().await;
    let asked = provider.log().requests.len();
    assert_eq!(
        pause(&system).await["seconds"],
        60,
        "the first canary comes after a minute"
    );
    for tries in 1..=3 {
        end_pauses(&system).await;
        let (one, two) = (system.vectorization(), system.another_vectorization(&provider));
        let (first, second) = tokio::join!(
            one.run(CallOptions::default(), minute()),
            two.run(CallOptions::default(), minute())
        );
        for report in [first.unwrap(), second.unwrap()] {
            assert_eq!((report.records, report.failed), (0, 0));
            assert_eq!(report.stopped_because, StoppedBecause::Paused);
        }
        let requests = provider.log().requests;
        assert_eq!(
            requests[asked..],
            vec![vec![CANARY.to_owned()]; tries],
            "one for two workers"
        );
        assert_eq!(
            pause(&system).await,
            json!({"circuit": true, "message": "HTTP 401: no such key", "seconds": 60 << tries})
        );
        assert_eq!(system.vectorize().await.requests, 0, "until the time is over");
    }
    assert_nobody_is_charged(&system, 60).await;
    system.run_sql("UPDATE cronvec.provider_pauses SET canaries = 20").await;
    end_pauses(&system).await;
    system.vectorize().await;
    assert_eq!(pause(&system).await["seconds"], 3600, "and at most after an hour");

    provider.behave();
    end_pauses(&system).await;
    assert_eq!(system.vectorize().await.records, 60);
    assert_eq!(provider.log().requests[asked + 4], [CANARY], "the canary goes first");
    assert_eq!(system.count("SELECT count(*) FROM cronvec.provider_pauses").await, 0);
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test]
async fn of_two_workers_that_see_the_time_over_at_once_one_sends_the_canary() {
    let (_, system) = with_records(0).await;
    let (store, minute, hour) = (&system.store, Duration::from_secs(60), Duration::from_secs(3600));
    store
        .pause_endpoint("endpoint", hour, true, "no such key")
        .await
        .unwrap();
    assert!(
        !store.take_canary("endpoint", minute, hour).await.unwrap(),
        "the time isn't over"
    );
    end_pauses(&system).await;
    let (one, two) = tokio::join!(
        store.take_canary("endpoint", minute, hour),
        store.take_canary("endpoint", minute, hour)
    );
    assert_ne!(one.unwrap(), two.unwrap());
    // A rest that is over needs none.
    store.resume_endpoint("endpoint").await.unwrap();
    store
        .pause_endpoint("endpoint", hour, false, "slow down")
        .await
        .unwrap();
    end_pauses(&system).await;
    assert!(!store.take_canary("endpoint", minute, hour).await.unwrap());
}

#[tokio::test]
async fn a_spent_quota_opens_the_circuit_and_provider_test_lets_work_go_on_at_the_next_tick() {
    let (provider, system) = with_records(60).await;
    provider.answer_when(
        |_| true,
        Answer::error(429, "insufficient_quota", "you exceeded your current quota"),
    );
    system.vectorize().await;
    assert_eq!(pause(&system).await["circuit"], true);

    let status = cli(&system, &provider, &["status"]).await;
    assert!(
        status.stdout.contains("is shut off: HTTP 429: you exceeded"),
        "{status:?}"
    );

    let failed = cli(&system, &provider, &["provider", "test", "--json"]).await;
    assert_eq!(failed.code(), Some(1), "{failed:?}");
    let said: Value = serde_json::from_str(&failed.stdout).unwrap();
    assert_eq!(
        (&said["success"], &said["kind"], &said["message"]),
        (
            &json!(false),
            &json!("misconfigured"),
            &json!("HTTP 429: you exceeded your current quota")
        )
    );
    assert!(said["mend"].as_str().unwrap().contains("account"), "{said}");
    assert_eq!(pause(&system).await["circuit"], true, "what fails stays as it was");
    assert_eq!(system.vectorize().await.stopped_because, StoppedBecause::Paused);
    assert_nobody_is_charged(&system, 60).await;

    // Somebody paid.
    provider.behave();
    let tested = cli(&system, &provider, &["provider", "test", "--json"]).await;
    assert_eq!(tested.code(), Some(0), "{tested:?}");
    let said: Value = serde_json::from_str(&tested.stdout).unwrap();
    assert_eq!(
        (&said["provider"], &said["model"], &said["dimensions"], &said["success"]),
        (
            &json!("openai"),
            &json!("text-embedding-3-small"),
            &json!(WIDTH),
            &json!(true)
        )
    );
    assert!(
        said["latencyMs"].is_u64() && said["endpoint"].as_str().unwrap().contains("127.0.0.1"),
        "{said}"
    );
    assert!(!tested.stdout.contains("sk-test"), "{tested:?}");
    assert_eq!(system.count("SELECT count(*) FROM cronvec.provider_pauses").await, 0);
    assert_eq!(system.vectorize().await.records, 60);
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test]
async fn provider_test_tells_people_what_is_wrong_and_how_to_mend_it() {
    let (provider, system) = with_records(1).await;
    let line = ["provider", "test", "--provider", "openai"];
    for (answer, said) in [
        (bad_key(), ["misconfigured", "HTTP 401: no such key", "mend the key"]),
        (
            Answer::Width(3),
            ["misconfigured", "the model answers 3 wide", "EMBEDDING_DIMENSIONS"],
        ),
        (
            Answer::rejected(),
            ["rejected", "HTTP 400: an input is invalid", "EMBEDDING_MODEL"],
        ),
        (Answer::throttled(7), ["rate_limited", "HTTP 429", "goes on by itself"]),
        (
            Answer::Fewer(1),
            ["unusable_answer", "0 vectors for 1 inputs", "the address"],
        ),
    ] {
        provider.behave();
        provider.answer_when(|_| true, answer);
        let outcome = cli(&system, &provider, &line).await;
        assert_eq!(outcome.code(), Some(1), "{outcome:?}");
        let all = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(said.iter().all(|part| all.contains(part)), "{said:?}: {all}");
    }
    let outcome = cli(&system, &provider, &["provider", "test", "--provider", "gemini"]).await;
    assert_eq!(outcome.code(), Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("EMBEDDING_PROVIDER"), "{outcome:?}");
}

#[tokio::test]
async fn a_circuit_that_one_width_opened_is_not_closed_by_a_canary_of_another() {
    let (provider, system) = with_records(10).await;
    let url = provider.url();
    let other = [
        ("EMBEDDING_PROVIDER", "openai"),
        ("EMBEDDING_DIMENSIONS", "8"),
        ("OPENAI_BASE_URL", &url),
        ("OPENAI_API_KEY", "sk-test-of-the-harness"),
    ];
    let settings = cronvec_tests::system::settings(system.database.url(), &other);
    let space = system.store.ensure_space(&settings.embedding.new_space).await.unwrap();
    system.store.ensure_project("narrow", space.id, 1).await.unwrap();
    system.put("narrow", &id(0), &text(0)).await;
    // Whatever is asked for, 16 numbers come.
    provider.answer_when(|_| true, Answer::Width(WIDTH.into()));
    while system.vectorize().await.requests > 0 {}
    for _ in 0..2 {
        end_pauses(&system).await;
        let report = system.vectorize().await;
        assert!(report.requests <= 2, "{report:?}");
        assert_eq!(pause(&system).await["circuit"], true);
    }
    let outcome = cli(&system, &provider, &["provider", "test"]).await;
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert_eq!(pause(&system).await["circuit"], true);
}
