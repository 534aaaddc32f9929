//! `doctor --write`: one record is put, embedded, found and deleted, in a project of its own that is taken away again.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow, bail};
use cronvec_call::CallOptions;
use cronvec_store::projects::Project;
use cronvec_store::records::NewRecord;

use super::super::projects::remove;
use crate::Context;
use crate::app::{App, Worker};
use crate::checks::Check;

const ID: &str = "doctor";
const TEXT: &str = "A record of cronvec doctor, which deletes it again.";
/// The provider may ask for a rest.
const LONGEST: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// A check a step, up to the first that fails. What was made is taken away in any case.
pub(super) async fn checks(app: &App, context: &Context) -> Vec<Check> {
    if !app.settings().embedding.search_enabled {
        return vec![Check::warn(
            "write",
            "nothing was written: SEMANTIC_SEARCH_ENABLED is false, so nothing would be embedded",
            "set it to true, then try again",
        )];
    }
    // After a signal there is time to take the project away.
    let _in_the_middle = context.interrupt.watch();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = format!("cronvec-doctor-{}-{}", std::process::id(), since.as_millis());
    let before: Vec<i32> = match app.spaces().await {
        Ok(spaces) => spaces.iter().map(|space| space.id).collect(),
        Err(error) => return vec![failed("write: put", &error)],
    };
    let mut all = Vec::new();
    let made = make(app, &name).await;
    match &made {
        Ok(_) => steps(app, &name, context, &mut all).await,
        Err(error) => all.push(failed("write: put", error)),
    }
    let tidied = async {
        if let Ok(project) = made {
            take_away(app, &project, &before, context).await?;
        }
        anyhow::Ok(())
    };
    if let Err(error) = tidied.await {
        all.push(Check::warn(
            "write: tidy up",
            format!("the project {name} is still there: {error:#}"),
            format!("cronvec projects remove {name}"),
        ));
    }
    app.audit("project", "doctor wrote and deleted a record", &[name], None)
        .await;
    all
}

async fn make(app: &App, name: &str) -> Result<Project> {
    let space = app.store().ensure_space(&app.settings().embedding.new_space).await?;
    Ok(app.store().ensure_project(name, space.id, 1).await?)
}

async fn take_away(app: &App, project: &Project, spaces_before: &[i32], context: &Context) -> Result<()> {
    app.store().begin_removal(project).await?;
    let has = app.store().holdings(project.id).await?;
    remove::take(app, project, has, context).await?;
    if !spaces_before.contains(&project.live_space) {
        app.store().remove_space(project.live_space).await?;
    }
    Ok(())
}

async fn steps(app: &App, name: &str, context: &Context, all: &mut Vec<Check>) {
    let began = Instant::now();
    let put = app
        .store()
        .put_record(
            &NewRecord {
                project: name,
                id: ID,
                content: TEXT,
                metadata: "{}",
            },
            None,
        )
        .await;
    all.push(match put {
        Ok(_) => done("write: put", "the record is stored and pending", began),
        Err(error) => return all.push(failed("write: put", &error.into())),
    });
    let began = Instant::now();
    all.push(match embed(app, name, context).await {
        Ok(()) => done("write: embed", "the record has its vector", began),
        Err(error) => return all.push(failed("write: embed", &error)),
    });
    let began = Instant::now();
    all.push(match find(app, name).await {
        Ok(true) => done("write: find", "a search finds it", began),
        Ok(false) => Check::fail(
            "write: find",
            "a search for its own text doesn't find it",
            "cronvec migrate verify; see docs/OPERATIONS.md",
        ),
        Err(error) => failed("write: find", &error),
    });
    let began = Instant::now();
    let deleted = async {
        app.store().delete_record(name, ID).await?;
        Ok(find(app, name).await? || app.store().record(name, ID).await?.is_some())
    };
    all.push(match deleted.await {
        Ok(false) => done("write: delete", "it is gone, and no search finds it", began),
        Ok(true) => Check::fail(
            "write: delete",
            "it is still there",
            "cronvec migrate verify; see docs/OPERATIONS.md",
        ),
        Err(error) => failed("write: delete", &error),
    });
}

/// Tick after tick of its project. Workers elsewhere may be faster.
async fn embed(app: &App, name: &str, context: &Context) -> Result<()> {
    let options = CallOptions {
        project: Some(name.to_owned()),
        ..CallOptions::default()
    };
    let began = Instant::now();
    loop {
        let report = app.tick(Worker::Vectorization, &options, &context.interrupt).await?;
        let record = app.store().record(name, ID).await?;
        if record.ok_or_else(|| anyhow!("the record is gone"))?.embedded {
            return Ok(());
        }
        if let Some(failed) = app.store().failed_attempts(name, ID).await?.last() {
            bail!(
                "attempt {} failed: {}: {}",
                failed.attempt,
                failed.reason,
                failed.message
            );
        }
        if let Some(blocked) = app.store().outlook(name).await?.blocked {
            bail!("{blocked}");
        }
        if began.elapsed() > LONGEST || *context.interrupt.watch().borrow() {
            let because = report.stopped_because.as_deref().unwrap_or("unknown");
            bail!("no tick embeds it ({because})");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn find(app: &App, name: &str) -> Result<bool> {
    let hits = app.search(name, TEXT, 1, None).await?;
    Ok(hits.iter().any(|hit| hit.id == ID))
}

fn done(check: &str, found: &str, began: Instant) -> Check {
    Check::ok(check, format!("{found}, after {} ms", began.elapsed().as_millis()))
}

fn failed(check: &str, error: &anyhow::Error) -> Check {
    let mend = match check {
        "write: embed" | "write: find" => "see the checks of the provider; cronvec provider test",
        _ => "see the checks of the database, and that this role may write (docs/SQL.md)",
    };
    Check::fail(check, format!("{error:#}"), mend)
}
