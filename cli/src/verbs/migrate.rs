//! `migrate up|status|verify`

use anyhow::Result;
use serde_json::json;

use crate::Context;
use crate::app::App;
use crate::exit::Ended;
use crate::output::{Align, Table};
use crate::shapes::Migration;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Apply the migrations that are missing
    Up,
    /// Every migration and when it was applied
    Status,
    /// Compare the schema with what this binary expects
    Verify,
}

pub(crate) async fn run(action: Action, context: &Context) -> Result<Ended> {
    let app = App::open().await?;
    match action {
        Action::Up => {
            let applied = app.migrate_up().await?;
            context
                .output
                .list(&applied, |applied| table(applied, "the schema is up to date"))?;
            Ok(Ended::Well)
        }
        Action::Status => {
            let migrations = app.migrations().await?;
            context.output.list(&migrations, |migrations| {
                table(migrations, "this binary has no migrations")
            })?;
            let complete = migrations.iter().all(|migration| migration.applied_at.is_some());
            if !complete {
                context.output.note("some are missing: run `cronvec migrate up`");
            }
            Ok(if complete { Ended::Well } else { Ended::Unhealthy })
        }
        Action::Verify => {
            let faults = app.schema_faults().await?;
            context
                .output
                .show(&json!({"ok": faults.is_empty(), "faults": faults}), || {
                    match faults.as_slice() {
                        [] => "the schema is as it should be".to_owned(),
                        faults => faults.join("\n"),
                    }
                })?;
            Ok(if faults.is_empty() {
                Ended::Well
            } else {
                Ended::Unhealthy
            })
        }
    }
}

fn table(migrations: &[Migration], empty: &'static str) -> Table {
    let mut table = Table::new(
        &[
            ("version", Align::Right),
            ("name", Align::Left),
            ("applied", Align::Left),
        ],
        empty,
    );
    for migration in migrations {
        let applied = migration.applied_at.clone().unwrap_or_else(|| "missing".to_owned());
        table.row([migration.version.to_string(), migration.name.clone(), applied]);
    }
    table
}
