//! Storms over a whole deployment, each with an audit of what it leaves behind.
//!
//! Three projects, of one lane, four lanes, and two lanes with an attached table whose column is filled. Workers are real
//! processes that are killed, frozen and terminated; users write, delete and keep transactions open; projects are paused
//! and resumed; the provider limits, refuses, fails and dawdles; connections break and the server restarts. Then all is
//! calm, and everything must be as if it had always been.
//!
//! Thirty seeds, on a server of their own that each of them restarts once:
//!
//! ```sh
//! CRONVEC_STORMS=30 cargo test -p cronvec-tests --test all -- storm --nocapture --test-threads 1
//! ```
//!
//! `CRONVEC_SEED=7` runs that one alone. A seed settles what is done, and not how the machine takes turns: a failure may need
//! some runs to come back. It tells what was wrong, and where all that the processes said is kept. Without these variables
//! one short storm runs among the other tests, with no restart.

mod audit;
mod calm;
mod place;
mod weather;
mod workers;
mod writers;

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use cronvec_tests::own_server::OwnServer;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use place::Place;
use writers::{Expected, Writer};

/// The seed of the storm that runs among the other tests.
const USUAL: u64 = 1;
/// Of each project, at the beginning; some come and go.
const RECORDS: u32 = 150;
const WIDTH: usize = 8;

/// A storm while it lasts, and what is remembered of it.
struct Storm {
    seed: u64,
    place: Place,
    over: AtomicBool,
    /// How each process of a worker ended, by the name that it has in the database.
    fates: Mutex<HashMap<String, Fate>>,
    /// What must not be, whenever it was seen.
    faults: Mutex<Vec<String>>,
    /// What the processes said.
    said: Mutex<String>,
    counts: Counts,
}

/// How a worker's process ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// By SIGKILL. What is counted as its crash is one.
    Killed,
    /// By itself, frozen meanwhile or not, at this time in seconds.
    Ended(f64),
}

/// For the line that tells of a storm.
#[derive(Default)]
struct Counts {
    kills: AtomicU64,
    freezes: AtomicU64,
    terminations: AtomicU64,
    drops: AtomicU64,
    pauses: AtomicU64,
    writes: AtomicU64,
    broken_writes: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Seconds, as PostgreSQL on the same machine has them.
fn now() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs_f64()
}

impl Storm {
    /// Chance of its own for each of those who act.
    fn chance(&self, actor: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_mul(1_000).wrapping_add(actor))
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn fault(&self, what: impl Into<String>) {
        self.faults.lock().expect("faults").push(what.into());
    }

    fn note(&self, name: &str, fate: Fate) {
        self.fates.lock().expect("fates").insert(name.to_owned(), fate);
    }

    fn say(&self, who: &str, text: &str) {
        let _ = writeln!(self.said.lock().expect("log"), "{:.3} {who}: {}", now(), text.trim());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_storm_everything_is_as_if_it_had_always_been_calm() {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds: Vec<u64> = match (number("CRONVEC_SEED"), number("CRONVEC_STORMS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(storms)) => (1..=storms).collect(),
        (None, None) => {
            storm(USUAL, None, Duration::from_secs(4)).await;
            return;
        }
    };
    let server = Arc::new(OwnServer::start().await);
    for seed in seeds {
        storm(seed, Some(Arc::clone(&server)), Duration::from_secs(12)).await;
    }
}

async fn storm(seed: u64, server: Option<Arc<OwnServer>>, lasting: Duration) {
    let began = std::time::Instant::now();
    let storm = Arc::new(Storm {
        seed,
        place: Place::new(seed, server).await,
        over: AtomicBool::new(false),
        fates: Mutex::default(),
        faults: Mutex::default(),
        said: Mutex::default(),
        counts: Counts::default(),
    });
    storm.place.settle().await;
    let mut actors = JoinSet::new();
    let mut writing = JoinSet::new();
    weather::bad(&storm);
    for writer in Writer::all(&storm) {
        writing.spawn(writer.write());
    }
    for number in 0..4 {
        actors.spawn(workers::work(Arc::clone(&storm), "vectorization", number));
    }
    actors.spawn(workers::work(Arc::clone(&storm), "ingestion", 4));
    actors.spawn(weather::break_connections(Arc::clone(&storm)));
    actors.spawn(weather::close_the_way(Arc::clone(&storm)));
    actors.spawn(weather::pause_and_resume(Arc::clone(&storm)));
    if storm.place.can_restart() {
        weather::restart_within(&storm, lasting).await;
    } else {
        tokio::time::sleep(lasting).await;
    }
    storm.over.store(true, Ordering::Relaxed);
    while let Some(ended) = actors.join_next().await {
        ended.expect("an actor");
    }
    let mut expected = Expected::default();
    while let Some(ended) = writing.join_next().await {
        expected.extend(ended.expect("a writer"));
    }
    calm::calm(&storm).await;
    let audit = audit::audit(&storm, &expected).await;
    let counts = &storm.counts;
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "seed {seed}: {} kills, {} freezes, {} terminations, {} drops, {} pauses, {} writes ({} cut off), {} requests; \
         {} embedded, {} quarantined, {} crashes counted, {} taken back; {:.0} s",
        read(&counts.kills),
        read(&counts.freezes),
        read(&counts.terminations),
        read(&counts.drops),
        read(&counts.pauses),
        read(&counts.writes),
        read(&counts.broken_writes),
        storm.place.provider.log().requests.len(),
        audit.embedded,
        audit.quarantined,
        audit.crashes,
        audit.taken_back,
        began.elapsed().as_secs_f64()
    );
    let faults = storm.faults.lock().expect("faults").clone();
    if !faults.is_empty() {
        let kept = std::env::temp_dir().join(format!("cronvec-storm-{seed}.log"));
        let said = storm.said.lock().expect("log").clone();
        std::fs::write(&kept, format!("{said}\n{}", audit.state)).expect("a file");
        let first: Vec<_> = faults.iter().take(20).map(String::as_str).collect();
        panic!(
            "seed {seed}: {} faults; what was said is in {}\n  {}",
            faults.len(),
            kept.display(),
            first.join("\n  ")
        );
    }
    storm.place.leave().await;
}
