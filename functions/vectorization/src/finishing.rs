//! Owns the jobs of one slot that are read and whose writes are still on their way, and the slot's first error. Refuses to claim
//! and to read.

use cronvec_pipeline::{Run, RunEnd};
use cronvec_store::StoreError;
use tokio::sync::OwnedRwLockReadGuard;
use tokio::task::{JoinError, JoinSet};

use crate::seen::Seen;

pub(crate) struct Finishing<'a> {
    seen: &'a Seen,
    runs: JoinSet<Result<RunEnd, StoreError>>,
    outcome: Result<(), StoreError>,
}

impl<'a> Finishing<'a> {
    pub fn new(seen: &'a Seen) -> Self {
        Self {
            seen,
            runs: JoinSet::new(),
            outcome: Ok(()),
        }
    }

    /// Lets a run end beside what the slot does next, and looks who has ended meanwhile.
    pub fn begin(&mut self, run: Run, trouble: Option<StoreError>, company: OwnedRwLockReadGuard<()>) {
        self.runs.spawn(async move {
            let end = run.finish(trouble).await;
            drop(company);
            end
        });
        while let Some(ended) = self.runs.try_join_next() {
            self.note(ended);
        }
    }

    /// Waits until all have ended.
    pub async fn wait(&mut self) {
        while let Some(ended) = self.runs.join_next().await {
            self.note(ended);
        }
    }

    pub fn note(&mut self, ended: Result<Result<RunEnd, StoreError>, JoinError>) {
        let ended = ended.map_err(|panic| StoreError::Unreadable(format!("a job's end broke off: {panic}")));
        let noted = ended.and_then(|end| self.seen.note(end?));
        self.keep(noted);
    }

    /// What was claimed; none if that failed.
    pub fn claimed<T>(&mut self, claimed: Result<Option<T>, StoreError>) -> Option<T> {
        claimed.unwrap_or_else(|error| {
            self.keep(Err(error));
            None
        })
    }

    pub fn is_well(&self) -> bool {
        self.outcome.is_ok()
    }

    pub fn outcome(self) -> Result<(), StoreError> {
        self.outcome
    }

    /// The first error stands.
    fn keep(&mut self, outcome: Result<(), StoreError>) {
        if self.outcome.is_ok() {
            self.outcome = outcome;
        }
    }
}
