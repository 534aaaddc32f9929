//! `backfill status|stop|rollback`

use std::time::Duration;

use anyhow::Result;
use cronvec_store::backfill::Backfill;
use cronvec_store::backfill_progress::HowFar;
use indicatif::HumanDuration;
use serde::Serialize;
use serde_json::json;

use super::super::{left_as_it_is, ready};
use crate::Context;
use crate::app::App;
use crate::exit::{Ended, usage};
use crate::output::{Align, Table, count};

#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Only of this project
    #[arg(long, value_name = "NAME")]
    pub(super) project: Option<String>,
    /// So many of them
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..=1000))]
    pub(super) limit: i64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Stop {
    /// Only of this project
    #[arg(long, value_name = "NAME")]
    pub(super) project: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Rollback {
    /// Which one; else the latest of the project
    operation: Option<i64>,
    /// Of this project
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Line {
    #[serde(flatten)]
    backfill: Backfill,
    /// Of what it marked, what waits and nobody has written since.
    left: i64,
    done: i64,
    #[serde(flatten)]
    how_far: HowFar,
    /// What becomes of it.
    next: String,
}

impl Line {
    pub fn new(backfill: Backfill, left: i64, done: i64, how_far: HowFar) -> Self {
        Self {
            next: next(&backfill, left, &how_far),
            backfill,
            left,
            done,
            how_far,
        }
    }
}

/// Whoever drives one is heard of every ten seconds.
const SILENT_SECONDS: f64 = 60.0;

fn next(backfill: &Backfill, left: i64, how_far: &HowFar) -> String {
    let (id, project) = (backfill.id, &backfill.project);
    let goes_on = format!("cronvec backfill --project {project}");
    if let (Some(blocked), "running") = (&how_far.blocked, backfill.state.as_str()) {
        return format!("nothing moves: {blocked}");
    }
    match (backfill.state.as_str(), left) {
        // It was begun over HTTP.
        ("running", _) if backfill.iteration.is_none() && backfill.has_marked_all() => {
            format!("ticks embed the {} that are pending", how_far.pending)
        }
        ("running", _) if backfill.silent_seconds > SILENT_SECONDS => format!(
            "nobody has driven it for {:.0} minutes, so it was killed; go on with: {goes_on}",
            backfill.silent_seconds / 60.0
        ),
        ("running", _) => "somebody drives it".to_owned(),
        ("stopped", 0) => format!("all that it marked is done; go on with: {goes_on}"),
        ("stopped", _) => format!(
            "ticks embed the {left} that wait; go on with: {goes_on}; or take these back: cronvec backfill rollback {id}"
        ),
        ("rolled_back", 0) => "nothing is left of it".to_owned(),
        ("rolled_back", _) => format!("{left} were held by somebody; again: cronvec backfill rollback {id}"),
        (_, 0) => "it is done".to_owned(),
        _ => format!("ticks embed the {left} that wait"),
    }
}

pub(super) async fn status(args: Status, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    check(&app, args.project.as_deref()).await?;
    let mut lines = Vec::new();
    for backfill in app.store().backfills(args.project.as_deref(), args.limit).await? {
        let left = app.store().backfill_waiting(&backfill).await?;
        let done = (backfill.marked - backfill.withdrawn - left).max(0);
        let how_far = app.store().how_far(&backfill, left).await?;
        lines.push(Line::new(backfill, left, done, how_far));
    }
    list(lines, context)
}

pub(super) fn list(lines: Vec<Line>, context: &Context) -> Result<Ended> {
    context.output.list(&lines, table)?;
    Ok(Ended::Well)
}

pub(super) async fn stop(args: Stop, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    check(&app, args.project.as_deref()).await?;
    let mut stopped = Vec::new();
    for backfill in app.store().backfills(args.project.as_deref(), 1000).await? {
        if backfill.state == "running" && app.store().set_backfill(backfill.id, "stopped", 0).await? {
            stopped.push(backfill.id.to_string());
        }
    }
    if !stopped.is_empty() {
        app.audit(
            "backfill",
            "backfill stopped",
            &stopped,
            stopped.first().map(String::as_str),
        )
        .await;
    }
    show_stopped(&stopped, context)
}

pub(super) fn show_stopped(stopped: &[String], context: &Context) -> Result<Ended> {
    context
        .output
        .show(&json!({"success": true, "stopped": stopped}), || match stopped.len() {
            0 => "no backfill runs".to_owned(),
            _ => format!(
                "stopped: {}; `cronvec backfill` goes on with it, `cronvec backfill rollback` takes it back",
                stopped.join(", ")
            ),
        })?;
    Ok(Ended::Well)
}

pub(super) async fn rollback(args: Rollback, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    check(&app, args.project.as_deref()).await?;
    let backfill = match args.operation {
        Some(id) => app.store().backfill(id).await?,
        None => {
            let latest = app.store().backfills(args.project.as_deref(), 1).await?.pop();
            latest.ok_or_else(|| usage("there was no backfill yet"))?
        }
    };
    let left = app.store().backfill_waiting(&backfill).await?;
    let question = format!(
        "Take back {left} records that backfill {} of project {} has marked and that aren't embedded yet?",
        backfill.id, backfill.project
    );
    if !context.confirm(&question)? {
        return left_as_it_is(context);
    }
    // First, so that nobody goes on marking.
    app.store().set_backfill(backfill.id, "rolled_back", 0).await?;
    let project = app.store().project(&backfill.project).await?;
    let mut withdrawn = 0;
    for space in [Some(project.live_space), project.next_space].into_iter().flatten() {
        withdrawn += app.store().withdraw(space, project.id, Some(backfill.id)).await?;
    }
    app.store().end_idle_jobs(project.id).await?;
    app.store().set_backfill(backfill.id, "rolled_back", withdrawn).await?;
    let held = app.store().backfill_waiting(&backfill).await?;
    let id = backfill.id.to_string();
    let said = format!("backfill rolled back: {withdrawn} records withdrawn");
    app.audit("backfill", &said, std::slice::from_ref(&id), Some(&id)).await;
    context.output.show(
        &json!({"success": true, "operation": id, "withdrawn": withdrawn, "held": held}),
        || {
            let mut said = format!("{} records aren't waiting any more", count(withdrawn));
            if held > 0 {
                said.push_str(&format!(
                    "; {held} are held by somebody, take them back with: cronvec backfill rollback {id}"
                ));
            }
            said
        },
    )?;
    Ok(Ended::Well)
}

async fn check(app: &App, project: Option<&str>) -> Result<()> {
    if let Some(name) = project {
        app.store().project(name).await?;
    }
    Ok(())
}

/// Of one that goes on.
fn time_left(line: &Line) -> Option<String> {
    let goes_on = matches!(line.backfill.state.as_str(), "running" | "stopped");
    let seconds = line.how_far.eta_seconds.filter(|_| goes_on)?;
    Some(HumanDuration(Duration::try_from_secs_f64(seconds).ok()?).to_string())
}

fn iteration(backfill: &Backfill) -> String {
    match (backfill.iteration, backfill.iterations) {
        (Some(iteration), Some(most)) => format!("{iteration} of {most}"),
        (Some(iteration), None) => iteration.to_string(),
        (None, _) => String::new(),
    }
}

fn table(lines: &[Line]) -> Table {
    let columns = [
        ("operation", Align::Right),
        ("project", Align::Left),
        ("state", Align::Left),
        ("marked", Align::Right),
        ("done", Align::Right),
        ("left", Align::Right),
        ("pending", Align::Right),
        ("percent", Align::Right),
        ("a second", Align::Right),
        ("time left", Align::Right),
        ("iteration", Align::Right),
        ("begun", Align::Left),
        ("", Align::Left),
    ];
    let mut table = Table::new(&columns, "no backfill yet");
    for line in lines {
        let backfill = &line.backfill;
        table.row([
            backfill.id.to_string(),
            backfill.project.clone(),
            backfill.state.clone(),
            count(backfill.marked),
            count(line.done),
            count(line.left),
            count(line.how_far.pending),
            format!("{:.1}", line.how_far.percent),
            line.how_far
                .per_second
                .map_or_else(String::new, |rate| rate.to_string()),
            time_left(line).unwrap_or_default(),
            iteration(backfill),
            backfill.started_at.truncate_to_second().to_string(),
            line.next.clone(),
        ]);
    }
    table
}
