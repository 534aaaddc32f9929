//! The worker `cleanup`: retention, in bounded passes, for as long as the invocation has time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use shared::call::CallOptions;
use shared::config::Settings;
use shared::pipeline::Stop;
use shared::secrets::Secrets;
use shared::store::retention::Expiring;
use shared::store::{Store, StoreError};

/// The name under which its status is kept.
pub const NAME: &str = "cleanup";
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

impl AsRef<Store> for Worker {
    fn as_ref(&self) -> &Store {
        &self.store
    }
}

impl AsRef<Stop> for Worker {
    fn as_ref(&self) -> &Stop {
        &self.stop
    }
}

impl Worker {
    /// A worker on the database that the settings name, whose schema must be this program's.
    pub async fn connect(settings: &Settings, secrets: &Secrets) -> Result<Self, StoreError> {
        let store = Store::open(settings, secrets).await?;
        Ok(Self::new(store, settings.clone()))
    }

    /// A worker on a store that is there already.
    pub fn new(store: Arc<Store>, settings: Settings) -> Self {
        Self {
            store,
            settings,
            stop: Stop::default(),
        }
    }

    /// Asks it to begin no other pass.
    pub fn stop(&self) {
        self.stop.raise();
    }

    /// Goes through all that expires, until the deadline at most.
    pub async fn run(&self, _options: CallOptions, deadline: Instant) -> Result<Report, StoreError> {
        self.store.run_as(NAME, deadline, Box::pin(self.pass(deadline))).await
    }

    async fn pass(&self, deadline: Instant) -> Result<Report, StoreError> {
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
