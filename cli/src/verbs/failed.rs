//! `failed`

use anyhow::Result;
use cronvec_nouns::job::JobStatus;
use cronvec_store::quarantine::QuarantineFilter;
use cronvec_store::selection::{FailedGroup, JobFilter};

use super::job_table::jobs;
use super::{ready, recent};
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
    if !args.details {
        let found = match &context.remote {
            Some(remote) => recent::of_deployment(remote, Some(JobStatus::Failed), &args.scope, args.limit).await?,
            None => {
                let app = ready().await?;
                let failed = JobFilter {
                    status: Some(JobStatus::Failed),
                    ..args.scope.checked(&app).await?
                };
                app.store().jobs_of(&failed, args.limit).await?
            }
        };
        context.output.list(&found, jobs)?;
        return Ok(Ended::Well);
    }
    let groups = match &context.remote {
        Some(remote) => remote.get("api/admin/failures/details", &args.scope.query()).await?,
        None => groups(args.scope).await?,
    };
    context.output.list(&groups, table)?;
    Ok(Ended::Well)
}

async fn groups(scope: Scope) -> Result<Vec<FailedGroup>> {
    let app = ready().await?;
    let filter = scope.checked(&app).await?;
    let mut groups = app.store().failed_jobs_by_reason(&filter).await?;
    let aside = QuarantineFilter {
        project: filter.project,
        ..QuarantineFilter::default()
    };
    groups.extend(app.store().quarantined_by_reason(&aside).await?);
    Ok(groups)
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
