//! `cleanup`

use anyhow::Result;

use super::{left_as_it_is, ready};
use crate::Context;
use crate::exit::Ended;
use crate::output::count;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Finished jobs older than this go [default: EMBEDDING_CLEANUP_RETENTION_DAYS]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=36_500))]
    days: Option<u32>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    let days = args.days.unwrap_or(app.settings().retention.job_days);
    let question = format!("Delete finished jobs older than {days} days, with what failed among them?");
    if !context.confirm(&question)? {
        return left_as_it_is(context);
    }
    let report = app.cleanup(days, &context.interrupt).await?;
    let said = format!("{} finished jobs older than {days} days deleted", report.processed);
    app.audit("queue", &said, &[], None).await;
    context.output.show(&report, || {
        let more = if report.remaining { "; more is left" } else { "" };
        format!(
            "{} jobs deleted, {} rows in all{more}",
            count(report.processed),
            count(report.deleted_count)
        )
    })?;
    Ok(Ended::Well)
}
