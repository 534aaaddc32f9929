//! Processes of workers, and what is done to them.

use std::sync::Arc;
use std::time::Duration;

use cronvec_tests::process::Process;
use rand::Rng;

use super::{Fate, Storm, count, now};

/// Of a tick: its four seconds, ten more for its last reports, and a busy machine.
const LONGEST: Duration = Duration::from_secs(60);

/// One process after another, under names of their own, each left to its end or not.
pub async fn work(storm: Arc<Storm>, worker: &'static str, number: u64) {
    let mut chance = storm.chance(100 + number);
    for nth in 0.. {
        if storm.is_over() {
            return;
        }
        let name = format!("{worker}-{number}-{nth}");
        let address = storm.place.address_through(&name);
        let mut process = storm
            .place
            .cronvec(&["tick", worker, "--max-seconds", "4"], &address, "1")
            .await;
        // Most of what is interesting is soon over.
        let most = if chance.random_bool(0.5) { 800 } else { 3_500 };
        let wait = Duration::from_millis(chance.random_range(100..most));
        let frozen_for = Duration::from_millis(chance.random_range(500..2_000));
        match chance.random_range(0..10) {
            0..=2 => {
                tokio::time::sleep(wait).await;
                if process.ended().is_none() {
                    storm.note(&name, Fate::Killed);
                    count(&storm.counts.kills);
                    process.kill().await;
                    storm.say(&name, &format!("killed\n{}", process.stderr()));
                    storm.place.expire(&[name]).await;
                    continue;
                }
            }
            3..=4 => {
                tokio::time::sleep(wait).await;
                if process.ended().is_none() {
                    process.freeze();
                    count(&storm.counts.freezes);
                    storm.say(&name, "frozen");
                    storm.place.expire(std::slice::from_ref(&name)).await;
                    tokio::time::sleep(frozen_for).await;
                    process.thaw();
                    storm.say(&name, "thawed");
                }
            }
            5 => {
                tokio::time::sleep(wait).await;
                if process.ended().is_none() {
                    process.terminate();
                    count(&storm.counts.terminations);
                    storm.say(&name, "terminated");
                }
            }
            _ => {}
        }
        end(&storm, &name, process).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for the end that it comes to by itself.
pub async fn end(storm: &Storm, name: &str, mut process: Process) {
    let Ok(status) = tokio::time::timeout(LONGEST, process.wait()).await else {
        storm.fault(format!("{name} does not end: {}", process.stderr()));
        storm.note(name, Fate::Killed);
        process.kill().await;
        return;
    };
    storm.note(name, Fate::Ended(now()));
    let outcome = process.outcome().await;
    storm.say(name, &format!("{status}: {}{}", outcome.stdout, outcome.stderr));
    if outcome.stderr.contains("panicked") {
        storm.fault(format!("{name} panicked: {}", outcome.stderr));
    }
}
