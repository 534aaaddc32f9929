//! The worker `vectorization`: claims VECTORIZE jobs and takes them through the pipeline, slice after slice, for as
//! long as the invocation has time.

mod finishing;
mod pass;
mod report;
mod seen;
mod spare;
mod suspects;

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cronvec_call::{CallOptions, Work, WorkerKind};
use cronvec_invocation::Clock;
use cronvec_nouns::histogram::Histogram;
use cronvec_nouns::metric;
use cronvec_pipeline::{Bounds, Invocation, ServedSpaces};
use cronvec_store::StoreError;
use cronvec_store::workers::{Metric, tell_until};

pub use report::{Report, StoppedBecause};

/// Makes passes over what is pending.
pub struct Vectorization;

pub type Worker = cronvec_call::Worker<Vectorization>;

impl Work for Vectorization {
    const KIND: WorkerKind = WorkerKind::Vectorization;
    type Report = Report;

    async fn pass(worker: &Worker, options: CallOptions, deadline: Instant) -> Result<Report, StoreError> {
        let began = Instant::now();
        let report = work(worker, &options, deadline).await?;
        if report.processed > 0 {
            let mut buckets = buckets(metric::REQUEST_DURATION, &report.durations);
            buckets.extend(self::buckets(metric::RECORD_DELAY, &report.delays));
            let mut numbers = metrics(&report, began.elapsed()).to_vec();
            numbers.extend(of_projects(&report));
            numbers.extend(buckets.iter().map(|(name, value)| Metric {
                metric: name,
                value: *value,
                project: None,
            }));
            tell_until(deadline, worker.store.record_metrics(&numbers)).await;
        }
        Ok(report)
    }
}

async fn work(worker: &Worker, options: &CallOptions, deadline: Instant) -> Result<Report, StoreError> {
    if !worker.settings.embedding.search_enabled {
        return Ok(Report::disabled());
    }
    let project_id = match &options.project {
        Some(name) => Some(worker.store.project(name).await?.id),
        None => None,
    };
    let embedding = &worker.settings.embedding;
    let served = ServedSpaces::load(&worker.store, embedding, &worker.secrets).await?;
    let invocation = Arc::new(Invocation::new(
        Arc::clone(&worker.store),
        Clock::until(deadline),
        Bounds {
            batch_size: embedding.batch_size,
            concurrent_requests: embedding.concurrent_requests,
            request_timeout: embedding.request_timeout,
            records_per_slice: worker.settings.queue.records_per_slice,
            max_content_bytes: worker.settings.max_content_bytes,
        },
        worker.stop.clone(),
        worker.unreported.clone(),
    ));
    pass::Pass {
        invocation,
        served,
        project_id,
        slots: worker.settings.queue.vectorize_jobs,
        max_records: options.max_records,
        max_attempts: embedding.max_attempts,
        backoff_ms: i32::try_from(embedding.backoff_base.as_millis()).unwrap_or(i32::MAX),
        company: Arc::default(),
        alone_wanted: AtomicBool::default(),
        had_their_turn: Mutex::default(),
        reading: AtomicUsize::default(),
    }
    .run()
    .await
}

#[allow(clippy::cast_precision_loss, reason = "numbers for charts")]
fn metrics(report: &Report, took: Duration) -> [Metric<'static>; 5] {
    [
        (metric::REQUESTS, report.requests as f64),
        (metric::RATE_LIMITED, report.rate_limited as f64),
        (metric::TOKENS, report.tokens as f64),
        (metric::LOST_LEASES, report.lost_leases as f64),
        (metric::PASS_DURATION, took.as_secs_f64() * 1000.0),
    ]
    .map(|(of, value)| Metric {
        metric: of.table,
        value,
        project: None,
    })
}

/// What became of the records of each project; one in which nothing moved has no number.
#[allow(clippy::cast_precision_loss, reason = "numbers for charts")]
fn of_projects(report: &Report) -> impl Iterator<Item = Metric<'_>> {
    report.projects.iter().flat_map(|(project, of)| {
        let has_moved = of.embedded + of.failed() > 0;
        let worked = if has_moved { of.worked } else { Duration::ZERO };
        [
            (metric::RECORDS, of.embedded as f64),
            (metric::FAILED, of.failed() as f64),
            (metric::QUARANTINED, of.quarantined as f64),
            (metric::EMBEDDING_DURATION, worked.as_secs_f64() * 1000.0),
        ]
        .into_iter()
        .filter(|(_, value)| *value > 0.0)
        .map(|(of, value)| Metric {
            metric: of.table,
            value,
            project: Some(project),
        })
    })
}

/// A histogram, a metric a bucket.
#[allow(clippy::cast_precision_loss, reason = "numbers for charts")]
fn buckets(of: metric::Metric, histogram: &Histogram) -> Vec<(String, f64)> {
    let buckets = histogram.buckets.iter();
    buckets
        .map(|(bound, count)| (format!("{}{bound}", of.table), *count as f64))
        .collect()
}
