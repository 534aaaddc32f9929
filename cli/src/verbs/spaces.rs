//! `spaces list|remove`

use anyhow::Result;
use cronvec_nouns::space::SpaceSpec;
use serde::Serialize;
use serde_json::json;

use super::{left_as_it_is, ready};
use crate::Context;
use crate::app::App;
use crate::exit::{Ended, usage};
use crate::output::{Align, Table, brief, count};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Every space and who uses it
    List,
    /// Drop a space that no project uses, with its vectors
    Remove { id: i32 },
}

#[derive(Debug, Serialize)]
struct Line {
    id: i32,
    #[serde(flatten)]
    spec: SpaceSpec,
    projects: Vec<String>,
    /// Chunks as the planner estimates them.
    chunks: i64,
}

pub(crate) async fn run(action: Action, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    let lines = lines(&app).await?;
    let id = match action {
        Action::List => {
            context.output.list(&lines, table)?;
            return Ok(Ended::Well);
        }
        Action::Remove { id } => id,
    };
    let Some(space) = lines.iter().find(|space| space.id == id) else {
        return Err(usage(format!("no space {id}; cronvec spaces list has them")));
    };
    if !space.projects.is_empty() {
        return Err(usage(format!("space {id} is used by {}", space.projects.join(", "))));
    }
    if !context.confirm(&format!("Drop space {id} ({}) with its vectors?", space.spec.model))? {
        return left_as_it_is(context);
    }
    app.store().remove_space(id).await?;
    app.audit("space", "space removed", &[id.to_string()], None).await;
    context.output.show(&json!({"success": true, "removed": id}), || {
        format!("space {id} is gone")
    })?;
    Ok(Ended::Well)
}

async fn lines(app: &App) -> Result<Vec<Line>> {
    let projects = app.projects().await?;
    let sizes = app.store().space_sizes().await?;
    Ok(app
        .spaces()
        .await?
        .into_iter()
        .map(|space| Line {
            projects: projects
                .iter()
                .filter(|project| project.live_space == space.id || project.next_space == Some(space.id))
                .map(|project| project.name.clone())
                .collect(),
            chunks: sizes
                .iter()
                .find(|(id, _)| *id == space.id)
                .map_or(0, |(_, chunks)| *chunks),
            id: space.id,
            spec: space.spec,
        })
        .collect())
}

fn table(lines: &[Line]) -> Table {
    let columns = [
        ("space", Align::Right),
        ("provider", Align::Left),
        ("model", Align::Left),
        ("dimensions", Align::Right),
        ("tokens a chunk", Align::Right),
        ("chunks, about", Align::Right),
        ("projects", Align::Left),
    ];
    let mut table = Table::new(&columns, "no spaces yet");
    for line in lines {
        table.row([
            line.id.to_string(),
            line.spec.provider.to_string(),
            line.spec.model.clone(),
            line.spec.dimensions.to_string(),
            line.spec.chunk_tokens.to_string(),
            count(line.chunks),
            brief(&line.projects.join(", "), 60),
        ]);
    }
    table
}
