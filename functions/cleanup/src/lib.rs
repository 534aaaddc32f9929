//! The worker `cleanup`: retention, in bounded passes, for as long as the invocation has time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cronvec_call::{CallOptions, WorkerKind};
use cronvec_config::Settings;
use cronvec_invocation::Stop;
use cronvec_secrets::Secrets;
use cronvec_store::retention::Expiring;
use cronvec_store::{Store, StoreError};
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
pub struct Worker {
    // Dependencies.
    store: Arc<Store>,
    // Configuration.
    settings: Settings,
    stop: Stop,
}

impl cronvec_call::Worker for Worker {
    const KIND: WorkerKind = WorkerKind::Cleanup;
    type Report = Report;

    fn new(store: Arc<Store>, settings: Settings, _secrets: Secrets) -> Self {
        Self {
            store,
            settings,
            stop: Stop::default(),
        }
    }

    fn store(&self) -> &Store {
        &self.store
    }

    fn ending(&self) -> &Stop {
        &self.stop
    }

    /// Goes through all that expires, until the deadline at most.
    async fn pass(&self, _options: CallOptions, deadline: Instant) -> Result<Report, StoreError> {
        let retention = &self.settings.retention;
        let mut report = Report {
            processed: 0,
            deleted_count: 0,
            remaining: false,
        };
        let before = self.store.oldest_unfinished_ingest().await?;
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
                if self.stop.is_raised() || deadline.saturating_duration_since(Instant::now()) < LEAST_TIME {
                    report.remaining = true;
                    break;
                }
                let (deleted, more) = self.store.cleanup_pass(what).await?;
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
