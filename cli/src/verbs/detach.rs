//! `detach TABLE`

use anyhow::Result;
use serde_json::json;

use super::{as_usage, left_as_it_is, ready};
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
    let question = format!(
        "Detach {} from project {}? Its changes aren't noticed any more; records, vectors and the table's rows stay.",
        source.table, source.project
    );
    if !context.confirm(&question)? {
        return left_as_it_is(context);
    }
    app.store().detach(&source).await.map_err(as_usage)?;
    let said = format!("table detached from project {}", source.project);
    app.audit("source", &said, std::slice::from_ref(&source.table), None)
        .await;
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
