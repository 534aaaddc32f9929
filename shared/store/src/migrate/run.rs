//! Owns the run of the migrations: one migrator at a time, each step a transaction of its own that waits for no lock for
//! long, resumed where it was cut off. Refuses to know what the steps say.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient, Transaction};

use super::step::{Kind, Step, index_name, steps};
use super::{Migration, SchemaError, checksum, index, objects, server, version};
use crate::StoreError;

/// A step that can't get its locks is tried so often, so far apart.
const ATTEMPTS: u32 = 8;
const PAUSE: Duration = Duration::from_secs(1);

/// One migrator at a time, for which it waits; released with the transaction, so that a pooler loses nothing. All other
/// locks are waited for half a second at most: whoever wants them next queues up behind us.
const BEGIN: &str = "SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock(7233170410842381);
    SET LOCAL lock_timeout = '500ms'";

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ran {
    /// Another migrator did it, or a run before this one.
    Already,
    /// A slice of it; there is more.
    Slice,
    /// All of it.
    Step,
    /// It was the migration's last.
    Migration,
}

/// Returns the versions that it completed.
pub(super) async fn apply(client: &mut Client, migrations: &[Migration]) -> Result<Vec<i32>, StoreError> {
    server::check(client).await?;
    let vector_schema = prepare(client).await?;
    let mut applied = Vec::new();
    for migration in migrations {
        let sql = migration.sql.replace("@vector_schema@", &vector_schema);
        let steps = steps(&sql);
        let mut number = 1;
        while let Some(step) = steps.get(number - 1) {
            match patiently(client, migration, number, step, number == steps.len()).await? {
                Ran::Slice => continue,
                Ran::Migration => applied.push(migration.version),
                Ran::Already | Ran::Step => {}
            }
            number += 1;
        }
    }
    Ok(applied)
}

/// The schema, the extension and what the migrations are noted in. Gives the schema that `vector` lives in.
pub(super) async fn prepare(client: &mut Client) -> Result<String, StoreError> {
    let transaction = begin(client).await?;
    server::create_schema(&transaction).await?;
    let vector_schema = server::ensure_vector(&transaction).await?;
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS cronvec.migrations (
                 version int PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,
                 applied_at timestamptz NOT NULL DEFAULT now());
             -- The oldest program that runs on the schema from here on, by the last migration that it has. Null: just this
             -- version.
             ALTER TABLE cronvec.migrations ADD COLUMN IF NOT EXISTS serves int;
             -- Steps of a migration that isn't complete yet.
             CREATE TABLE IF NOT EXISTS cronvec.migration_steps (
                 version int, step int, checksum text NOT NULL, PRIMARY KEY (version, step));
             CREATE TABLE IF NOT EXISTS cronvec.schema_objects (object text PRIMARY KEY)",
        )
        .await?;
    super::serves_us(version(&transaction).await?)?;
    transaction.commit().await?;
    Ok(vector_schema)
}

/// Says READ COMMITTED itself: what another migrator did while we waited for it must be seen.
pub(super) async fn begin(client: &mut Client) -> Result<Transaction<'_>, StoreError> {
    let transaction = super::super::begin::unlimited(client).await?;
    transaction.batch_execute(BEGIN).await?;
    Ok(transaction)
}

async fn patiently(
    client: &mut Client,
    migration: &Migration,
    number: usize,
    step: &Step<'_>,
    is_last: bool,
) -> Result<Ran, StoreError> {
    let mut attempt = 1;
    loop {
        match run(client, migration, number, step, is_last).await {
            Err(error) if is_of_locks(&error) && attempt < ATTEMPTS => {
                tracing::info!(migration = migration.version, step = number, error = %error, "tried again in a moment");
                tokio::time::sleep(PAUSE).await;
                attempt += 1;
            }
            Err(error) if is_of_locks(&error) => {
                return Err(SchemaError::Locked {
                    version: migration.version,
                    name: migration.name,
                    holders: holders(client).await?,
                }
                .into());
            }
            outcome => return outcome,
        }
    }
}

/// Somebody holds what the step needs, or waited for us and we for them.
fn is_of_locks(error: &StoreError) -> bool {
    let StoreError::Database(error) = error else {
        return false;
    };
    [
        Some(&SqlState::LOCK_NOT_AVAILABLE),
        Some(&SqlState::T_R_DEADLOCK_DETECTED),
    ]
    .contains(&error.code())
}

/// Who holds locks in the schema, the oldest transaction first; for people.
async fn holders(client: &Client) -> Result<String, StoreError> {
    let rows = client
        .query_typed(
            "SELECT format('process %s (%s), for %s s', a.pid, coalesce(nullif(a.application_name, ''), a.usename, '?'),
                 coalesce(extract(epoch FROM clock_timestamp() - a.xact_start)::int::text, '?'))
             FROM pg_stat_activity a
             WHERE a.pid <> pg_backend_pid() AND a.pid IN (
                 SELECT l.pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                 WHERE l.granted AND c.relnamespace = 'cronvec'::regnamespace)
             ORDER BY a.xact_start LIMIT 3",
            &[],
        )
        .await?;
    let named: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok(match named.as_slice() {
        [] => "nobody any more".to_owned(),
        named => named.join(", "),
    })
}

async fn run(
    client: &mut Client,
    migration: &Migration,
    number: usize,
    step: &Step<'_>,
    is_last: bool,
) -> Result<Ran, StoreError> {
    let index = match step.kind {
        Kind::Concurrently => Some(index_name(step.sql).unwrap_or_default()),
        Kind::Transaction | Kind::Slices => None,
    };
    if let Some(index) = index
        && next_step(client, migration).await? == Some(number)
    {
        index::build(client, index, step.sql).await?;
    }
    let transaction = begin(client).await?;
    if next_step(&transaction, migration).await? != Some(number) {
        return Ok(Ran::Already);
    }
    match (step.kind, index) {
        (_, Some(index)) => objects::note_index(&transaction, index).await?,
        (Kind::Slices, _) => {
            if transaction.execute_typed(step.sql, &[]).await? > 0 {
                transaction.commit().await?;
                return Ok(Ran::Slice);
            }
        }
        (_, None) => {
            let before = objects::there(&transaction).await?;
            transaction.batch_execute(step.sql).await?;
            let after = objects::there(&transaction).await?;
            objects::note(&transaction, &before, &after).await?;
        }
    }
    note(&transaction, migration, number, is_last).await?;
    transaction.commit().await?;
    Ok(if is_last { Ran::Migration } else { Ran::Step })
}

/// The step that a migration stands before; none when it is complete.
async fn next_step(client: &impl GenericClient, migration: &Migration) -> Result<Option<usize>, StoreError> {
    let rows = client
        .query_typed(
            "SELECT EXISTS (SELECT FROM cronvec.migrations WHERE version = $1), coalesce(max(step), 0),
                 coalesce(bool_and(checksum = $2), true)
             FROM cronvec.migration_steps WHERE version = $1",
            &[(&migration.version, Type::INT4), (&checksum(migration), Type::TEXT)],
        )
        .await?;
    let row = rows.first().ok_or_else(crate::no_row)?;
    if row.get(0) {
        return Ok(None);
    }
    if !row.get::<_, bool>(2) {
        return Err(SchemaError::Changed {
            version: migration.version,
            name: migration.name.into(),
        }
        .into());
    }
    let done: i32 = row.get(1);
    Ok(usize::try_from(done).ok().map(|done| done + 1))
}

async fn note(
    transaction: &Transaction<'_>,
    migration: &Migration,
    number: usize,
    is_last: bool,
) -> Result<(), StoreError> {
    let checksum = checksum(migration);
    if !is_last {
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        transaction
            .execute_typed(
                "INSERT INTO cronvec.migration_steps (version, step, checksum) VALUES ($1, $2, $3)",
                &[
                    (&migration.version, Type::INT4),
                    (&number, Type::INT4),
                    (&checksum, Type::TEXT),
                ],
            )
            .await?;
        return Ok(());
    }
    transaction
        .execute_typed(
            "WITH whole AS (DELETE FROM cronvec.migration_steps WHERE version = $1)
             INSERT INTO cronvec.migrations (version, name, checksum, serves) VALUES ($1, $2, $3, $4)",
            &[
                (&migration.version, Type::INT4),
                (&migration.name, Type::TEXT),
                (&checksum, Type::TEXT),
                (&migration.serves, Type::INT4),
            ],
        )
        .await?;
    Ok(())
}
