//! `detach TABLE`

use anyhow::Result;
use serde_json::json;

use super::{as_usage, ready};
use crate::Context;
use crate::exit::Ended;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The table, or the project that it is attached to
    table: String,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    let source = app.store().source(&args.table).await.map_err(as_usage)?;
    app.store().detach(&source).await.map_err(as_usage)?;
    context.output.show(
        &json!({"project": source.project, "table": source.table, "state": "detached"}),
        || {
            format!(
                "{} is detached; project {} keeps its records and vectors",
                source.table, source.project
            )
        },
    )?;
    Ok(Ended::Well)
}
