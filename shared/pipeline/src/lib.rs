//! Owns the way from pending to stored: read → chunk → request → fenced write. Used by vectorization and by
//! synchronous writes. Refuses to know how a call came in and how its answer goes out.
//!
//! ```text
//! Run::read ─ slice ─→ prepare (chunks, same texts once) ─→ batches ─→ send (several in flight) ─→ writer ─→ Postgres
//! ```

mod adoption;
mod batch;
pub mod canary;
mod item;
mod named;
pub mod now;
mod prepare;
mod rests;
mod run;
mod send;
mod served;
mod state;
mod tally;
mod texts;
mod verdict;
mod writer;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use cronvec_invocation::{Clock, Leases, Stop, Unreported};
use cronvec_store::Store;

pub use adoption::{ALIKE, AdoptionCheck, check_adoption};
pub use named::Named;
pub use run::{Remembered, Run, RunEnd};
pub use served::{Served, ServedSpaces, Unserved, provider};
pub use state::Trouble;
pub use tally::{OfProject, Tally};

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

    pub fn is_idle(&self, job_id: i64) -> bool {
        let jobs = self.idle_jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.contains(&job_id)
    }

    fn note_idle(&self, job_id: i64) {
        let mut jobs = self.idle_jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.insert(job_id);
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.is_raised()
    }
}
