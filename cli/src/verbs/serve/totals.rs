//! What this process has embedded since it began, added up pass by pass: what `/metrics` tells as counters and histograms.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cronvec_nouns::histogram::Histogram;
use vectorization::Report;

#[derive(Debug, Default)]
pub(super) struct Totals(Mutex<Sums>);

#[derive(Debug, Default)]
pub(super) struct Sums {
    /// Of attempts at records: one of these three.
    pub embedded: u64,
    pub retried: u64,
    pub quarantined: u64,
    pub reasons: BTreeMap<&'static str, u64>,
    pub requests: u64,
    pub rate_limited: u64,
    pub tokens: u64,
    pub durations: Histogram,
    pub delays: Histogram,
}

impl Totals {
    pub fn add(&self, report: &Report) {
        let mut sums = self.read();
        for of in report.projects.values() {
            sums.embedded += of.embedded;
            sums.retried += of.retried;
            sums.quarantined += of.quarantined;
        }
        for (reason, records) in &report.reasons {
            *sums.reasons.entry(reason).or_default() += records;
        }
        sums.requests += report.requests;
        sums.rate_limited += report.rate_limited;
        sums.tokens += report.tokens;
        sums.durations.add(&report.durations);
        sums.delays.add(&report.delays);
    }

    pub fn read(&self) -> MutexGuard<'_, Sums> {
        // Nothing that is done under the lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
