//! Owns how a run parts from its job: what is waited for, what becomes of the job, and what it remembers. Refuses to begin
//! anything.

use std::sync::atomic::Ordering;

use super::super::Tally;
use super::super::state::Trouble;
use super::Run;
use cronvec_nouns::job::{End, JobStatus};
use cronvec_store::StoreError;

/// What the job is to remember: given how many records this run has settled, or `None` if it came through.
pub type Remember = Box<dyn FnOnce(Option<u64>) -> Remembered + Send>;

/// What a job remembers of the search for a record that kills its workers.
#[derive(Debug)]
pub struct Remembered {
    pub cursor: serde_json::Value,
    /// Nobody is suspected any more.
    pub is_over: bool,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEnd {
    pub trouble: Option<Trouble>,
    /// What the job is now, where this run still had a say in it.
    pub status: Option<JobStatus>,
    pub moved: bool,
}

impl RunEnd {
    /// Nothing was done.
    pub fn nothing() -> Self {
        Self {
            trouble: None,
            status: None,
            moved: false,
        }
    }
}

impl Run {
    /// Waits for all that is on its way, then parts from the job.
    pub async fn finish(mut self, error: Option<StoreError>) -> Result<RunEnd, StoreError> {
        if let Some(error) = error {
            // A statement that was ended by a timeout, or that waited too long for a lock, is no fault of the job either.
            self.shared.end(if error.is_temporary() {
                Trouble::Database(error.to_string())
            } else {
                Trouble::Job(error.to_string())
            });
        }
        self.flush();
        let Self {
            shared,
            items,
            mut batches,
            mut writer,
            at_end,
            remember,
            ..
        } = self;
        while let Some(ended) = batches.join_next().await {
            shared.note_ended(ended);
        }
        drop(items);
        if let Err(panic) = (&mut writer.0).await {
            shared.end(Trouble::Job(format!("the writer broke off: {panic}")));
        }
        let (store, leases) = (&shared.invocation.store, &shared.invocation.leases);
        let settled = shared.settled.load(Ordering::Relaxed);
        let steps = [&shared.settled, &shared.stored, &shared.recut, &shared.learnt];
        let moved = steps.iter().any(|steps| steps.load(Ordering::Relaxed) > 0);
        if !moved {
            // Texts were changed under us, or users hold the rows: asking again at once would pay for the same answers
            // over and over. It isn't the job that waits, which may get new records any moment; this invocation leaves
            // it be. Said before the job's end, after which anyone may claim it.
            shared.invocation.note_idle(shared.job.lease.job_id);
        }
        let tally = &shared.invocation.tally;
        tally.note_worked(&shared.job.project, shared.began.elapsed());
        let trouble = shared.trouble().cloned();
        // What is left of the search for a record that kills its workers. A slice that its time was too short for has
        // cleared those that it settled.
        let remembered = match &trouble {
            Some(Trouble::LeaseLost | Trouble::Database(_) | Trouble::Job(_)) => None,
            Some(Trouble::Provider | Trouble::Deadline | Trouble::Turn) => remember.map(|cursor| cursor(Some(settled))),
            None => remember.map(|cursor| cursor(None)),
        };
        let is_suspect = shared.alone_until.is_some();
        let is_cleared = remembered.as_ref().is_some_and(|remembered| remembered.is_over);
        let end = match &trouble {
            Some(Trouble::LeaseLost) => None,
            Some(Trouble::Job(error)) => Some(End::Failed { error: error.clone() }),
            // A connection that broke is replaced by the next question: the job goes back at once, if the database is
            // there, and nobody takes its worker for dead.
            Some(Trouble::Database(_)) => Some(End::Released {
                progressed: moved && !is_suspect,
            }),
            // A job that lost its worker is suspect until all that was suspected is through.
            Some(Trouble::Provider | Trouble::Deadline | Trouble::Turn) => Some(End::Released {
                progressed: if is_suspect { is_cleared } else { moved },
            }),
            None if remembered.is_some() && !at_end => Some(End::Released { progressed: true }),
            None if !at_end => Some(End::Released { progressed: moved }),
            None if !moved && store.count_due(&shared.job, 1).await? > 0 => Some(End::Released { progressed: false }),
            None => Some(End::Completed {
                result: shared.result(),
            }),
        };
        if let Some(Remembered { cursor, .. }) = &remembered {
            match store.save_cursor(shared.job.lease, cursor).await {
                Ok(()) | Err(StoreError::LeaseLost) => {}
                Err(error) => return Err(error),
            }
        }
        let status = match end {
            None => None,
            Some(end) => match leases.end(&shared.job, end).await {
                Ok(ended) => Some(ended.status),
                Err(StoreError::LeaseLost) => {
                    Tally::add(&shared.invocation.tally.lost_leases, 1);
                    None
                }
                Err(error) => return Err(error),
            },
        };
        Ok(RunEnd { trouble, status, moved })
    }
}
