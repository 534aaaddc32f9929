//! `stop`, `start`

use anyhow::{Result, bail};
use cronvec_store::projects::Project;
use serde::Deserialize;
use serde_json::json;

use super::{names_at, projects_or_all, ready};
use crate::Context;
use crate::app::App;
use crate::exit::Ended;
use crate::remote::Remote;

const NONE: &str = "there are no projects";

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// These; else all that there are
    projects: Vec<String>,
}

pub(crate) async fn stop(named: Named, context: &Context) -> Result<Ended> {
    let names = match &context.remote {
        Some(remote) => steer(remote, "pause", &named.projects).await?.0,
        None => names(&set_paused(&ready().await?, &named, true).await?),
    };
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
    let (names, lifted) = match &context.remote {
        Some(remote) => steer(remote, "resume", &named.projects).await?,
        None => start_here(&named).await?,
    };
    context.output.show(
        &json!({"success": true, "started": names, "lanesFreed": lifted}),
        || match names.len() {
            0 => NONE.to_owned(),
            _ => format!("started: {}", names.join(", ")),
        },
    )?;
    Ok(Ended::Well)
}

async fn start_here(named: &Named) -> Result<(Vec<String>, u64)> {
    let app = ready().await?;
    let projects = set_paused(&app, named, false).await?;
    let mut lifted = 0;
    for project in &projects {
        lifted += app.store().lift_holds(project.id).await?;
    }
    Ok((names(&projects), lifted))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Steered {
    projects: Vec<String>,
    #[serde(default)]
    lanes_freed: u64,
}

/// `pause` or `resume` of these projects at a deployment, or of all that the token reaches; how many lanes it freed.
pub(super) async fn steer(remote: &Remote, act: &str, named: &[String]) -> Result<(Vec<String>, u64)> {
    if named.len() > 1 {
        // None is steered where one of them isn't there.
        let there = names_at(remote).await?;
        if let Some(missing) = named.iter().find(|name| !there.contains(name)) {
            bail!("no project '{missing}' that this token reaches");
        }
    }
    let path = format!("api/admin/{act}");
    let bodies = match named {
        [] => vec![json!({})],
        named => named.iter().map(|name| json!({"project": name})).collect(),
    };
    let (mut names, mut lifted) = (Vec::new(), 0);
    for body in bodies {
        let steered: Steered = remote.post(&path, &[], &body).await?;
        names.extend(steered.projects);
        lifted += steered.lanes_freed;
    }
    Ok((names, lifted))
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
