//! The worker `cleanup`: retention, in bounded passes, for as long as the invocation has time.

use std::time::{Duration, Instant};

use cronvec_call::{CallOptions, Work, WorkerKind};
use cronvec_store::StoreError;
use cronvec_store::retention::Expiring;
use serde::Serialize;

/// No pass is begun with less time than this.
const LEAST_TIME: Duration = Duration::from_secs(2);

/// What a pass did.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Jobs that were deleted.
    pub processed: u64,
    pub deleted_count: u64,
    /// Whether more has expired than there was time for.
    pub remaining: bool,
}

/// Deletes what has expired.
pub struct Cleanup;

pub type Worker = cronvec_call::Worker<Cleanup>;

impl Work for Cleanup {
    const KIND: WorkerKind = WorkerKind::Cleanup;
    type Report = Report;

    /// Goes through all that expires, until the deadline at most.
    async fn pass(worker: &Worker, _options: CallOptions, deadline: Instant) -> Result<Report, StoreError> {
        let retention = &worker.settings.retention;
        let mut report = Report {
            processed: 0,
            deleted_count: 0,
            remaining: false,
        };
        let before = worker.store.oldest_unfinished_ingest().await?;
        for what in [
            Expiring::Staged {
                days: retention.job_days,
            },
            Expiring::FinishedJobs {
                days: retention.job_days,
            },
            Expiring::Uploads,
            Expiring::OpenJobs,
            Expiring::Audit {
                days: retention.audit_days,
            },
            Expiring::Metrics {
                days: retention.metrics_days,
            },
            Expiring::Tombstones { before },
            Expiring::Pauses,
            Expiring::LeftVectors,
        ] {
            loop {
                if worker.stop.is_raised() || deadline.saturating_duration_since(Instant::now()) < LEAST_TIME {
                    report.remaining = true;
                    break;
                }
                let (deleted, more) = worker.store.cleanup_pass(what).await?;
                // What belongs to a job goes with it, and counts as one.
                if matches!(what, Expiring::FinishedJobs { .. } | Expiring::OpenJobs) {
                    report.processed += deleted;
                }
                if !matches!(
                    what,
                    Expiring::Staged { .. } | Expiring::Uploads | Expiring::LeftVectors
                ) {
                    report.deleted_count += deleted;
                }
                if !more {
                    break;
                }
            }
        }
        Ok(report)
    }
}
