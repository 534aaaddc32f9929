//! `recent`

use anyhow::Result;

use super::ready;
use super::status::jobs;
use crate::Context;
use crate::exit::Ended;
use crate::filters::Filters;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// So many of them
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    #[command(flatten)]
    filters: Filters,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    let filter = args.filters.checked(&app).await?;
    let found = app.store().jobs_of(&filter, args.limit).await?;
    context.output.list(&found, jobs)?;
    Ok(Ended::Well)
}
