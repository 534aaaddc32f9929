//! `/metrics` in Prometheus' text format. Numbers only: no project's name, no text, no address.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

use cronvec_nouns::histogram::Histogram;
use cronvec_nouns::metric::{self, Metric};
use cronvec_store::StoreError;
use cronvec_store::figures::CAP;
use cronvec_store::quarantine::QuarantineFilter;

use super::schedule::{Counters, Workers};
use super::totals::Sums;

/// Of rates.
const LATELY_MINUTES: i32 = 60;
/// Powers of two, in ms: 4 ms to 131 s, and 16 ms to 4.7 hours.
const REQUEST_STEPS: RangeInclusive<u32> = 2..=17;
const DELAY_STEPS: RangeInclusive<u32> = 4..=24;

/// What can be told; without a database what the process itself has counted.
pub(super) async fn text(workers: &Workers) -> String {
    let mut page = Page::default();
    match of_the_database(workers, &mut page).await {
        Ok(()) => page.show(metric::DATABASE_UP, &[("", 1.0)]),
        Err(error) => {
            tracing::warn!(error = %error, "the database's numbers can't be had");
            page = Page::default();
            page.show(metric::DATABASE_UP, &[("", 0.0)]);
        }
    }
    of_the_process(workers, &mut page);
    page.0
}

#[allow(clippy::cast_precision_loss, reason = "numbers for charts")]
async fn of_the_database(workers: &Workers, page: &mut Page) -> Result<(), StoreError> {
    let store = &workers.store;
    let stats = store.queue_stats().await?;
    let counts = stats.queue_stats;
    page.show(
        metric::JOBS,
        &[
            ("status=\"pending\"", counts.pending as f64),
            ("status=\"processing\"", counts.processing as f64),
            ("status=\"completed\"", counts.completed as f64),
            ("status=\"failed\"", counts.failed as f64),
        ],
    );
    let oldest = stats.oldest_pending_job.map_or(0.0, |oldest| oldest.age_minutes * 60.0);
    page.show(metric::OLDEST_PENDING, &[("", oldest)]);
    let pending = store.count_pending(None).await?;
    page.show(metric::PENDING_RECORDS, &[("", pending.min(CAP) as f64)]);
    let aside = store.count_quarantined(&QuarantineFilter::default()).await?;
    page.show(metric::QUARANTINED_RECORDS, &[("", aside as f64)]);
    let reasons = labelled("reason", store.quarantine_by_reason().await?);
    page.show(metric::QUARANTINED_BY_REASON, &borrowed(&reasons));
    let figures = store.record_figures(None, LATELY_MINUTES).await?;
    let shares = [
        ("outcome=\"embedded\"", figures.share(figures.embedded)),
        ("outcome=\"retried\"", figures.share(figures.retried)),
        ("outcome=\"quarantined\"", figures.share(figures.quarantined)),
    ];
    let shares: Vec<(&str, f64)> = shares
        .into_iter()
        .filter_map(|(of, share)| Some((of, share?)))
        .collect();
    page.show(metric::RECORD_ATTEMPTS_RATIO, &shares);
    let pauses = store.pauses(None).await?;
    let open = pauses.iter().filter(|pause| pause.circuit).count();
    page.show(
        metric::ENDPOINTS_PAUSED,
        &[
            ("circuit=\"true\"", open as f64),
            ("circuit=\"false\"", (pauses.len() - open) as f64),
        ],
    );
    let now = store.seconds_of_clock().await?;
    let seen: Vec<(String, f64)> = store
        .worker_statuses()
        .await?
        .iter()
        .map(|worker| {
            let ago = now - worker.last_seen_at.unix_timestamp() as f64;
            (format!("worker=\"{}\"", escaped(&worker.name)), ago.max(0.0))
        })
        .collect();
    let seen: Vec<(&str, f64)> = seen.iter().map(|(labels, ago)| (labels.as_str(), *ago)).collect();
    page.show(metric::WORKER_LAST_SEEN, &seen);
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "numbers for charts")]
fn of_the_process(workers: &Workers, page: &mut Page) {
    let all = [
        ("worker=\"ingestion\"", &workers.ingested),
        ("worker=\"vectorization\"", &workers.vectorized),
        ("worker=\"cleanup\"", &workers.cleaned),
    ];
    type Read = fn(&Counters) -> u64;
    let counters: [(Metric, Read); 3] = [
        (metric::PASSES, |of| of.passes.load(Ordering::Relaxed)),
        (metric::PASSES_FAILED, |of| of.failed.load(Ordering::Relaxed)),
        (metric::RECORDS, |of| of.records.load(Ordering::Relaxed)),
    ];
    for (metric, read) in counters {
        let values: Vec<(&str, f64)> = all.iter().map(|(labels, of)| (*labels, read(of) as f64)).collect();
        page.show(metric, &values);
    }
    of_embedding(&workers.totals.read(), page);
    page.show(
        metric::REJECTED,
        &[("", workers.ingested.rejected.load(Ordering::Relaxed) as f64)],
    );
}

/// What this process has embedded.
#[allow(clippy::cast_precision_loss, reason = "numbers for charts")]
fn of_embedding(sums: &Sums, page: &mut Page) {
    page.show(
        metric::RECORD_ATTEMPTS,
        &[
            ("outcome=\"embedded\"", sums.embedded as f64),
            ("outcome=\"retried\"", sums.retried as f64),
            ("outcome=\"quarantined\"", sums.quarantined as f64),
        ],
    );
    let reasons = sums.reasons.iter();
    let reasons = labelled(
        "reason",
        reasons.map(|(reason, records)| ((*reason).to_owned(), *records as f64)),
    );
    page.show(metric::QUARANTINED, &borrowed(&reasons));
    for (metric, value) in [
        (metric::REQUESTS, sums.requests),
        (metric::RATE_LIMITED, sums.rate_limited),
        (metric::TOKENS, sums.tokens),
    ] {
        page.show(metric, &[("", value as f64)]);
    }
    page.histogram(metric::REQUEST_DURATION, &sums.durations, REQUEST_STEPS);
    page.histogram(metric::RECORD_DELAY, &sums.delays, DELAY_STEPS);
}

fn labelled(name: &str, values: impl IntoIterator<Item = (String, f64)>) -> Vec<(String, f64)> {
    let values = values.into_iter();
    values
        .map(|(label, value)| (format!("{name}=\"{}\"", escaped(&label)), value))
        .collect()
}

fn borrowed(values: &[(String, f64)]) -> Vec<(&str, f64)> {
    values.iter().map(|(labels, value)| (labels.as_str(), *value)).collect()
}

#[derive(Default)]
struct Page(String);

impl Page {
    /// Says what comes, and gives its name. Writing to a string can't fail.
    fn head(&mut self, metric: Metric) -> &'static str {
        let (name, kind) = (metric.prometheus, metric.kind.as_str());
        let _ = writeln!(self.0, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
        name
    }

    /// Its buckets are the powers of two that `steps` names, in ms: counts there are exact.
    #[allow(clippy::cast_precision_loss, reason = "powers of two, and counts for charts")]
    fn histogram(&mut self, metric: Metric, of: &Histogram, steps: RangeInclusive<u32>) {
        let name = self.head(metric);
        for ms in steps.map(|step| 1_u64 << step) {
            let _ = writeln!(
                self.0,
                "{name}_bucket{{le=\"{}\"}} {}",
                ms as f64 / 1000.0,
                of.up_to(ms)
            );
        }
        let _ = writeln!(self.0, "{name}_bucket{{le=\"+Inf\"}} {}", of.count());
        let _ = writeln!(
            self.0,
            "{name}_sum {}\n{name}_count {}",
            of.sum.as_secs_f64(),
            of.count()
        );
    }

    fn show(&mut self, metric: Metric, values: &[(&str, f64)]) {
        let name = self.head(metric);
        for (labels, value) in values {
            let _ = match labels.is_empty() {
                true => writeln!(self.0, "{name} {value}"),
                false => writeln!(self.0, "{name}{{{labels}}} {value}"),
            };
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use cronvec_store::quarantine::COUNTED;

    use super::*;

    #[test]
    fn help_lines_name_the_bounds_that_the_store_counts_up_to() {
        for (metric, bound) in [
            (metric::JOBS, CAP),
            (metric::PENDING_RECORDS, CAP),
            (metric::QUARANTINED_RECORDS, COUNTED),
            (metric::QUARANTINED_BY_REASON, COUNTED),
        ] {
            assert!(metric.help.ends_with(&format!(" counted up to {bound}.")), "{metric:?}");
        }
    }
}
