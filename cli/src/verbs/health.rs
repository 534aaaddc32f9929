//! `health`

use anyhow::Result;
use serde::Deserialize;
use serde_json::json;

use crate::Context;
use crate::app::App;
use crate::checks::{self, Check};
use crate::exit::Ended;
use crate::remote::{Remote, Unreachable, is_refused_with};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_args: Args, context: &Context) -> Result<Ended> {
    let checks = match &context.remote {
        Some(remote) => of_deployment(remote).await?,
        None => look(&App::open().await?).await?,
    };
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

#[derive(Deserialize)]
struct Found {
    checks: Vec<Check>,
}

/// What a deployment finds; that it isn't there, or its database, is a finding, too.
async fn of_deployment(remote: &Remote) -> Result<Vec<Check>> {
    match remote.get::<Found>("api/admin/health", &[]).await {
        Ok(found) => Ok(found.checks),
        Err(error) if error.is::<Unreachable>() || is_refused_with(&error, 503) => Ok(vec![Check::fail(
            "deployment",
            format!("{error:#}"),
            "look at its log, and at its database; and that --url is its address",
        )]),
        Err(error) => Err(error),
    }
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
