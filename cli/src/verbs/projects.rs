//! `projects list|create|pause|resume`

use anyhow::Result;
use serde_json::json;

use super::ready;
use crate::Context;
use crate::exit::Ended;
use crate::output::{Align, Table};
use crate::shapes::Project;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Every project and how it embeds
    List,
    /// A new project, in the space that the settings choose
    Create { name: String },
    /// Keep workers from its jobs; writes go on
    Pause { name: String },
    /// Let workers at its jobs again
    Resume { name: String },
}

pub(crate) async fn run(action: Action, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    let (name, state) = match action {
        Action::List => {
            let projects = app.projects().await?;
            context.output.list(&projects, table)?;
            return Ok(Ended::Well);
        }
        Action::Create { name } => {
            let state = if app.create_project(&name).await? {
                "created"
            } else {
                "there already"
            };
            (name, state)
        }
        Action::Pause { name } => {
            app.set_paused(&name, true).await?;
            (name, "paused")
        }
        Action::Resume { name } => {
            app.set_paused(&name, false).await?;
            (name, "resumed")
        }
    };
    context.output.show(&json!({"project": name, "state": state}), || {
        format!("project {name} is {state}")
    })?;
    Ok(Ended::Well)
}

fn table(projects: &[Project]) -> Table {
    let columns = [
        ("project", Align::Left),
        ("provider", Align::Left),
        ("model", Align::Left),
        ("dimensions", Align::Right),
        ("lanes", Align::Right),
        ("", Align::Left),
    ];
    let mut table = Table::new(&columns, "no projects yet");
    for project in projects {
        table.row([
            project.name.clone(),
            project.provider.clone(),
            project.model.clone(),
            project.dimensions.to_string(),
            project.lanes.to_string(),
            if project.paused { "paused" } else { "" }.to_owned(),
        ]);
    }
    table
}
