//! `tick ingestion|vectorization|cleanup`

use anyhow::Result;

use super::ready;
use crate::Context;
use cronvec_call::CallOptions;

use crate::app::Worker;
use crate::exit::Ended;
use crate::output::count;
use crate::shapes::TickReport;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    worker: Worker,
    /// Only this project's jobs
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Stop after so many records
    #[arg(long, value_name = "N")]
    max_records: Option<u64>,
    /// Stop after so many seconds
    #[arg(long, value_name = "N")]
    max_seconds: Option<f64>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let options = CallOptions {
        project: args.project,
        max_records: args.max_records,
        max_seconds: args.max_seconds,
        ..CallOptions::default()
    };
    let report = ready().await?.tick(args.worker, &options, &context.interrupt).await?;
    context.output.show(&report, || in_words(&report))?;
    Ok(if report.success { Ended::Well } else { Ended::Unhealthy })
}

fn in_words(report: &TickReport) -> String {
    let mut parts = vec![format!(
        "{} jobs in {} ms",
        count(report.processed),
        count(report.duration)
    )];
    parts.extend(report.records.map(|records| format!("{} records", count(records))));
    parts.extend(
        report
            .failed
            .filter(|failed| *failed > 0)
            .map(|failed| format!("{} failed", count(failed))),
    );
    parts.extend(report.stopped_because.as_ref().map(|why| format!("stopped: {why}")));
    parts.extend(
        report
            .remaining
            .filter(|remaining| *remaining)
            .map(|_| "more is left".to_owned()),
    );
    parts.extend(report.more.iter().map(|(name, value)| format!("{name}: {value}")));
    parts.join(", ")
}
