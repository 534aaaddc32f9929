//! Owns the building of an index beside writers, which no transaction can hold: cut off, it leaves an invalid index.
//! Refuses to take away one that is whole, or that somebody builds just now.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::run::begin;
use crate::StoreError;

const PAUSE: Duration = Duration::from_millis(200);

enum State {
    Absent,
    Whole,
    /// By somebody else.
    BeingBuilt,
    /// Of a build that was cut off.
    Left,
}

/// Runs this `CREATE INDEX CONCURRENTLY` unless the index is there. Two at once make one.
pub(super) async fn build(client: &mut Client, index: &str, sql: &str) -> Result<(), StoreError> {
    loop {
        drop_left(client, index).await?;
        match state(client, index).await? {
            State::Whole => return Ok(()),
            State::Absent => match client.batch_execute(sql).await {
                // Somebody else was faster.
                Err(error) if error.code() == Some(&SqlState::DUPLICATE_TABLE) => {}
                built => built?,
            },
            State::BeingBuilt => tokio::time::sleep(PAUSE).await,
            State::Left => put_aside(client, index).await?,
        }
    }
}

async fn state(client: &impl tokio_postgres::GenericClient, index: &str) -> Result<State, StoreError> {
    let rows = client
        .query_typed(
            "SELECT i.indisvalid AND i.indisready,
                 EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
             FROM pg_index i WHERE i.indexrelid = to_regclass('cronvec.' || $1)",
            &[(&index, Type::TEXT)],
        )
        .await?;
    Ok(match rows.first().map(|row| (row.get(0), row.get(1))) {
        None => State::Absent,
        Some((true, _)) => State::Whole,
        Some((false, true)) => State::BeingBuilt,
        Some((false, false)) => State::Left,
    })
}

/// Another migrator may be about to build it: under a name of its own the remnant is dropped and nothing else.
async fn put_aside(client: &mut Client, index: &str) -> Result<(), StoreError> {
    let transaction = begin(client).await?;
    if matches!(state(&transaction, index).await?, State::Left) {
        let rename = format!(
            "DO $$ BEGIN EXECUTE format('ALTER INDEX cronvec.{index} RENAME TO {index}_left_%s',
                 'cronvec.{index}'::regclass::oid); END $$"
        );
        transaction.batch_execute(&rename).await?;
    }
    transaction.commit().await?;
    Ok(())
}

async fn drop_left(client: &Client, index: &str) -> Result<(), StoreError> {
    let rows = client
        .query_typed(
            "SELECT c.relname::text FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
             WHERE c.relnamespace = 'cronvec'::regnamespace AND starts_with(c.relname, $1 || '_left_') AND NOT i.indisvalid",
            &[(&index, Type::TEXT)],
        )
        .await?;
    for row in &rows {
        let left: &str = row.get(0);
        client
            .batch_execute(&format!("DROP INDEX CONCURRENTLY IF EXISTS cronvec.{left}"))
            .await?;
    }
    Ok(())
}
