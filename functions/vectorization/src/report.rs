//! What a pass says it did: the JSON answer, the log line, the metrics and what the tests assert on.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use cronvec_nouns::histogram::Histogram;
use cronvec_pipeline::{OfProject, Tally};
use serde::Serialize;

/// Why a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoppedBecause {
    /// Nothing was left that this worker could take.
    Drained,
    /// Its time was over.
    Deadline,
    /// `maxRecords` was reached.
    Limit,
    /// What is left belongs to projects or endpoints that rest.
    Paused,
    /// `SEMANTIC_SEARCH_ENABLED=false`.
    Disabled,
    /// The provider failed in this pass.
    Provider,
    /// It was told to stop.
    Terminated,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Jobs.
    pub processed: u64,
    /// Records whose vectors are complete now.
    pub records: u64,
    /// Records charged with an attempt.
    pub failed: u64,
    /// Records that stand aside now: of these, and complete ones whose row refuses its vector.
    pub quarantined: u64,
    /// Whether due work is left.
    pub remaining: bool,
    pub stopped_because: StoppedBecause,
    pub chunks: u64,
    /// Chunks whose text the space held already.
    pub reused: u64,
    /// Deleted records whose vectors are gone now.
    pub purged: u64,
    /// Answers that weren't stored, because the text had changed or its row was somebody's.
    pub passed_over: u64,
    pub requests: u64,
    /// As the provider counts them.
    pub tokens: u64,
    pub lost_leases: u64,
    /// Slices that were read.
    pub slices: u64,
    /// Jobs that had lost a worker before.
    pub rescued: u64,
    /// Requests that were answered with 429.
    pub rate_limited: u64,
    /// Requests by how long they took: the upper bounds in ms, and how many.
    #[serde(rename = "requestMs", serialize_with = "buckets")]
    pub durations: Histogram,
    /// The rest is for the metrics alone. How long records waited from their acceptance until they were embedded.
    #[serde(skip)]
    pub delays: Histogram,
    /// What became of the records, by project.
    #[serde(skip)]
    pub projects: BTreeMap<String, OfProject>,
    /// Records set aside, by reason.
    #[serde(skip)]
    pub reasons: BTreeMap<&'static str, u64>,
}

fn buckets<S: serde::Serializer>(histogram: &Histogram, serializer: S) -> Result<S::Ok, S::Error> {
    histogram.buckets.serialize(serializer)
}

impl Report {
    pub(crate) fn disabled() -> Self {
        Self::of(&Tally::default(), 0, false, StoppedBecause::Disabled)
    }

    pub(crate) fn of(tally: &Tally, processed: u64, remaining: bool, stopped_because: StoppedBecause) -> Self {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            processed,
            records: read(&tally.records),
            failed: read(&tally.failed),
            quarantined: read(&tally.quarantined),
            remaining,
            stopped_because,
            chunks: read(&tally.chunks),
            reused: read(&tally.reused),
            purged: read(&tally.purged),
            passed_over: read(&tally.passed_over),
            requests: read(&tally.requests),
            tokens: read(&tally.tokens),
            lost_leases: read(&tally.lost_leases),
            slices: read(&tally.slices),
            rescued: read(&tally.rescued),
            rate_limited: read(&tally.rate_limited),
            durations: tally.durations(),
            delays: tally.delays(),
            projects: tally.by_project(),
            reasons: tally.by_reason(),
        }
    }
}
