//! `health`

use anyhow::Result;
use serde_json::json;

use crate::Context;
use crate::app::App;
use crate::checks::{self, Check};
use crate::exit::Ended;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_args: Args, context: &Context) -> Result<Ended> {
    let app = App::open().await?;
    let checks = look(&app).await?;
    let healthy = checks::all_well(&checks);
    context
        .output
        .show(&json!({"healthy": healthy, "checks": checks}), || {
            format!(
                "{}\n{}",
                checks::table(&checks).render(),
                if healthy { "healthy" } else { "unhealthy" }
            )
        })?;
    Ok(if healthy { Ended::Well } else { Ended::Unhealthy })
}

/// Each of them, as far as the one before allows.
async fn look(app: &App) -> Result<Vec<Check>> {
    let (database, reachable) = checks::database(app).await;
    let mut all = vec![database];
    if !reachable {
        return Ok(all);
    }
    let (schema, known) = checks::schema(app).await;
    all.push(schema);
    if known {
        all.extend(checks::queue(app).await?);
    }
    Ok(all)
}
