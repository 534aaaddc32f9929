//! Owns the settings of the workers: slices, jobs held, pace. Refuses to know what a job does.

use std::time::Duration;

use super::reader::Reader;

/// How much a worker takes on, and when.
#[derive(Clone, Debug)]
pub struct Queue {
    /// `VECTORIZE_RECORDS_PER_SLICE`
    pub records_per_slice: usize,
    /// `VECTORIZE_JOBS_PER_INVOCATION`
    pub vectorize_jobs: usize,
    /// `INGEST_JOBS_PER_INVOCATION`
    pub ingest_jobs: usize,
    /// `VECTORIZE_LANES_PER_PROJECT`, of new projects
    pub lanes_per_project: i16,
    /// `INGEST_BATCH_SIZE`
    pub ingest_batch_size: usize,
    /// `EMBEDDING_WORKER_TIMEOUT`
    pub worker_timeout: Duration,
    /// `EMBEDDING_WORKER_INTERVAL`
    pub worker_interval: Duration,
    /// `EMBEDDING_CONCURRENT_WORKERS`
    pub concurrent_workers: usize,
}

impl Queue {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let day_ms = 86_400_000;
        Self {
            records_per_slice: reader.number("VECTORIZE_RECORDS_PER_SLICE", 250, 1..=10_000),
            vectorize_jobs: reader.number("VECTORIZE_JOBS_PER_INVOCATION", 2, 1..=64),
            ingest_jobs: reader.number("INGEST_JOBS_PER_INVOCATION", 3, 1..=64),
            // A record's bucket is its hash mod 64: more lanes would be empty ones.
            lanes_per_project: reader.number("VECTORIZE_LANES_PER_PROJECT", 1, 1..=64),
            ingest_batch_size: reader.number("INGEST_BATCH_SIZE", 100, 1..=10_000),
            worker_timeout: Duration::from_millis(reader.number("EMBEDDING_WORKER_TIMEOUT", 60_000, 1_000..=day_ms)),
            worker_interval: Duration::from_millis(reader.number("EMBEDDING_WORKER_INTERVAL", 5_000, 100..=day_ms)),
            concurrent_workers: reader.number("EMBEDDING_CONCURRENT_WORKERS", 1, 1..=64),
        }
    }

    pub(super) fn describe(&self, rows: &mut Vec<(&'static str, String)>) {
        rows.extend([
            ("VECTORIZE_RECORDS_PER_SLICE", self.records_per_slice.to_string()),
            ("VECTORIZE_JOBS_PER_INVOCATION", self.vectorize_jobs.to_string()),
            ("INGEST_JOBS_PER_INVOCATION", self.ingest_jobs.to_string()),
            ("VECTORIZE_LANES_PER_PROJECT", self.lanes_per_project.to_string()),
            ("INGEST_BATCH_SIZE", self.ingest_batch_size.to_string()),
            ("EMBEDDING_WORKER_TIMEOUT", self.worker_timeout.as_millis().to_string()),
            (
                "EMBEDDING_WORKER_INTERVAL",
                self.worker_interval.as_millis().to_string(),
            ),
            ("EMBEDDING_CONCURRENT_WORKERS", self.concurrent_workers.to_string()),
        ]);
    }
}
