//! Owns what the slots of a pass tell it: the jobs that they had, and what kept them from going on. Refuses to decide by it.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cronvec_nouns::job::JobStatus;
use cronvec_pipeline::{RunEnd, Trouble};
use cronvec_store::StoreError;

/// What the slots tell the pass.
#[derive(Default)]
pub(crate) struct Seen {
    pub jobs: Mutex<HashSet<i64>>,
    pub provider_trouble: AtomicBool,
    pub out_of_time: AtomicBool,
    /// Jobs of this round that got somewhere and went back into the line.
    pub continuing: AtomicU64,
    /// Claims of this round.
    pub claimed: AtomicU64,
}

impl Seen {
    /// How a job's run ended. An error is the pass's, not the job's.
    pub fn note(&self, end: RunEnd) -> Result<(), StoreError> {
        match end.trouble {
            Some(Trouble::Provider) => self.provider_trouble.store(true, Ordering::Relaxed),
            Some(Trouble::Deadline) => self.out_of_time.store(true, Ordering::Relaxed),
            // A connection broke, and the job went back over another one: the database is there.
            Some(Trouble::Database(error)) if end.status.is_some() => {
                tracing::warn!(error = error, "a connection to the database broke");
            }
            Some(Trouble::Database(error)) => return Err(StoreError::Outage(error)),
            // The job carries its error; nothing of it is the call's.
            Some(Trouble::Job(_) | Trouble::LeaseLost | Trouble::Turn) | None => {}
        }
        if end.moved && end.status == Some(JobStatus::Pending) {
            self.continuing.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
