//! `recent`

use anyhow::Result;
use cronvec_nouns::job::JobStatus;
use cronvec_store::jobs::JobView;
use serde::Deserialize;

use super::job_table::jobs;
use super::ready;
use crate::Context;
use crate::exit::Ended;
use crate::filters::{Filters, Scope};
use crate::remote::Remote;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// So many of them
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    #[command(flatten)]
    filters: Filters,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let found = match &context.remote {
        Some(remote) => of_deployment(remote, args.filters.status, &args.filters.scope, args.limit).await?,
        None => {
            let app = ready().await?;
            let filter = args.filters.checked(&app).await?;
            app.store().jobs_of(&filter, args.limit).await?
        }
    };
    context.output.list(&found, jobs)?;
    Ok(Ended::Well)
}

/// A page has at most so many.
const PAGE: i64 = 200;

#[derive(Deserialize)]
struct Page {
    jobs: Vec<JobView>,
    next: Option<String>,
}

/// A deployment's latest jobs, page by page.
pub(super) async fn of_deployment(
    remote: &Remote,
    status: Option<JobStatus>,
    scope: &Scope,
    limit: i64,
) -> Result<Vec<JobView>> {
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let limit = limit.clamp(1, PAGE).to_string();
    let mut found = Vec::new();
    let mut before: Option<String> = None;
    loop {
        let mut query = scope.query();
        query.extend(status.map(|status| ("status", status.as_str())));
        query.extend(before.as_deref().map(|before| ("before", before)));
        query.push(("limit", &limit));
        let page: Page = remote.get("api/admin/jobs", &query).await?;
        found.extend(page.jobs);
        before = page.next;
        if before.is_none() || found.len() >= wanted {
            found.truncate(wanted);
            return Ok(found);
        }
    }
}
