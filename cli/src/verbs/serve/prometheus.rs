//! `/metrics` in Prometheus' text format. Numbers only: no project's name, no text, no address.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

use cronvec_nouns::histogram::Histogram;
use cronvec_store::StoreError;
use cronvec_store::figures::CAP;
use cronvec_store::quarantine::{COUNTED, QuarantineFilter};

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
        Ok(()) => page.gauge("cronvec_database_up", "Whether the database answers.", &[("", 1.0)]),
        Err(error) => {
            tracing::warn!(error = %error, "the database's numbers can't be had");
            page = Page::default();
            page.gauge("cronvec_database_up", "Whether the database answers.", &[("", 0.0)]);
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
    page.gauge(
        "cronvec_jobs",
        &format!("Jobs by status, counted up to {CAP}."),
        &[
            ("status=\"pending\"", counts.pending as f64),
            ("status=\"processing\"", counts.processing as f64),
            ("status=\"completed\"", counts.completed as f64),
            ("status=\"failed\"", counts.failed as f64),
        ],
    );
    let oldest = stats.oldest_pending_job.map_or(0.0, |oldest| oldest.age_minutes * 60.0);
    page.gauge(
        "cronvec_oldest_pending_seconds",
        "Since the oldest job that waits could be claimed.",
        &[("", oldest)],
    );
    let pending = store.count_pending(None).await?;
    page.gauge(
        "cronvec_pending_records",
        &format!("Records that wait to be embedded, counted up to {CAP}."),
        &[("", pending.min(CAP) as f64)],
    );
    let aside = store.count_quarantined(&QuarantineFilter::default()).await?;
    page.gauge(
        "cronvec_quarantined_records",
        &format!("Quarantined records, counted up to {COUNTED}."),
        &[("", aside as f64)],
    );
    let reasons = labelled("reason", store.quarantine_by_reason().await?);
    page.gauge(
        "cronvec_quarantined_records_by_reason",
        &format!("The same by reason, all together counted up to {COUNTED}."),
        &borrowed(&reasons),
    );
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
    page.gauge(
        "cronvec_record_attempts_ratio",
        "Of the attempts at records in the last hour, those that ended so, anywhere. None: there was no attempt.",
        &shares,
    );
    let pauses = store.pauses(None).await?;
    let open = pauses.iter().filter(|pause| pause.circuit).count();
    page.gauge(
        "cronvec_endpoints_paused",
        "Providers' endpoints that nobody asks now.",
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
    page.gauge(
        "cronvec_worker_last_seen_seconds",
        "Since a worker was last seen, anywhere.",
        &seen,
    );
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
    let counters: [(&str, &str, Read); 3] = [
        ("cronvec_passes_total", "Passes of this process.", |of| {
            of.passes.load(Ordering::Relaxed)
        }),
        ("cronvec_passes_failed_total", "Of these, those that failed.", |of| {
            of.failed.load(Ordering::Relaxed)
        }),
        (
            "cronvec_records_total",
            "Records that this process stored, embedded, or rows that it deleted.",
            |of| of.records.load(Ordering::Relaxed),
        ),
    ];
    for (name, help, read) in counters {
        let values: Vec<(&str, f64)> = all.iter().map(|(labels, of)| (*labels, read(of) as f64)).collect();
        page.family("counter", name, help, &values);
    }
    of_embedding(&workers.totals.read(), page);
    page.family(
        "counter",
        "cronvec_rejected_records_total",
        "Records that this process was handed in and could not store.",
        &[("", workers.ingested.rejected.load(Ordering::Relaxed) as f64)],
    );
}

/// What this process has embedded.
#[allow(clippy::cast_precision_loss, reason = "numbers for charts")]
fn of_embedding(sums: &Sums, page: &mut Page) {
    page.family(
        "counter",
        "cronvec_record_attempts_total",
        "Attempts at records by how they ended, of this process.",
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
    page.family(
        "counter",
        "cronvec_records_quarantined_total",
        "Records that this process quarantined, by reason.",
        &borrowed(&reasons),
    );
    for (name, help, value) in [
        (
            "cronvec_provider_requests_total",
            "Requests to providers, of this process.",
            sums.requests,
        ),
        (
            "cronvec_provider_rate_limited_total",
            "Of these, those that were answered with 429.",
            sums.rate_limited,
        ),
        (
            "cronvec_provider_tokens_total",
            "Tokens as providers count them, of this process.",
            sums.tokens,
        ),
    ] {
        page.family("counter", name, help, &[("", value as f64)]);
    }
    page.histogram(
        "cronvec_provider_request_duration_seconds",
        "How long requests to providers took, of this process.",
        &sums.durations,
        REQUEST_STEPS,
    );
    page.histogram(
        "cronvec_record_embedding_delay_seconds",
        "From the acceptance of a record's text until it was embedded, of this process.",
        &sums.delays,
        DELAY_STEPS,
    );
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
    fn gauge(&mut self, name: &str, help: &str, values: &[(&str, f64)]) {
        self.family("gauge", name, help, values);
    }

    /// Its buckets are the powers of two that `steps` names, in ms: counts there are exact.
    #[allow(clippy::cast_precision_loss, reason = "powers of two, and counts for charts")]
    fn histogram(&mut self, name: &str, help: &str, of: &Histogram, steps: RangeInclusive<u32>) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} histogram");
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

    /// Writing to a string can't fail.
    fn family(&mut self, kind: &str, name: &str, help: &str, values: &[(&str, f64)]) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
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
