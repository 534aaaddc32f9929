//! The worker `ingestion`: claims INGEST_DATA jobs and stores their records, set-wise, a batch a transaction.

mod job;
mod lines;
mod pass;
mod report;
mod suspects;

use std::sync::Arc;
use std::time::Instant;

use cronvec_call::{CallOptions, Work, WorkerKind};
use cronvec_invocation::{Clock, Leases};
use cronvec_store::StoreError;

pub use report::{Report, StoppedBecause};

/// Makes passes over the INGEST_DATA jobs.
pub struct Ingestion;

pub type Worker = cronvec_call::Worker<Ingestion>;

impl Work for Ingestion {
    const KIND: WorkerKind = WorkerKind::Ingestion;
    type Report = Report;

    async fn pass(worker: &Worker, options: CallOptions, deadline: Instant) -> Result<Report, StoreError> {
        let project_id = match &options.project {
            Some(name) => Some(worker.store.project(name).await?.id),
            None => None,
        };
        let pass = pass::Pass {
            store: Arc::clone(&worker.store),
            leases: Leases::new(Arc::clone(&worker.store), worker.unreported.clone()),
            clock: Clock::until(deadline),
            stop: worker.stop.clone(),
            project_id,
            slots: worker.settings.queue.ingest_jobs,
            batch_size: worker.settings.queue.ingest_batch_size,
            max_content_bytes: worker.settings.max_content_bytes,
            max_records: options.max_records,
            company: tokio::sync::RwLock::default(),
        };
        pass.run().await
    }
}
