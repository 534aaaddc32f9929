//! One pass: a few slots, each working on the job whose turn it is.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cronvec_call::Work as _;
use cronvec_invocation::{Clock, Leases, Stop};
use cronvec_nouns::job::{ClaimedJob, End, JobType};
use cronvec_store::claim::ClaimWish;
use cronvec_store::{Store, StoreError};
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::job::{IngestJob, Step};
use crate::report::{Report, StoppedBecause};

/// Batches of one job before another that is due gets the slot.
const BATCHES_PER_SLICE: usize = 10;
/// Nothing is begun with less time than this.
const LEAST_TIME: Duration = Duration::from_millis(250);
/// A job whose statement was ended by the server comes again after this.
const BUSY_DELAY: Duration = Duration::from_secs(2);
/// What the last report of a pass needs.
const REPORT: Duration = Duration::from_millis(30);

pub(crate) struct Pass {
    pub store: Arc<Store>,
    pub clock: Clock,
    pub stop: Stop,
    pub leases: Leases,
    pub project_id: Option<i32>,
    pub slots: usize,
    pub batch_size: usize,
    pub max_content_bytes: usize,
    pub max_records: Option<u64>,
    /// Shared by the batches that are stored beside each other; taken alone by one that may kill the worker.
    pub company: RwLock<()>,
}

#[derive(Default)]
struct Tally {
    jobs: std::sync::Mutex<HashSet<i64>>,
    saved: AtomicU64,
    skipped: AtomicU64,
    rejected: AtomicU64,
    lost_leases: AtomicU64,
    records: AtomicU64,
    out_of_time: AtomicBool,
}

impl Pass {
    pub async fn run(self) -> Result<Report, StoreError> {
        let pass = Arc::new(self);
        let tally = Arc::new(Tally::default());
        pass.leases.report_earlier().await;
        let mut slots = JoinSet::new();
        for _ in 0..pass.slots.max(1) {
            slots.spawn(Arc::clone(&pass).slot(Arc::clone(&tally)).in_current_span());
        }
        let all = async {
            let mut outcome = Ok(());
            while let Some(ended) = slots.join_next().await {
                let ended = ended.map_err(|panic| StoreError::Unreadable(format!("a slot broke off: {panic}")));
                outcome = outcome.and(ended.and_then(|ended| ended));
            }
            outcome
        };
        let outcome = tokio::time::timeout_at(pass.clock.end_of_work().into(), all).await;
        if outcome.is_err() {
            // A last resort: what was on its way is rolled back.
            tracing::warn!("a pass was cut off at its deadline");
            tally.out_of_time.store(true, Ordering::Relaxed);
            slots.abort_all();
        }
        // Whichever way it ended: what is still leased goes back, and nobody takes this worker for dead.
        let deadline = pass.clock.deadline();
        pass.leases
            .release_all(deadline.checked_sub(REPORT).unwrap_or(deadline))
            .await;
        outcome.unwrap_or(Ok(()))?;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Report {
            processed: tally
                .jobs
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .len() as u64,
            records: read(&tally.saved),
            skipped: read(&tally.skipped),
            rejected: read(&tally.rejected),
            lost_leases: read(&tally.lost_leases),
            stopped_because: if pass.stop.is_raised() {
                StoppedBecause::Terminated
            } else if tally.out_of_time.load(Ordering::Relaxed) {
                StoppedBecause::Deadline
            } else if pass.is_enough(&tally) {
                StoppedBecause::Limit
            } else {
                StoppedBecause::Drained
            },
        })
    }

    fn is_enough(&self, tally: &Tally) -> bool {
        self.max_records
            .is_some_and(|most| tally.records.load(Ordering::Relaxed) >= most)
    }

    fn must_end(&self, tally: &Tally) -> bool {
        if self.clock.remaining() < LEAST_TIME || !self.clock.has_time_to_write() {
            tally.out_of_time.store(true, Ordering::Relaxed);
            return true;
        }
        self.stop.is_raised() || self.is_enough(tally)
    }

    async fn slot(self: Arc<Self>, tally: Arc<Tally>) -> Result<(), StoreError> {
        let mut next = self.claim(&tally).await?;
        while let Some(job) = next.take() {
            tally
                .jobs
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .insert(job.lease.job_id);
            let span = tracing::info_span!("job", job.id = job.lease.job_id, job.type = "INGEST_DATA", job.project = job.project);
            match self.work(&job, &tally).instrument(span).await {
                Ok(other) => next = other,
                Err(StoreError::LeaseLost) => {
                    tracing::warn!(
                        job.id = job.lease.job_id,
                        "the lease is lost; what isn't stored is dropped"
                    );
                    tally.lost_leases.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if error.is_outage() => return Err(error),
                Err(error) => {
                    tracing::error!(job.id = job.lease.job_id, error = %error, "a job failed");
                    let end = match error {
                        StoreError::Conflict(error) => End::Refused {
                            error,
                            result: serde_json::json!({}),
                        },
                        // A statement that took too long, or waited for somebody: no fault of the job's.
                        error if error.is_temporary() => End::Snoozed { delay: BUSY_DELAY },
                        error => End::Failed {
                            error: error.to_string(),
                        },
                    };
                    match self.leases.end(&job, end).await {
                        Ok(_) | Err(StoreError::LeaseLost) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            if next.is_none() {
                next = self.claim(&tally).await?;
            }
        }
        Ok(())
    }

    /// Works on a job until it ends, or another is due after a slice: that one is returned.
    async fn work(&self, claimed: &ClaimedJob, tally: &Tally) -> Result<Option<ClaimedJob>, StoreError> {
        let mut job = IngestJob::open(
            &self.store,
            &self.clock,
            claimed,
            self.batch_size,
            self.max_content_bytes,
        )?;
        let mut batches = 0;
        let mut other = None;
        let end = loop {
            // Another slot may have reached the limit, and let this job go, while it was claimed here.
            if self.is_enough(tally) || (batches > 0 && self.must_end(tally)) {
                break End::Released {
                    progressed: batches > 0,
                };
            }
            let stepped = if job.is_suspected() {
                let _alone = self.company.write().await;
                job.step().await?
            } else {
                let _company = self.company.read().await;
                job.step().await?
            };
            match stepped {
                Step::Ended(end) => break end,
                Step::Went { records } => {
                    tally.records.fetch_add(records, Ordering::Relaxed);
                    tally.saved.fetch_add(std::mem::take(&mut job.saved), Ordering::Relaxed);
                    tally
                        .skipped
                        .fetch_add(std::mem::take(&mut job.skipped), Ordering::Relaxed);
                    tally
                        .rejected
                        .fetch_add(std::mem::take(&mut job.rejected), Ordering::Relaxed);
                }
            }
            batches += 1;
            if batches % BATCHES_PER_SLICE == 0 {
                other = self.claim(tally).await?;
                if other.is_some() {
                    break End::Released { progressed: true };
                }
            }
        };
        match self.leases.end(claimed, end).await {
            // The one that was claimed beside it is not to blame.
            Err(StoreError::LeaseLost) if other.is_some() => {
                tally.lost_leases.fetch_add(1, Ordering::Relaxed);
            }
            ended => drop(ended?),
        }
        Ok(other)
    }

    async fn claim(&self, tally: &Tally) -> Result<Option<ClaimedJob>, StoreError> {
        if self.must_end(tally) {
            return Ok(None);
        }
        let wish = ClaimWish {
            job_type: JobType::IngestData,
            spaces: &[],
            limit: 1,
            lease: self.clock.lease(),
            worker: crate::Ingestion::KIND.as_str(),
            project_id: self.project_id,
        };
        Ok(self.leases.claim(&wish, &[]).await?.pop())
    }
}
