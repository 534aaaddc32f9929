//! `/metrics` in Prometheus' text format. Numbers only: no project's name, no text, no address.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use shared::store::StoreError;
use shared::store::figures::CAP;
use shared::store::quarantine::QuarantineFilter;

use super::schedule::{Counters, Workers};

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
        &format!("Records that wait to be embedded, counted up to {}.", CAP + 1),
        &[("", pending as f64)],
    );
    let aside = store.count_quarantined(&QuarantineFilter::default()).await?;
    page.gauge(
        "cronvec_quarantined_records",
        "Records that stand aside.",
        &[("", aside as f64)],
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
    page.family(
        "counter",
        "cronvec_rejected_records_total",
        "Records that this process was handed in and could not store.",
        &[("", workers.ingested.rejected.load(Ordering::Relaxed) as f64)],
    );
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, values: &[(&str, f64)]) {
        self.family("gauge", name, help, values);
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
