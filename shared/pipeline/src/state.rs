//! Owns what the reader, the batches and the writer of a run share, and why a run stops. Refuses to work on it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinError;
use tracing::Span;

use super::{Invocation, Served};
use cronvec_nouns::job::ClaimedJob;
use cronvec_nouns::record::ContentHash;
use cronvec_store::sources::SpaceUse;

/// Why a run ended before its work did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Somebody else holds the job, or nobody: nothing more is written.
    LeaseLost,
    /// The endpoint rests.
    Provider,
    /// Our time is over.
    Deadline,
    /// Its turn alone is over: others go on, and so will it.
    Turn,
    /// The database went away, or ended a statement: no fault of the job's.
    Database(String),
    /// The job's own fault.
    Job(String),
}

/// What the reader, the batches and the writer of a run share.
pub(super) struct Shared {
    /// All that is done for the job.
    pub span: Span,
    pub invocation: Arc<Invocation>,
    pub served: Served,
    pub job: ClaimedJob,
    pub total: u64,
    /// The attached table whose own column gets the vectors, too.
    pub column: Option<i32>,
    /// The space keeps vectors of rows that left their table.
    pub has_left: AtomicBool,
    /// No record that looked new has been met in the space.
    pub trusts_new: AtomicBool,
    /// Records that earlier invocations settled.
    pub settled_before: u64,
    pub settled: AtomicU64,
    pub stored: AtomicU64,
    pub failed: AtomicU64,
    /// Records that were charged in this run: once is enough, however many of their chunks failed.
    pub charged: std::sync::Mutex<HashSet<String>>,
    /// Records that are cut smaller next time, each with its hash and how many chunks it was cut into.
    pub former_cuts: std::sync::Mutex<HashSet<(String, ContentHash, i32)>>,
    /// So many were told so.
    pub recut: AtomicU64,
    /// One permit a request that asks for a place among those in flight. Were there more, a job with many batches would
    /// keep others waiting behind all of them.
    pub turns: Semaphore,
    /// Where a table's column is filled: one permit an input that is asked for, until it is written.
    pub unwritten: Option<Arc<Semaphore>>,
    /// Rejections in a row.
    pub rejections: AtomicU32,
    /// When the last canary that succeeded began.
    pub canary: Mutex<Option<Instant>>,
    /// Requests that were refused and told something about their inputs.
    pub learnt: AtomicU64,
    /// It lost its worker. Nothing is begun after this.
    pub alone_until: Option<Instant>,
    pub has_asked: AtomicBool,
    pub began: Instant,
    /// When the lease was renewed last.
    kept: std::sync::Mutex<Instant>,
    lost: AtomicBool,
    trouble: OnceLock<Trouble>,
}

impl Shared {
    pub fn new(
        invocation: Arc<Invocation>,
        served: Served,
        job: ClaimedJob,
        total: u64,
        space_use: SpaceUse,
        alone_until: Option<Instant>,
    ) -> Self {
        let in_flight = invocation.bounds.concurrent_requests;
        // Filling a column takes the database longer than the rest together. Before a fast provider the answers of a thousand
        // records would wait, and all of them be paid for again when the worker dies: no more wait than can be in flight.
        let unwritten = 2 * invocation.bounds.batch_size * in_flight;
        Self {
            span: tracing::info_span!("job", job.id = job.lease.job_id, job.type = "VECTORIZE", job.project = job.project),
            turns: Semaphore::new(if alone_until.is_some() { 1 } else { in_flight }),
            unwritten: space_use.column.map(|_| Arc::new(Semaphore::new(unwritten))),
            settled_before: job.progress.as_ref().map_or(0, |progress| progress.current),
            invocation,
            served,
            job,
            total,
            column: space_use.column,
            has_left: AtomicBool::new(space_use.has_left),
            trusts_new: AtomicBool::new(true),
            settled: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            charged: std::sync::Mutex::default(),
            former_cuts: std::sync::Mutex::default(),
            recut: AtomicU64::new(0),
            rejections: AtomicU32::new(0),
            canary: Mutex::new(None),
            learnt: AtomicU64::new(0),
            alone_until,
            has_asked: AtomicBool::new(false),
            began: Instant::now(),
            kept: std::sync::Mutex::new(Instant::now()),
            lost: AtomicBool::new(false),
            trouble: OnceLock::new(),
        }
    }

    /// Whether it is so long since the lease was renewed; then it counts from now.
    pub fn is_to_be_kept(&self, every: Duration) -> bool {
        let mut last = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.elapsed() >= every;
        if due {
            *last = Instant::now();
        }
        due
    }

    pub fn has_ended(&self) -> bool {
        self.trouble.get().is_some()
    }

    /// Its turn alone is over. One request it may send in any case, however long its texts took to be cut.
    pub fn is_over(&self) -> bool {
        self.has_asked.load(Ordering::Relaxed) && self.alone_until.is_some_and(|until| Instant::now() >= until)
    }

    /// No time is left to begin anything: of its turn, or of all.
    pub fn end_in_time(&self) {
        self.end(match self.is_over() {
            true => Trouble::Turn,
            false => Trouble::Deadline,
        });
    }

    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// The first trouble stands; a lost lease stops the writing, too.
    pub fn end(&self, trouble: Trouble) {
        if matches!(trouble, Trouble::LeaseLost | Trouble::Database(_) | Trouble::Job(_)) {
            self.lost.store(true, Ordering::Relaxed);
        }
        let _ = self.trouble.set(trouble);
    }

    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.get()
    }

    /// A batch that broke off ends the run.
    pub fn note_ended(&self, batch: Result<(), JoinError>) {
        if let Err(panic) = batch {
            self.end(Trouble::Job(format!("a batch broke off: {panic}")));
        }
    }

    pub fn result(&self) -> serde_json::Value {
        json!({
            "records": self.settled_before + self.settled.load(Ordering::Relaxed),
            "failed": self.failed.load(Ordering::Relaxed),
        })
    }
}
