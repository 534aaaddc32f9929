//! `projects remove`

use std::future::Future;
use std::time::Duration;

use anyhow::Result;
use cronvec_store::StoreError;
use cronvec_store::projects::Project;
use cronvec_store::removal::{Holdings, is_attached};
use serde::Serialize;

use super::super::{as_usage, left_as_it_is};
use crate::Context;
use crate::app::App;
use crate::exit::Ended;
use crate::output::count;
use crate::progress::Progress;

/// Somebody holds what we need: asked again so often, and after so long.
const PATIENCE: u32 = 10;
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Serialize)]
struct Removed<'a> {
    project: &'a str,
    state: &'static str,
    /// By this command; an earlier one that broke off had its own.
    #[serde(flatten)]
    taken: Holdings,
}

pub(super) async fn run(app: &App, name: &str, context: &Context) -> Result<Ended> {
    let project = app.store().project_to_remove(name).await?;
    let sources = app.store().sources().await?;
    if let Some(source) = sources.iter().find(|source| source.project == name) {
        return Err(as_usage(is_attached(&source.table, name)));
    }
    let has = app.store().holdings(project.id).await?;
    let question = format!("Remove project {name} with {}? It can't be taken back.", in_words(has));
    if !context.confirm(&question)? {
        return left_as_it_is(context);
    }
    let ids = [name.to_owned()];
    app.audit("project", "project's removal begun", &ids, None).await;
    app.store().begin_removal(&project).await?;
    let taken = take(app, &project, has, context).await?;
    let said = format!("project removed with {}", in_words(taken));
    app.audit("project", &said, &ids, None).await;
    let removed = Removed {
        project: name,
        state: "removed",
        taken,
    };
    context.output.show(&removed, || {
        format!(
            "project {name} is gone, with {}; its space stays: cronvec spaces list",
            in_words(taken)
        )
    })?;
    Ok(Ended::Well)
}

/// Slice by slice: jobs first, so that no worker writes behind us, then records, then the project.
pub(in crate::verbs) async fn take(app: &App, project: &Project, has: Holdings, context: &Context) -> Result<Holdings> {
    let mut progress = Progress::new("removed", context.output);
    let mut taken = Holdings::default();
    let mut job = Some(0);
    while let Some(after) = job {
        let (more, last) = step(context, project, app.store().remove_jobs(project.id, after)).await?;
        taken.add(more);
        job = last;
        progress.update(taken.records, has.records);
    }
    let mut waits = 0;
    loop {
        let mut record = Some(String::new());
        while let Some(after) = record {
            let (more, last) = step(context, project, app.store().remove_records(project.id, &after)).await?;
            taken.add(more);
            record = last;
            progress.update(taken.records, has.records);
        }
        match step(context, project, app.store().end_removal(project)).await {
            Ok(Some(more)) => {
                taken.add(more);
                progress.end();
                return Ok(taken);
            }
            Ok(None) => {}
            Err(error) if is_held(&error) && waits < PATIENCE => {
                waits += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) if is_held(&error) => {
                return Err(error.context("somebody's transaction has written to it and is still open"));
            }
            Err(error) => return Err(error),
        }
    }
}

/// One slice; after a signal none is begun.
async fn step<T>(
    context: &Context,
    project: &Project,
    slice: impl Future<Output = Result<T, StoreError>>,
) -> Result<T> {
    let name = &project.name;
    let so_far = format!("project {name} is removed in part; `cronvec projects remove {name}` goes on with it");
    match context.interrupt.or_end(slice, || {}).await {
        Ok(done) => done.map_err(|error| as_usage(error).context(so_far)),
        Err(interrupted) => {
            context.output.note(so_far);
            Err(interrupted)
        }
    }
}

fn is_held(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(StoreError::is_lock_timeout)
}

fn in_words(holdings: Holdings) -> String {
    format!(
        "{} records, {} vectors and {} jobs",
        count(holdings.records),
        count(holdings.vectors),
        count(holdings.jobs)
    )
}
