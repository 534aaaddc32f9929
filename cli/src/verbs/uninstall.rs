//! `uninstall`

use anyhow::Result;
use serde_json::json;

use crate::Context;
use crate::app::App;
use crate::exit::Ended;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_args: Args, context: &Context) -> Result<Ended> {
    let app = App::open().await?;
    let question = "Drop the schema cronvec with all its projects, records and vectors? It can't be taken back.";
    if !context.confirm(question)? {
        context.output.note("left as it is");
        return Ok(Ended::Unhealthy);
    }
    app.uninstall().await?;
    context.output.show(&json!({"uninstalled": true}), || {
        "the schema cronvec is gone".to_owned()
    })?;
    Ok(Ended::Well)
}
