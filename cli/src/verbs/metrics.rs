//! `metrics`

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};
use shared::store::figures::{JobFigures, Minute, Percentiles, percentiles};
use shared::store::quarantine::QuarantineFilter;

use super::ready;
use crate::Context;
use crate::exit::Ended;
use crate::filters::Scope;
use crate::output::{Align, Table, count};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    scope: Scope,
    /// Of the last so many minutes
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(i32).range(1..=43_200))]
    minutes: i32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metrics {
    minutes: i32,
    throughput: Vec<Minute>,
    records_per_second: Option<f64>,
    jobs: JobFigures,
    /// Completed of those that completed or failed; null when none did.
    success_rate: Option<f64>,
    /// Of the ended ones, those that failed or lost a worker before.
    retry_rate: Option<f64>,
    provider_request_ms: Option<Percentiles>,
    dead_letters: Value,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    let filter = args.scope.checked(&app).await?;
    let store = app.store();
    let jobs = store.job_figures(&filter, args.minutes).await?;
    let records = store
        .count_quarantined(&QuarantineFilter {
            project: filter.project.clone(),
            ..QuarantineFilter::default()
        })
        .await?;
    let failed: i64 = store.jobs_by_type(&filter).await?.iter().map(|of| of.failed).sum();
    let ended = jobs.completed + jobs.failed;
    let metrics = Metrics {
        minutes: args.minutes,
        throughput: store.throughput(args.minutes).await?,
        records_per_second: store.measured_rate().await?.map(|rate| (rate * 10.0).round() / 10.0),
        success_rate: share(jobs.completed, ended),
        retry_rate: share(jobs.retried, ended + jobs.cancelled),
        provider_request_ms: percentiles(&store.request_durations(args.minutes).await?),
        dead_letters: json!({"records": records, "jobs": failed}),
        jobs,
    };
    context.output.show(&metrics, || in_words(&metrics))?;
    Ok(Ended::Well)
}

#[allow(clippy::cast_precision_loss, reason = "a share of counts")]
fn share(part: i64, whole: i64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 / whole as f64 * 1e4).round() / 1e4)
}

fn in_words(metrics: &Metrics) -> String {
    let columns = [
        ("minute", Align::Left),
        ("records", Align::Right),
        ("failed", Align::Right),
        ("requests", Align::Right),
    ];
    let mut minutes = Table::new(&columns, "no pass ended in these minutes");
    for minute in &metrics.throughput {
        let whole = |number: f64| format!("{number:.0}");
        minutes.row([
            minute.minute.clone(),
            whole(minute.records),
            whole(minute.failed),
            whole(minute.requests),
        ]);
    }
    let percent = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0));
    let times = |times: Option<Percentiles>| {
        times.map_or_else(
            || "-".to_owned(),
            |at| format!("{:.0} / {:.0} / {:.0} ms", at.p50, at.p95, at.p99),
        )
    };
    format!(
        "{}\njobs       {} completed, {} failed, {} cancelled; success {}, retried {}\n\
         active     {} (p50 / p95 / p99)\nrequests   {}\nrate       {}\ndead       {} records, {} jobs",
        minutes.render(),
        count(metrics.jobs.completed),
        count(metrics.jobs.failed),
        count(metrics.jobs.cancelled),
        percent(metrics.success_rate),
        percent(metrics.retry_rate),
        times(metrics.jobs.active_ms),
        times(metrics.provider_request_ms),
        metrics
            .records_per_second
            .map_or_else(|| "-".to_owned(), |rate| format!("{rate} records a second of work")),
        metrics.dead_letters["records"],
        metrics.dead_letters["jobs"],
    )
}
