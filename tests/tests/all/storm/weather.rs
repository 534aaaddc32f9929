//! What befalls a deployment from outside: its provider, its connections, its server, its operators.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cronvec_tests::provider::Answer;
use rand::Rng;

use super::place::OURS;
use super::{Storm, count};

/// In a text that the provider never takes.
pub const REJECTED: &str = "rejected";
/// In one that it always fails at.
pub const FAILING: &str = "always fails";

/// The provider as it is on a good day.
pub fn good(storm: &Storm) {
    let provider = &storm.place.provider;
    provider.behave();
    provider.answer_containing(REJECTED, Answer::rejected());
    provider.answer_containing(FAILING, Answer::error(500, "server_error", "an internal error"));
}

/// And on a bad one: each tenth request is too many; others are refused, fail, are cut short or late.
pub fn bad(storm: &Storm) {
    let provider = &storm.place.provider;
    provider.behave();
    let requests = Arc::new(AtomicU64::new(storm.seed));
    let nth = Arc::clone(&requests);
    provider.answer_when(
        move |_| nth.fetch_add(1, Ordering::Relaxed) % 10 == 9,
        Answer::throttled(1),
    );
    let moods = [
        (40, Answer::error(401, "invalid_request_error", "the key is unknown")),
        (30, Answer::error(500, "server_error", "an internal error")),
        (50, Answer::CutShort),
        (25, Answer::Late(Duration::from_millis(1_200))),
        (150, Answer::Never),
    ];
    for (number, (one_in, answer)) in (1_u64..).zip(moods) {
        let (nth, seed) = (Arc::clone(&requests), storm.seed);
        // What is never answered is not answered late either.
        let answers = matches!(answer, Answer::Late(_));
        provider.answer_when(
            move |inputs| {
                if answers
                    && inputs
                        .iter()
                        .any(|input| input.contains(REJECTED) || input.contains(FAILING))
                {
                    return false;
                }
                let mixed = (nth.load(Ordering::Relaxed) + seed * 1_000_003 + number * 7_919)
                    .wrapping_mul(0x9E37_79B9_7F4A_7C15);
                (mixed >> 32) % one_in == 0
            },
            answer,
        );
    }
    provider.answer_containing(REJECTED, Answer::rejected());
    provider.answer_containing(FAILING, Answer::error(500, "server_error", "an internal error"));
}

/// Ends a connection of anybody's now and then, in whatever it does.
pub async fn break_connections(storm: Arc<Storm>) {
    let mut chance = storm.chance(200);
    while !storm.is_over() {
        tokio::time::sleep(Duration::from_millis(chance.random_range(200..700))).await;
        storm
            .place
            .run(&format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND backend_type = 'client backend' AND application_name <> '{OURS}'
                 ORDER BY random() LIMIT 1"
            ))
            .await;
        count(&storm.counts.drops);
    }
}

/// Nobody gets to the server for a moment, and who was there is cut off.
pub async fn close_the_way(storm: Arc<Storm>) {
    let mut chance = storm.chance(201);
    while !storm.is_over() {
        tokio::time::sleep(Duration::from_millis(chance.random_range(1_000..3_000))).await;
        let mut proxy = storm.place.proxy.lock().await;
        proxy.close().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        proxy.open();
        count(&storm.counts.drops);
    }
}

/// The storm's time, with a restart of the server somewhere in it.
pub async fn restart_within(storm: &Storm, lasting: Duration) {
    let before = lasting.mul_f64(storm.chance(202).random_range(0.2..0.8));
    let began = tokio::time::Instant::now();
    tokio::time::sleep(before).await;
    storm.say("server", "restarts");
    storm.place.restart().await;
    storm.say("server", "is back");
    tokio::time::sleep_until(began + lasting).await;
}

/// Operators who pause projects and resume them, and whose command is killed half-way now and then.
pub async fn pause_and_resume(storm: Arc<Storm>) {
    let mut chance = storm.chance(203);
    while !storm.is_over() {
        let project = ["plain", "lanes", "ads"][chance.random_range(0..3)];
        for words in [["projects", "pause", project], ["projects", "resume", project]] {
            let address = storm.place.address("operator");
            let mut process = storm.place.cronvec(&words, &address, "1").await;
            let is_killed = chance.random_bool(0.3);
            let wait = Duration::from_millis(chance.random_range(20..200));
            if is_killed {
                tokio::time::sleep(wait).await;
                process.kill().await;
            } else {
                let outcome = process.outcome().await;
                if !outcome.status.success() {
                    storm.say("operator", &format!("{words:?}: {outcome:?}"));
                }
            }
            count(&storm.counts.pauses);
            tokio::time::sleep(Duration::from_millis(chance.random_range(100..600))).await;
        }
    }
}
