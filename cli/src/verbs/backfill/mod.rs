//! `backfill`, `backfill status|stop|rollback`

mod drive;
mod estimate;
mod manage;
mod remote;
mod via;

use std::time::Duration;

use anyhow::Result;

use super::{left_as_it_is, project_or_only};
use crate::Context;
use crate::app::{self, App};
use crate::exit::{Ended, usage};
use drive::Drive;
use via::Via;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// The latest backfills and how far they are
    Status(manage::Status),
    /// End one that runs, wherever; what it marked goes on being embedded by the schedule
    Stop(manage::Stop),
    /// Take back what one has marked and nobody has embedded or written since
    Rollback(manage::Rollback),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which project; may be left out while there is only one
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Say what it would do, how long it would take and what it would cost, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// How urgent its records are: low, normal, high or a number
    #[arg(long, default_value = "low", value_parser = priority, allow_hyphen_values = true)]
    priority: i32,
    /// Records that are looked at and marked at once
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    batch_size: i64,
    /// Ticks of each lane at most [default: as many as it takes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    iterations: Option<u64>,
    /// Seconds between two ticks of a lane
    #[arg(long, default_value = "0", value_parser = seconds)]
    delay: Duration,
    /// Rounds over the records at most, until none is left behind
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    passes: u32,
    /// Lanes that work at once; the project keeps them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i16).range(1..=64))]
    parallel: i16,
    /// Who works: `local`, a deployment's URL, or lambda:NAME
    #[arg(long, default_value = "local", value_name = "local|URL|lambda:NAME")]
    via: String,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    if let Some(remote) = &context.remote {
        return remote::run(remote, args, context).await;
    }
    match args.action {
        None => backfill(args.options, context).await,
        Some(Action::Status(args)) => manage::status(args, context).await,
        Some(Action::Stop(args)) => manage::stop(args, context).await,
        Some(Action::Rollback(args)) => manage::rollback(args, context).await,
    }
}

async fn backfill(options: Options, context: &Context) -> Result<Ended> {
    // Each lane has a worker with two connections, as an instance has, and two are ours.
    let connections = 2 * usize::try_from(options.parallel).unwrap_or(1) + 2;
    let app = App::open_with(app::settings()?, connections).await?;
    app.check_schema().await?;
    app.require_search()?;
    let via = Via::parse(&options.via, &app).await?;
    let name = project_or_only(&app, options.project.clone()).await?;
    let project = app.store().project(&name).await?;
    let estimate = estimate::of(&app, &project, options.parallel).await?;
    if options.dry_run {
        context.output.show(&estimate, || estimate.in_words())?;
        return Ok(Ended::Well);
    }
    if project.paused {
        return Err(usage(format!(
            "project {name} is stopped, nothing would move; first: cronvec start {name}"
        )));
    }
    if !context.yes {
        context.output.note(estimate.in_words());
    }
    if estimate.records > 0 && !context.confirm(&format!("Embed {} records of {name}?", estimate.records))? {
        return left_as_it_is(context);
    }
    Drive::begin(app, context, options, via, &project).await?.run().await
}

fn priority(text: &str) -> Result<i32, String> {
    match text {
        "low" => Ok(-10),
        "normal" => Ok(0),
        "high" => Ok(10),
        number => match number.parse() {
            Ok(number) if number > i32::MIN => Ok(number),
            _ => Err("it is low, normal, high or a number".to_owned()),
        },
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "it must be a number".to_owned())?;
    if (0.0..=86_400.0).contains(&number) {
        Ok(Duration::from_secs_f64(number))
    } else {
        Err("it is at least 0 and at most a day".to_owned())
    }
}
