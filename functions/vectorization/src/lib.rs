//! The worker `vectorization`: claims VECTORIZE jobs and takes them through the pipeline, slice after slice, for as
//! long as the invocation has time.

mod pass;
mod report;

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use shared::call::CallOptions;
use shared::config::Settings;
use shared::pipeline::{Bounds, Clock, Invocation, ServedSpaces, Stop};
use shared::secrets::Secrets;
use shared::store::connect::DEFAULT_CONNECTIONS;
use shared::store::workers::Metric;
use shared::store::{Database, Store, StoreError};

pub use report::{Report, StoppedBecause};

/// The name under which its status is kept.
pub const NAME: &str = "vectorization";

/// Makes passes over what is pending.
pub struct Worker {
    // Dependencies.
    store: Arc<Store>,
    secrets: Secrets,
    // Configuration.
    settings: Settings,
    stop: Stop,
}

impl Worker {
    /// A worker on the database that the settings name, whose schema must be this program's.
    pub async fn connect(settings: &Settings, secrets: &Secrets) -> Result<Self, StoreError> {
        let store = Arc::new(Store::new(
            Database::open(settings, secrets, DEFAULT_CONNECTIONS).await?,
        ));
        store.check_schema().await?;
        Ok(Self::new(store, settings.clone(), secrets.clone()))
    }

    /// A worker on a store that is there already.
    pub fn new(store: Arc<Store>, settings: Settings, secrets: Secrets) -> Self {
        Self {
            store,
            secrets,
            settings,
            stop: Stop::default(),
        }
    }

    /// Asks it to begin nothing new and to part from what it holds: a pass that is on ends within two seconds.
    pub fn stop(&self) {
        self.stop.raise();
    }

    /// One pass, until the deadline at most. A failing job doesn't fail it.
    pub async fn run(&self, options: CallOptions, deadline: Instant) -> Result<Report, StoreError> {
        let began = Instant::now();
        self.store.database().check().await?;
        self.store.worker_started(NAME).await?;
        let outcome = self.pass(&options, deadline).await;
        let duration_ms = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.leave(&outcome, duration_ms, deadline).await;
        outcome
    }

    /// Its status and its numbers. What can't be told in time is no reason to fail a pass that is done.
    async fn leave(&self, outcome: &Result<Report, StoreError>, duration_ms: i64, deadline: Instant) {
        let told = match outcome {
            Ok(report) => json!(report),
            Err(error) => json!({ "error": error.to_string() }),
        };
        let telling = async {
            self.store.worker_finished(NAME, duration_ms, &told).await?;
            match outcome {
                Ok(report) if report.processed > 0 => self.store.record_metrics(&metrics(report, duration_ms)).await,
                _ => Ok(()),
            }
        };
        match tokio::time::timeout_at(deadline.into(), telling).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %error, "the worker's status could not be written"),
            Err(_) => tracing::warn!("no time was left for the worker's status"),
        }
    }

    async fn pass(&self, options: &CallOptions, deadline: Instant) -> Result<Report, StoreError> {
        if !self.settings.embedding.search_enabled {
            return Ok(Report::disabled());
        }
        let project_id = match &options.project {
            Some(name) => Some(self.store.project(name).await?.id),
            None => None,
        };
        let embedding = &self.settings.embedding;
        let served = ServedSpaces::load(&self.store, embedding, &self.secrets).await?;
        let invocation = Arc::new(Invocation::new(
            Arc::clone(&self.store),
            Clock::until(deadline),
            Bounds {
                batch_size: embedding.batch_size,
                concurrent_requests: embedding.concurrent_requests,
                records_per_slice: self.settings.queue.records_per_slice,
            },
            self.stop.clone(),
        ));
        pass::Pass {
            invocation,
            served,
            project_id,
            slots: self.settings.queue.vectorize_jobs,
            max_records: options.max_records,
            max_attempts: embedding.max_attempts,
            backoff_ms: i32::try_from(embedding.backoff_base.as_millis()).unwrap_or(i32::MAX),
        }
        .run()
        .await
    }
}

#[allow(clippy::cast_precision_loss, reason = "numbers for charts")]
fn metrics(report: &Report, duration_ms: i64) -> [Metric<'static>; 6] {
    let metric = |metric, value: u64| Metric {
        metric,
        value: value as f64,
        project: None,
    };
    [
        metric("records_embedded", report.records),
        metric("records_failed", report.failed),
        metric("records_quarantined", report.quarantined),
        metric("provider_requests", report.requests),
        metric("lost_leases", report.lost_leases),
        Metric {
            metric: "vectorization_ms",
            value: duration_ms as f64,
            project: None,
        },
    ]
}
