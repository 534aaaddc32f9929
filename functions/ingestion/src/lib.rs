//! The worker `ingestion`: claims INGEST_DATA jobs and stores their records, set-wise, a batch a transaction.

mod job;
mod lines;
mod pass;
mod report;
mod suspects;

use std::sync::Arc;
use std::time::Instant;

use shared::call::CallOptions;
use shared::config::Settings;
use shared::pipeline::{Clock, Leases, Stop, Unreported};
use shared::secrets::Secrets;
use shared::store::{Store, StoreError};

pub use report::{Report, StoppedBecause};

/// The name under which its status is kept.
pub const NAME: &str = "ingestion";

/// Makes passes over the INGEST_DATA jobs.
pub struct Worker {
    // Dependencies.
    store: Arc<Store>,
    // Configuration.
    settings: Settings,
    stop: Stop,
    // State.
    unreported: Unreported,
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
            unreported: Unreported::default(),
        }
    }

    /// Asks it to begin nothing new and to part from what it holds.
    pub fn stop(&self) {
        self.stop.raise();
    }

    /// For a process that ends after its passes: goes on trying to report the leases that they couldn't, until `until`.
    pub async fn report_last(&self, until: Instant) {
        self.unreported.report_last(&self.store, until).await;
    }

    /// One pass, until the deadline at most. A failing job doesn't fail it.
    pub async fn run(&self, options: CallOptions, deadline: Instant) -> Result<Report, StoreError> {
        let pass = async {
            let project_id = match &options.project {
                Some(name) => Some(self.store.project(name).await?.id),
                None => None,
            };
            let pass = pass::Pass {
                store: Arc::clone(&self.store),
                leases: Leases::new(Arc::clone(&self.store), self.unreported.clone()),
                clock: Clock::until(deadline),
                stop: self.stop.clone(),
                project_id,
                slots: self.settings.queue.ingest_jobs,
                batch_size: self.settings.queue.ingest_batch_size,
                max_content_bytes: self.settings.max_content_bytes,
                max_records: options.max_records,
                company: tokio::sync::RwLock::default(),
            };
            pass.run().await
        };
        self.store.run_as(NAME, deadline, Box::pin(pass)).await
    }
}
