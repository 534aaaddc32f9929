//! `metrics`

use anyhow::Result;
use cronvec_nouns::job::JobType;
use cronvec_nouns::metric;
use cronvec_store::figures::{JobFigures, Minute, Percentiles, RecordFigures, percentiles};
use cronvec_store::quarantine::QuarantineFilter;
use serde::Serialize;
use serde_json::{Value, json};

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
    /// What became of attempts at records.
    records: RecordFigures,
    /// Parts of these: embedded, tried again later, set aside. Null when there was none. With `--type INGEST_DATA`, whose
    /// jobs embed nothing, those of the jobs.
    success_rate: Option<f64>,
    retry_rate: Option<f64>,
    failure_rate: Option<f64>,
    /// From a record's acceptance until it was embedded.
    record_delay_ms: Option<Percentiles>,
    jobs: JobFigures,
    provider_request_ms: Option<Percentiles>,
    dead_letters: Value,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    let filter = args.scope.checked(&app).await?;
    let store = app.store();
    let jobs = store.job_figures(&filter, args.minutes).await?;
    let records = store.record_figures(filter.project.as_deref(), args.minutes).await?;
    let aside = store
        .count_quarantined(&QuarantineFilter {
            project: filter.project.clone(),
            ..QuarantineFilter::default()
        })
        .await?;
    let failed: i64 = store.jobs_by_type(&filter).await?.iter().map(|of| of.failed).sum();
    let (success_rate, retry_rate, failure_rate) = match filter.job_type {
        Some(JobType::IngestData) => of_jobs(&jobs),
        Some(JobType::Vectorize) | None => (
            records.share(records.embedded),
            records.share(records.retried),
            records.share(records.quarantined),
        ),
    };
    let metrics = Metrics {
        minutes: args.minutes,
        throughput: store.throughput(args.minutes).await?,
        records_per_second: store.measured_rate().await?.map(|rate| (rate * 10.0).round() / 10.0),
        records,
        success_rate,
        retry_rate,
        failure_rate,
        record_delay_ms: percentiles(&store.durations(metric::RECORD_DELAY, args.minutes).await?),
        provider_request_ms: percentiles(&store.durations(metric::REQUEST_DURATION, args.minutes).await?),
        dead_letters: json!({"records": aside, "jobs": failed}),
        jobs,
    };
    context.output.show(&metrics, || in_words(&metrics))?;
    Ok(Ended::Well)
}

/// Completed and failed of those that completed or failed; of all that ended, those that failed or lost a worker before.
fn of_jobs(jobs: &JobFigures) -> (Option<f64>, Option<f64>, Option<f64>) {
    let ended = jobs.completed + jobs.failed;
    (
        share(jobs.completed, ended),
        share(jobs.retried, ended + jobs.cancelled),
        share(jobs.failed, ended),
    )
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
        "{}\nrecords    {:.0} embedded, {:.0} tried again, {:.0} quarantined\n\
         rates      success {}, retry {}, failure {}\n\
         delay      {} (p50 / p95 / p99) from accepted to embedded\n\
         jobs       {} completed, {} failed, {} cancelled\n\
         active     {}\nrequests   {}\npace       {}\ndead       {} records, {} jobs",
        minutes.render(),
        metrics.records.embedded,
        metrics.records.retried,
        metrics.records.quarantined,
        percent(metrics.success_rate),
        percent(metrics.retry_rate),
        percent(metrics.failure_rate),
        times(metrics.record_delay_ms),
        count(metrics.jobs.completed),
        count(metrics.jobs.failed),
        count(metrics.jobs.cancelled),
        times(metrics.jobs.active_ms),
        times(metrics.provider_request_ms),
        metrics
            .records_per_second
            .map_or_else(|| "-".to_owned(), |rate| format!("{rate} records a second of work")),
        metrics.dead_letters["records"],
        metrics.dead_letters["jobs"],
    )
}
