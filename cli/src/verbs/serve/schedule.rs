//! The workers of a long-lived process, and when they are called.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use cronvec_call::CallOptions;
use cronvec_edges::panics::caught;
use cronvec_store::{Store, StoreError};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::totals::Totals;
use crate::app::App;

/// A worker whose pass failed is called again after this at the latest.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// Of one worker, since the process began.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub passes: AtomicU64,
    pub failed: AtomicU64,
    pub records: AtomicU64,
    /// Of INGEST_DATA jobs.
    pub rejected: AtomicU64,
}

impl Counters {
    fn note(&self, records: Option<u64>) {
        self.passes.fetch_add(1, Ordering::Relaxed);
        match records {
            Some(records) => self.records.fetch_add(records, Ordering::Relaxed),
            None => self.failed.fetch_add(1, Ordering::Relaxed),
        };
    }
}

pub(super) struct Workers {
    // Dependencies.
    pub store: Arc<Store>,
    pub ingestion: ingestion::Worker,
    pub vectorization: vectorization::Worker,
    pub cleanup: cleanup::Worker,
    // Configuration.
    timeout: Duration,
    // State.
    pub ingested: Counters,
    pub vectorized: Counters,
    pub cleaned: Counters,
    pub totals: Totals,
}

impl Workers {
    pub fn new(app: &App) -> Self {
        let store = app.shared_store();
        let settings = || app.settings().clone();
        Self {
            ingestion: ingestion::Worker::new(Arc::clone(&store), settings(), app.secrets().clone()),
            vectorization: vectorization::Worker::new(Arc::clone(&store), settings(), app.secrets().clone()),
            cleanup: cleanup::Worker::new(Arc::clone(&store), settings(), app.secrets().clone()),
            store,
            timeout: app.settings().queue.worker_timeout,
            ingested: Counters::default(),
            vectorized: Counters::default(),
            cleaned: Counters::default(),
            totals: Totals::default(),
        }
    }

    pub fn stop(&self) {
        self.ingestion.stop();
        self.vectorization.stop();
        self.cleanup.stop();
    }

    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    pub async fn ingest(&self, options: CallOptions, deadline: Instant) -> Result<ingestion::Report, StoreError> {
        let outcome = self.ingestion.run(options, deadline).await;
        self.ingested.note(outcome.as_ref().ok().map(|report| report.records));
        let rejected = outcome.as_ref().map_or(0, |report| report.rejected);
        self.ingested.rejected.fetch_add(rejected, Ordering::Relaxed);
        outcome
    }

    pub async fn vectorize(
        &self,
        options: CallOptions,
        deadline: Instant,
    ) -> Result<vectorization::Report, StoreError> {
        let outcome = self.vectorization.run(options, deadline).await;
        self.vectorized.note(outcome.as_ref().ok().map(|report| report.records));
        if let Ok(report) = &outcome {
            self.totals.add(report);
        }
        outcome
    }

    pub async fn clean_up(&self, options: CallOptions, deadline: Instant) -> Result<cleanup::Report, StoreError> {
        let outcome = self.cleanup.run(options, deadline).await;
        self.cleaned
            .note(outcome.as_ref().ok().map(|report| report.deleted_count));
        outcome
    }
}

/// Calls each worker at its pace, until it is told to stop.
pub(super) fn start(
    tasks: &mut JoinSet<Result<()>>,
    app: &App,
    workers: &Arc<Workers>,
    stopping: &watch::Sender<bool>,
) {
    let (queue, retention) = (&app.settings().queue, &app.settings().retention);
    let pace = queue.worker_interval;
    let ingesting = Arc::clone(workers);
    tasks.spawn(every(pace, stopping.subscribe(), move || {
        let workers = Arc::clone(&ingesting);
        async move {
            let report = workers.ingest(CallOptions::default(), workers.deadline()).await?;
            tracing::info!(
                worker.name = "ingestion",
                records = report.records,
                jobs = report.processed,
                "pass ended"
            );
            Ok(report.stopped_because == ingestion::StoppedBecause::Deadline && report.processed > 0)
        }
    }));
    for _ in 0..queue.concurrent_workers {
        let embedding = Arc::clone(workers);
        tasks.spawn(every(pace, stopping.subscribe(), move || {
            let workers = Arc::clone(&embedding);
            async move {
                let report = workers.vectorize(CallOptions::default(), workers.deadline()).await?;
                say("vectorization", report.processed, report.records);
                Ok(report.remaining && report.records > 0)
            }
        }));
    }
    let cleaning = Arc::clone(workers);
    tasks.spawn(every(retention.interval, stopping.subscribe(), move || {
        let workers = Arc::clone(&cleaning);
        async move {
            let report = workers.clean_up(CallOptions::default(), workers.deadline()).await?;
            say("cleanup", report.processed, report.deleted_count);
            Ok(report.remaining && report.deleted_count > 0)
        }
    }));
}

/// A line for each pass that did something.
fn say(worker: &str, jobs: u64, records: u64) {
    if jobs > 0 || records > 0 {
        tracing::info!(worker.name = worker, jobs, records, "pass ended");
    }
}

/// A pass after another: at once while there is more, else at the pace. A pass that fails or panics is tried again at the pace.
async fn every<F, Fut>(pace: Duration, mut stopping: watch::Receiver<bool>, pass: F) -> Result<()>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<bool, StoreError>>,
{
    while !*stopping.borrow() {
        let pause = match caught(pass()).await {
            Ok(Ok(true)) => continue,
            Ok(Ok(false)) => pace,
            // After an outage the daily one isn't a day late.
            Ok(Err(error)) => {
                tracing::error!(error = %error, "a pass failed");
                pace.min(AFTER_FAILURE)
            }
            Err(panicked) => {
                tracing::error!(error = %panicked, "a pass failed");
                pace.min(AFTER_FAILURE)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pass_that_panics_ends_nothing_but_itself_and_its_worker_is_called_again() {
        let stopping = watch::Sender::new(false);
        let calls = AtomicU64::new(0);
        let pass = || async {
            match calls.fetch_add(1, Ordering::Relaxed) {
                0 => panic!("a bug"),
                _ => stopping.send_replace(true),
            };
            Ok(false)
        };
        every(Duration::ZERO, stopping.subscribe(), pass).await.unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }
}
