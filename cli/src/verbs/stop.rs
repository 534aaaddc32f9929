//! `stop`

use anyhow::Result;
use serde_json::json;

use super::{projects_or_all, ready};
use crate::Context;
use crate::exit::Ended;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// These; else all that there are
    projects: Vec<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    let mut names = Vec::new();
    for project in projects_or_all(&app, &args.projects).await? {
        app.set_paused(&project.name, true).await?;
        names.push(project.name);
    }
    if !names.is_empty() {
        app.audit("project", "projects stopped", &names, None).await;
    }
    context
        .output
        .show(&json!({"success": true, "stopped": names}), || match names.len() {
            0 => "there are no projects".to_owned(),
            _ => format!(
                "stopped: {}; what a worker holds has its slice, writes go on, `cronvec start` lets workers at it again",
                names.join(", ")
            ),
        })?;
    Ok(Ended::Well)
}
