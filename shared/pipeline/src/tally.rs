//! Owns what an invocation counts while it works: one line of its report, and the numbers that are kept. Refuses to judge
//! them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cronvec_nouns::histogram::Histogram;
use cronvec_store::charges::Outcome;

/// What an invocation did, counted as it does it.
#[derive(Debug, Default)]
pub struct Tally {
    /// Records whose vectors are complete.
    pub records: AtomicU64,
    pub chunks: AtomicU64,
    /// Chunks whose text the space held already.
    pub reused: AtomicU64,
    pub requests: AtomicU64,
    pub tokens: AtomicU64,
    /// Records charged with an attempt, those in quarantine among them.
    pub failed: AtomicU64,
    pub quarantined: AtomicU64,
    pub purged: AtomicU64,
    pub passed_over: AtomicU64,
    pub lost_leases: AtomicU64,
    /// Slices that were read.
    pub slices: AtomicU64,
    /// Jobs that had lost a worker before.
    pub rescued: AtomicU64,
    /// Requests that were answered with 429.
    pub rate_limited: AtomicU64,
    projects: Mutex<BTreeMap<String, OfProject>>,
    /// Records set aside, by reason.
    reasons: Mutex<BTreeMap<&'static str, u64>>,
    /// How long requests took.
    durations: Mutex<Histogram>,
    /// How long records waited from their acceptance until they were embedded.
    delays: Mutex<Histogram>,
}

/// What became of a project's records: of each attempt at one, one of three things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfProject {
    pub embedded: u64,
    /// Failed, and to be tried again.
    pub retried: u64,
    pub quarantined: u64,
    /// How long its jobs were worked on, those of several lanes added up.
    pub worked: Duration,
}

impl OfProject {
    pub fn failed(&self) -> u64 {
        self.retried + self.quarantined
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under the lock can panic half-way.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    pub fn durations(&self) -> Histogram {
        lock(&self.durations).clone()
    }

    pub fn delays(&self) -> Histogram {
        lock(&self.delays).clone()
    }

    pub fn by_project(&self) -> BTreeMap<String, OfProject> {
        lock(&self.projects).clone()
    }

    pub fn by_reason(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.reasons).clone()
    }

    pub(super) fn note_embedded(&self, project: &str, embedded: u64, since: &[Instant]) {
        if embedded == 0 {
            return;
        }
        Self::add(&self.records, embedded);
        self.note(project, |of| of.embedded += embedded);
        let (now, mut delays) = (Instant::now(), lock(&self.delays));
        since.iter().for_each(|since| delays.note(now.duration_since(*since)));
    }

    /// Attempts at records that failed.
    pub(super) fn note_outcomes(&self, project: &str, outcomes: &[Outcome]) {
        if outcomes.is_empty() {
            return;
        }
        let (failed, mut quarantined) = (outcomes.len() as u64, 0);
        let mut reasons = lock(&self.reasons);
        for outcome in outcomes.iter().filter(|outcome| outcome.is_final) {
            quarantined += 1;
            *reasons.entry(outcome.reason).or_default() += 1;
        }
        drop(reasons);
        Self::add(&self.failed, failed);
        Self::add(&self.quarantined, quarantined);
        self.note(project, |of| {
            of.retried += failed - quarantined;
            of.quarantined += quarantined;
        });
    }

    /// One job of the project was worked on for so long.
    pub(super) fn note_worked(&self, project: &str, took: Duration) {
        self.note(project, |of| of.worked += took);
    }

    fn note(&self, project: &str, change: impl FnOnce(&mut OfProject)) {
        let mut projects = lock(&self.projects);
        match projects.get_mut(project) {
            Some(of) => change(of),
            None => change(projects.entry(project.to_owned()).or_default()),
        }
    }

    pub(super) fn note_duration(&self, took: Duration) {
        lock(&self.durations).note(took);
    }

    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}
