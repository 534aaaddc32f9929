//! A project with few records doesn't wait for one with many.
//!
//! With 100,000: `CRONVEC_FULL=1 cargo test -p cronvec-tests --test all fair -- --nocapture`

use std::time::{Duration, Instant};

use cronvec_tests::full_size;
use cronvec_tests::provider::{Options, Provider};
use cronvec_tests::system::{PROJECT, System, minute};
use shared::call::CallOptions;

const SMALL: &str = "small";

/// How a tick is kept from embedding all that there is.
#[derive(Clone, Copy, Debug)]
enum Bound {
    Records(u64),
    Seconds(u64),
}

/// So many times the small project gets ten records, and two ticks.
async fn small_is_done_within_two_ticks(rounds: u32, bound: Bound, latency: Duration, variables: &[(&str, &str)]) {
    let many = if full_size() { 100_000 } else { 3_000 };
    let provider = Provider::with(Options {
        latency,
        ..Options::default()
    })
    .await;
    let system = System::embedding_as(&provider, 8, variables).await;
    system.put_many(PROJECT, many, "one of many").await;
    system.create_project(SMALL).await;
    for round in 0..rounds {
        system
            .put_many(SMALL, 10, &format!("one of ten in round {round}"))
            .await;
        let mut done = Vec::new();
        for _ in 0..2 {
            let (options, deadline) = match bound {
                Bound::Records(most) => (
                    CallOptions {
                        max_records: Some(most),
                        ..CallOptions::default()
                    },
                    minute(),
                ),
                Bound::Seconds(seconds) => (CallOptions::default(), Instant::now() + Duration::from_secs(seconds)),
            };
            done.push(system.vectorize_with(options, deadline).await.records);
        }
        let coverage = system.store.coverage(SMALL).await.unwrap();
        let many_left = system.store.coverage(PROJECT).await.unwrap().pending;
        println!("{bound:?} {variables:?}, round {round}: {done:?} records in two ticks, {many_left} of many left");
        assert_eq!(
            coverage.pending, 0,
            "{bound:?} {variables:?}, round {round}: {done:?} records"
        );
        assert!(many_left > 0, "the large project isn't drained");
    }
}

#[tokio::test]
async fn ten_records_beside_many_are_embedded_within_two_ticks_of_few_records_each() {
    for slots in ["1", "2", "3"] {
        let variables = [("VECTORIZE_JOBS_PER_INVOCATION", slots)];
        small_is_done_within_two_ticks(3, Bound::Records(100), Duration::ZERO, &variables).await;
    }
}

#[tokio::test]
async fn ten_records_beside_many_are_embedded_within_two_ticks_of_few_seconds_each() {
    // Of small batches far more are read ahead than can be asked for in time.
    let with_slots = async |slots| {
        let variables = [("VECTORIZE_JOBS_PER_INVOCATION", slots), ("EMBEDDING_BATCH_SIZE", "5")];
        small_is_done_within_two_ticks(1, Bound::Seconds(4), Duration::from_millis(300), &variables).await;
    };
    // Who is read first is chance where there are several slots.
    tokio::join!(with_slots("1"), with_slots("2"), with_slots("2"), with_slots("3"));
}
