//! `migrate up|status|verify`

use anyhow::Result;
use cronvec_store::migrate::MigrationStatus;
use serde_json::json;

use crate::Context;
use crate::app::App;
use crate::exit::Ended;
use crate::output::{Align, Table};

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
            let mended = app.mend_schema().await?;
            if !mended.is_empty() {
                app.audit(
                    "schema",
                    "made again after pgvector was moved or dropped",
                    &mended,
                    None,
                )
                .await;
                context.output.note(format!(
                    "pgvector was moved, or dropped and made anew; made again: {}. Vectors that were dropped with it are \
                     embedded again by the next ticks. Restart what runs all the time (cronvec serve), and give roles of \
                     your own their rights on these functions again, see docs/SQL.md",
                    mended.join(", ")
                ));
            }
            let applied = app.migrate_up().await?;
            if !applied.is_empty() {
                let versions: Vec<String> = applied.iter().map(|applied| applied.version.to_string()).collect();
                app.audit("schema", "migrations applied", &versions, None).await;
            }
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
            let complete = migrations.iter().all(|migration| migration.applied);
            if !complete {
                context.output.note("some are missing: run `cronvec migrate up`");
            }
            Ok(if complete { Ended::Well } else { Ended::Unhealthy })
        }
        Action::Verify => {
            let found = match app.verify_schema().await? {
                Ok(()) => app.verify_numbers().await?,
                Err(difference) => Err(difference.to_string()),
            };
            let object = json!({"ok": found.is_ok(), "fault": found.as_ref().err()});
            context.output.show(&object, || match &found {
                Ok(()) => "the schema is as it should be".to_owned(),
                Err(difference) => difference.clone(),
            })?;
            Ok(if found.is_ok() { Ended::Well } else { Ended::Unhealthy })
        }
    }
}

fn table(migrations: &[MigrationStatus], empty: &'static str) -> Table {
    let mut table = Table::new(
        &[
            ("version", Align::Right),
            ("name", Align::Left),
            ("applied", Align::Left),
        ],
        empty,
    );
    for migration in migrations {
        let applied = if migration.applied { "yes" } else { "missing" };
        table.row([
            migration.version.to_string(),
            migration.name.clone(),
            applied.to_owned(),
        ]);
    }
    table
}
