//! `stop`, `start`

use anyhow::Result;
use serde_json::json;
use shared::store::projects::Project;

use super::{projects_or_all, ready};
use crate::Context;
use crate::app::App;
use crate::exit::Ended;

const NONE: &str = "there are no projects";

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// These; else all that there are
    projects: Vec<String>,
}

pub(crate) async fn stop(named: Named, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    let names = names(&set_paused(&app, &named, true).await?);
    context
        .output
        .show(&json!({"success": true, "stopped": names}), || match names.len() {
            0 => NONE.to_owned(),
            _ => format!(
                "stopped: {}; what a worker holds has its slice, writes go on, `cronvec start` lets workers at it again",
                names.join(", ")
            ),
        })?;
    Ok(Ended::Well)
}

pub(crate) async fn start(named: Named, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    let projects = set_paused(&app, &named, false).await?;
    let mut lifted = 0;
    for project in &projects {
        lifted += app.store().lift_holds(project.id).await?;
    }
    let names = names(&projects);
    context.output.show(
        &json!({"success": true, "started": names, "lanesFreed": lifted}),
        || match names.len() {
            0 => NONE.to_owned(),
            _ => format!("started: {}", names.join(", ")),
        },
    )?;
    Ok(Ended::Well)
}

async fn set_paused(app: &App, named: &Named, paused: bool) -> Result<Vec<Project>> {
    let projects = projects_or_all(app, &named.projects).await?;
    for project in &projects {
        app.set_paused(&project.name, paused).await?;
    }
    if !projects.is_empty() {
        let said = if paused { "projects stopped" } else { "projects started" };
        app.audit("project", said, &names(&projects), None).await;
    }
    Ok(projects)
}

fn names(projects: &[Project]) -> Vec<String> {
    projects.iter().map(|project| project.name.clone()).collect()
}
