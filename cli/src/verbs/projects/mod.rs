//! `projects list|create|pause|resume|remove`

mod remote;
pub(super) mod remove;

use anyhow::Result;
use cronvec_nouns::space::SpaceSpec;
use cronvec_store::projects::Project;
use serde::Serialize;
use serde_json::json;

use super::ready;
use crate::Context;
use crate::app::App;
use crate::exit::Ended;
use crate::output::{Align, Table};

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
    /// Take it away with its records, vectors and jobs; one that was interrupted is gone on with
    Remove { name: String },
}

pub(crate) async fn run(action: Action, context: &Context) -> Result<Ended> {
    if let Some(remote) = &context.remote {
        return remote::run(remote, action, context).await;
    }
    let app = ready().await?;
    let (name, state) = match action {
        Action::List => {
            let spaces = app.spaces().await?;
            let find = |id| {
                spaces
                    .iter()
                    .find(|space| space.id == id)
                    .map(|space| space.spec.clone())
            };
            let lines: Vec<Line> = app
                .projects()
                .await?
                .into_iter()
                .map(|project| Line {
                    space: find(project.live_space),
                    project,
                })
                .collect();
            context.output.list(&lines, table)?;
            return Ok(Ended::Well);
        }
        Action::Create { name } => {
            let state = if app.create_project(&name).await? {
                audit(&app, "project created", &name).await;
                "created"
            } else {
                "there already"
            };
            (name, state)
        }
        Action::Pause { name } => {
            app.set_paused(&name, true).await?;
            audit(&app, "projects stopped", &name).await;
            (name, "paused")
        }
        Action::Resume { name } => {
            app.set_paused(&name, false).await?;
            audit(&app, "projects started", &name).await;
            (name, "resumed")
        }
        Action::Remove { name } => return remove::run(&app, &name, context).await,
    };
    show(&name, state, context)
}

fn show(name: &str, state: &str, context: &Context) -> Result<Ended> {
    context.output.show(&json!({"project": name, "state": state}), || {
        format!("project {name} is {state}")
    })?;
    Ok(Ended::Well)
}

async fn audit(app: &App, what: &str, name: &str) {
    app.audit("project", what, &[name.to_owned()], None).await;
}

/// A project and how it embeds.
#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    project: Project,
    space: Option<SpaceSpec>,
}

fn table(lines: &[Line]) -> Table {
    let columns = [
        ("project", Align::Left),
        ("provider", Align::Left),
        ("model", Align::Left),
        ("dimensions", Align::Right),
        ("lanes", Align::Right),
        ("", Align::Left),
    ];
    let mut table = Table::new(&columns, "no projects yet");
    for Line { project, space } in lines {
        let [provider, model, dimensions] = space.as_ref().map_or_else(Default::default, |space| {
            [
                space.provider.to_string(),
                space.model.clone(),
                space.dimensions.to_string(),
            ]
        });
        let state = match (project.removing, project.paused) {
            (true, _) => "being removed",
            (false, true) => "paused",
            (false, false) => "",
        };
        table.row([
            project.name.clone(),
            provider,
            model,
            dimensions,
            project.lanes.to_string(),
            state.to_owned(),
        ]);
    }
    table
}
