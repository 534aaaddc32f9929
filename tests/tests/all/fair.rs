//! A project with few records doesn't wait for one with many.
//!
//! With 100,000: `CRONVEC_FULL=1 cargo test -p cronvec-tests --test all fair -- --nocapture`

use std::time::{Duration, Instant};

use cronvec_call::CallOptions;
use cronvec_tests::full_size;
use cronvec_tests::provider::{Options, Provider};
use cronvec_tests::system::{PROJECT, System, minute};

const SMALL: &str = "small";

/// One project with many records, and an empty one.
async fn with_many(provider: &Provider, variables: &[(&str, &str)]) -> System {
    let many = if full_size() { 100_000 } else { 3_000 };
    let system = System::embedding_as(provider, 8, variables).await;
    system.put_many(PROJECT, many, "one of many").await;
    system.create_project(SMALL).await;
    system
}

async fn assert_small_is_done(system: &System, what: &str) {
    let (small, many) = (
        system.store.coverage(SMALL).await.unwrap(),
        system.store.coverage(PROJECT).await.unwrap(),
    );
    println!("{what}; {} of many left", many.pending);
    assert_eq!(small.pending, 0, "{what}");
    assert!(many.pending > 0, "the large project isn't drained");
}

#[tokio::test]
async fn ten_records_beside_many_are_embedded_within_two_ticks_of_few_records_each() {
    for slots in ["1", "2", "3"] {
        let provider = Provider::start().await;
        let system = with_many(&provider, &[("VECTORIZE_JOBS_PER_INVOCATION", slots)]).await;
        for round in 0..3 {
            let text = format!("one of ten in round {round}");
            system.put_many(SMALL, 10, &text).await;
            let options = CallOptions {
                max_records: Some(100),
                ..CallOptions::default()
            };
            let (one, two) = (
                system.vectorize_with(options.clone(), minute()).await.records,
                system.vectorize_with(options, minute()).await.records,
            );
            let what = format!("{slots} slots, round {round}: {one} and {two} records");
            assert_eq!((one, two), (100, 100), "what the small one leaves is the large one's");
            assert_small_is_done(&system, &what).await;
        }
    }
}

#[tokio::test]
async fn ten_records_beside_many_are_embedded_within_two_ticks_of_few_seconds_each() {
    // So a slice makes fifty requests: more than there is time for.
    let with_slots = async |slots| {
        let provider = Provider::with(Options {
            latency: Duration::from_millis(300),
            ..Options::default()
        })
        .await;
        let variables = [("VECTORIZE_JOBS_PER_INVOCATION", slots), ("EMBEDDING_BATCH_SIZE", "5")];
        let system = with_many(&provider, &variables).await;
        system.put_many(SMALL, 10, "one of ten").await;
        let mut done = Vec::new();
        for _ in 0..2 {
            let deadline = Instant::now() + Duration::from_secs(4);
            done.push(system.vectorize_with(CallOptions::default(), deadline).await.records);
        }
        let requests = provider.log().requests;
        let first = requests.iter().position(|texts| texts[0].starts_with("one of ten"));
        let what = format!("{slots} slots: {done:?} records, asked for after {first:?} requests for the others");
        assert!(first.is_some_and(|others| others < 25), "{what}");
        assert_small_is_done(&system, &what).await;
    };
    tokio::join!(with_slots("1"), with_slots("2"));
}
