//! The worker `ingestion`: claims INGEST_DATA jobs and stores their records, set-wise, a batch a transaction.

mod job;
mod lines;
mod pass;
mod report;
mod suspects;

use std::sync::Arc;
use std::time::Instant;

use cronvec_call::{CallOptions, WorkerKind};
use cronvec_config::Settings;
use cronvec_invocation::{Clock, Leases, Stop, Unreported};
use cronvec_secrets::Secrets;
use cronvec_store::{Store, StoreError};

pub use report::{Report, StoppedBecause};

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

impl Worker {
    /// For a process that ends after its passes: goes on trying to report the leases that they couldn't, until `until`.
    pub async fn report_last(&self, until: Instant) {
        self.unreported.report_last(&self.store, until).await;
    }
}

impl cronvec_call::Worker for Worker {
    const KIND: WorkerKind = WorkerKind::Ingestion;
    type Report = Report;

    fn new(store: Arc<Store>, settings: Settings, _secrets: Secrets) -> Self {
        Self {
            store,
            settings,
            stop: Stop::default(),
            unreported: Unreported::default(),
        }
    }

    fn store(&self) -> &Store {
        &self.store
    }

    fn ending(&self) -> &Stop {
        &self.stop
    }

    async fn pass(&self, options: CallOptions, deadline: Instant) -> Result<Report, StoreError> {
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
    }
}
