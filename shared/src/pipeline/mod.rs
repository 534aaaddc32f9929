//! Owns the way from pending to stored: read → chunk → request → fenced write. Used by vectorization and by
//! synchronous writes. Refuses to know how a call came in and how its answer goes out.
//!
//! ```text
//! Run::read ─ slice ─→ prepare (chunks, same texts once) ─→ batches ─→ send (several in flight) ─→ writer ─→ Postgres
//! ```

mod adoption;
mod batch;
pub mod canary;
mod clock;
mod leases;
mod named;
pub mod now;
mod prepare;
mod rests;
mod run;
mod send;
mod served;
mod stop;
mod texts;
mod verdict;
mod writer;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::store::Store;
use crate::store::figures::bucket_of;

pub use adoption::{ALIKE, AdoptionCheck, check_adoption};
pub use clock::Clock;
pub use leases::{Leases, Unreported};
pub use named::Named;
pub use run::{Remembered, Run, RunEnd, Trouble};
pub use served::{Served, ServedSpaces, Unserved, provider};
pub use stop::Stop;

/// The bounds of an invocation.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Inputs that a request carries at most.
    pub batch_size: usize,
    /// Requests in flight at most.
    pub concurrent_requests: usize,
    /// How long a request may take; none: what is usual with its provider.
    pub request_timeout: Option<Duration>,
    /// Records that a slice reads at most.
    pub records_per_slice: usize,
    /// Bytes that a text of an attached table has at most.
    pub max_content_bytes: usize,
}

/// What all jobs of one invocation share.
pub struct Invocation {
    pub store: Arc<Store>,
    pub clock: Clock,
    pub bounds: Bounds,
    pub tally: Tally,
    pub stop: Stop,
    pub leases: Leases,
    /// One permit a request in flight.
    requests: Semaphore,
    /// One permit an input between its reading and its writing: reading ahead goes no further.
    room: Arc<Semaphore>,
    texts: Arc<texts::TextsInFlight>,
    rests: rests::Rests,
    /// Jobs whose slice moved nothing: another invocation may find more to do.
    idle_jobs: Mutex<HashSet<i64>>,
}

impl Invocation {
    pub fn new(store: Arc<Store>, clock: Clock, bounds: Bounds, stop: Stop, unreported: Unreported) -> Self {
        let room = 6 * bounds.records_per_slice + 2 * bounds.batch_size * bounds.concurrent_requests;
        Self {
            leases: Leases::new(Arc::clone(&store), unreported),
            store,
            clock,
            bounds,
            tally: Tally::default(),
            stop,
            requests: Semaphore::new(bounds.concurrent_requests),
            room: Arc::new(Semaphore::new(room)),
            texts: Arc::default(),
            rests: rests::Rests::default(),
            idle_jobs: Mutex::default(),
        }
    }

    /// Jobs that this invocation is through with, whatever is due in their lanes.
    pub fn idle_jobs(&self) -> Vec<i64> {
        let jobs = self.idle_jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.iter().copied().collect()
    }

    fn note_idle(&self, job_id: i64) {
        let mut jobs = self.idle_jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.insert(job_id);
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.is_raised()
    }
}

/// What an invocation did, counted as it does it.
#[derive(Debug, Default)]
pub struct Tally {
    /// Records whose vectors are complete.
    pub records: AtomicU64,
    pub chunks: AtomicU64,
    /// Chunks whose text the space held already.
    pub reused: AtomicU64,
    pub requests: AtomicU64,
    pub tokens: AtomicU64,
    /// Records charged with an attempt, those in quarantine among them.
    pub failed: AtomicU64,
    pub quarantined: AtomicU64,
    pub purged: AtomicU64,
    pub passed_over: AtomicU64,
    pub lost_leases: AtomicU64,
    /// Records whose vectors are complete and records charged, by project.
    projects: Mutex<BTreeMap<String, (u64, u64)>>,
    /// Slices that were read.
    pub slices: AtomicU64,
    /// Jobs that had lost a worker before.
    pub rescued: AtomicU64,
    /// Requests that were answered with 429.
    pub rate_limited: AtomicU64,
    /// Requests by how long they took, in the buckets of `store::figures`.
    durations: Mutex<BTreeMap<u64, u64>>,
}

impl Tally {
    /// The histogram of requests so far: the upper bounds in ms, and how many fell below each and above the one before.
    pub fn durations(&self) -> BTreeMap<u64, u64> {
        self.durations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// By project, those that were embedded and those that were charged.
    pub fn by_project(&self) -> BTreeMap<String, (u64, u64)> {
        self.projects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_records(&self, project: &str, embedded: u64, failed: u64) {
        if embedded + failed == 0 {
            return;
        }
        Self::add(&self.records, embedded);
        Self::add(&self.failed, failed);
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        let of = projects.entry(project.to_owned()).or_default();
        *of = (of.0 + embedded, of.1 + failed);
    }

    fn note_duration(&self, took: Duration) {
        let bound = bucket_of(took.as_secs_f64() * 1000.0);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number of at least 1"
        )]
        let bound = bound as u64;
        let mut durations = self.durations.lock().unwrap_or_else(PoisonError::into_inner);
        *durations.entry(bound).or_default() += 1;
    }

    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}
