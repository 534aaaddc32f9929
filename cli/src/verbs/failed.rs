//! `failed`

use anyhow::Result;
use shared::job::JobStatus;
use shared::store::quarantine::QuarantineFilter;
use shared::store::selection::{FailedGroup, JobFilter};

use super::ready;
use super::status::jobs;
use crate::Context;
use crate::exit::Ended;
use crate::filters::Scope;
use crate::output::{Align, Table, brief, count};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// By reason, jobs and records that stand aside
    #[arg(long)]
    details: bool,
    /// So many jobs, without --details
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    #[command(flatten)]
    scope: Scope,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    let filter = args.scope.checked(&app).await?;
    if !args.details {
        let failed = JobFilter {
            status: Some(JobStatus::Failed),
            ..filter
        };
        let found = app.store().jobs_of(&failed, args.limit).await?;
        context.output.list(&found, jobs)?;
        return Ok(Ended::Well);
    }
    let mut groups = app.store().failed_jobs_by_reason(&filter).await?;
    groups.extend(
        app.store()
            .quarantined_by_reason(&QuarantineFilter {
                project: filter.project.clone(),
                ..QuarantineFilter::default()
            })
            .await?,
    );
    context.output.list(&groups, table)?;
    Ok(Ended::Well)
}

fn table(groups: &[FailedGroup]) -> Table {
    let columns = [
        ("what", Align::Left),
        ("count", Align::Right),
        ("project", Align::Left),
        ("reason", Align::Left),
        ("latest", Align::Left),
        ("example", Align::Left),
    ];
    let mut table = Table::new(&columns, "nothing has failed");
    for group in groups {
        let reason = match &group.message {
            Some(message) => format!("{}: {message}", group.reason),
            None => group.reason.clone(),
        };
        table.row([
            format!("{}s", group.kind),
            count(group.count),
            brief(&group.project, 30),
            brief(&reason, 70),
            group.last_at.clone().unwrap_or_default(),
            brief(&group.example, 30),
        ]);
    }
    table
}
