//! `backfill`, `backfill status|stop` at a deployment: what is marked its schedule embeds.

use std::time::Duration;

use anyhow::Result;
use cronvec_store::backfill::Backfill;
use cronvec_store::backfill_progress::HowFar;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::super::{left_as_it_is, project_or_only_of, refuse_option};
use super::manage::{self, Line};
use super::{Action, Args, Options};
use crate::Context;
use crate::exit::{Ended, usage};
use crate::remote::{Load, Remote};

const PATH: &str = "api/admin/backfill";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Progress {
    #[serde(flatten)]
    backfill: Backfill,
    marked_all: bool,
    left: i64,
    done: i64,
    #[serde(flatten)]
    how_far: HowFar,
    silent_seconds: f64,
}

impl From<Progress> for Line {
    fn from(progress: Progress) -> Self {
        let mut backfill = progress.backfill;
        backfill.silent_seconds = progress.silent_seconds;
        // Where it stands isn't told, but whether it stands anywhere.
        backfill.cursor = (!progress.marked_all).then(String::new);
        Self::new(backfill, progress.left, progress.done, progress.how_far)
    }
}

#[derive(Deserialize)]
struct Stopped {
    stopped: Vec<String>,
}

pub(super) async fn run(remote: &Remote, args: Args, context: &Context) -> Result<Ended> {
    match args.action {
        None => begin(remote, args.options, context).await,
        Some(Action::Status(args)) => {
            let limit = args.limit.to_string();
            let mut query = vec![("limit", limit.as_str())];
            query.extend(args.project.as_deref().map(|name| ("project", name)));
            let found: Vec<Progress> = remote.get(PATH, &query).await?;
            manage::list(found.into_iter().map(Line::from).collect(), context)
        }
        Some(Action::Stop(args)) => {
            let body = args.project.map_or_else(|| json!({}), |name| json!({"project": name}));
            let stopped: Stopped = remote.post(&format!("{PATH}/stop"), &[], &body).await?;
            manage::show_stopped(&stopped.stopped, context)
        }
        Some(Action::Rollback(_)) => Err(usage(
            "a rollback can't be asked of a deployment (--url or CRONVEC_URL is set): run it where DATABASE_URL can be \
             reached, without --url",
        )),
    }
}

/// Marks until all is marked, and leaves the embedding to the deployment's schedule.
async fn begin(remote: &Remote, options: Options, context: &Context) -> Result<Ended> {
    let is_driven = [
        ("--dry-run", options.dry_run),
        ("--batch-size", options.batch_size != 1000),
        ("--iterations", options.iterations.is_some()),
        ("--delay", options.delay != Duration::ZERO),
        ("--passes", options.passes != 3),
        ("--parallel", options.parallel != 1),
        ("--via", options.via != "local"),
    ];
    for (name, is_given) in is_driven {
        refuse_option(name, is_given)?;
    }
    let project = project_or_only_of(remote, options.project).await?;
    let question = format!("Embed all of {project} that isn't embedded? Its provider may charge for it.");
    if !context.confirm(&question)? {
        return left_as_it_is(context);
    }
    let body = json!({"project": project, "priority": options.priority});
    loop {
        let progress: Progress = remote
            .until_answered(Method::POST, PATH, &[], &Load::Json(&body))
            .await?;
        let is_stopped = progress.backfill.state != "running";
        if progress.marked_all || is_stopped {
            let ended = if progress.marked_all {
                Ended::Well
            } else {
                Ended::Unhealthy
            };
            manage::list(vec![progress.into()], context)?;
            return Ok(ended);
        }
        context
            .output
            .note(format!("{} records marked so far", progress.backfill.marked));
    }
}
