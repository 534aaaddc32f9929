//! `projects` at a deployment

use anyhow::Result;
use cronvec_nouns::space::SpaceSpec;
use cronvec_store::projects::Project;
use serde::Deserialize;
use serde_json::json;

use super::{Action, Line, show, table};
use crate::Context;
use crate::exit::{Ended, usage};
use crate::remote::Remote;
use crate::verbs::stop::steer;

const PATH: &str = "api/admin/projects";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    name: String,
    paused: bool,
    removing: bool,
    lanes: i16,
    live_space: Option<Space>,
    next_space: Option<Space>,
}

#[derive(Deserialize)]
struct Space {
    id: i32,
    #[serde(flatten)]
    spec: SpaceSpec,
}

impl From<Listed> for Line {
    fn from(listed: Listed) -> Self {
        Self {
            project: Project {
                // The API doesn't tell it, nor does the verb.
                id: 0,
                name: listed.name,
                live_space: listed.live_space.as_ref().map_or(0, |space| space.id),
                next_space: listed.next_space.map(|space| space.id),
                lanes: listed.lanes,
                paused: listed.paused,
                removing: listed.removing,
            },
            space: listed.live_space.map(|space| space.spec),
        }
    }
}

#[derive(Deserialize)]
struct Made {
    created: bool,
}

pub(super) async fn run(remote: &Remote, action: Action, context: &Context) -> Result<Ended> {
    match action {
        Action::List => {
            let listed: Vec<Listed> = remote.get(PATH, &[]).await?;
            let lines: Vec<Line> = listed.into_iter().map(Line::from).collect();
            context.output.list(&lines, table)?;
            Ok(Ended::Well)
        }
        Action::Create { name } => {
            let made: Made = remote.post(PATH, &[], &json!({"name": name})).await?;
            show(&name, if made.created { "created" } else { "there already" }, context)
        }
        Action::Pause { name } => {
            steer(remote, "pause", std::slice::from_ref(&name)).await?;
            show(&name, "paused", context)
        }
        Action::Resume { name } => {
            steer(remote, "resume", std::slice::from_ref(&name)).await?;
            show(&name, "resumed", context)
        }
        Action::Remove { .. } => Err(usage(
            "a removal can't be asked of a deployment (--url or CRONVEC_URL is set): run it where DATABASE_URL can be \
             reached, without --url",
        )),
    }
}
