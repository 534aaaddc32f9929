//! Owns the schema: its numbered migrations, its version, whom it serves. Refuses to go back.

mod bound;
mod index;
mod objects;
mod run;
mod server;
mod statements;
mod step;

use tokio_postgres::Client;

use super::{Store, StoreError};

pub(super) use server::is_too_old;

/// A change of the schema; its text may have several steps.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    pub version: i32,
    pub name: &'static str,
    pub sql: &'static str,
    /// The oldest program that runs on the schema that it makes, by the last migration which that program has.
    pub serves: i32,
}

macro_rules! migration {
    ($version:literal, $name:literal, $file:literal, serves $serves:literal) => {
        Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../../../migrations/", $file, ".sql")),
            serves: $serves,
        }
    };
}

pub const MIGRATIONS: &[Migration] = &[
    migration!(1, "queue", "0001_queue", serves 1),
    migration!(2, "sql_interface", "0002_sql_interface", serves 2),
    migration!(3, "pending", "0003_pending", serves 3),
    migration!(4, "ingestion", "0004_ingestion", serves 4),
    migration!(5, "sources", "0005_sources", serves 5),
    migration!(6, "operations", "0006_operations", serves 6),
    migration!(7, "removal", "0007_removal", serves 7),
    migration!(8, "api", "0008_api", serves 8),
    migration!(9, "bodies", "0009_bodies", serves 9),
    migration!(10, "origins", "0010_origins", serves 10),
    migration!(11, "upkeep", "0011_upkeep", serves 11),
    migration!(12, "pipeline", "0012_pipeline", serves 12),
    migration!(13, "capture", "0013_capture", serves 12),
    migration!(14, "column", "0014_column", serves 12),
    migration!(15, "frozen", "0015_frozen", serves 12),
    migration!(16, "attach_again", "0016_attach_again", serves 12),
    migration!(17, "figures", "0017_figures", serves 12),
    migration!(18, "project_spaces", "0018_project_spaces", serves 18),
];

/// The newest schema that this program knows.
pub const VERSION: i32 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// The oldest schema that it runs on. A number of its own as soon as there is a migration that it can do without.
pub const OLDEST_SCHEMA: i32 = VERSION;

/// Why the schema can't be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("the database has no schema 'cronvec' yet; run: cronvec migrate up")]
    Missing,
    #[error("the database's schema is at version {found}, this program needs {OLDEST_SCHEMA}; run: cronvec migrate up")]
    TooOld { found: i32 },
    #[error(
        "the database's schema is at version {found}, which serves programs from version {serves} on; this one is at \
         version {VERSION}: use a newer cronvec"
    )]
    TooNew { found: i32, serves: i32 },
    #[error(
        "migration {version} ({name}) can't get its locks; what it had begun is undone. Locks of the schema are held by: \
         {holders}. End these transactions, or wait for them, then run again: cronvec migrate up"
    )]
    Locked {
        version: i32,
        name: &'static str,
        holders: String,
    },
    #[error("PostgreSQL {0} is too old; cronvec needs 15 or newer")]
    PostgresTooOld(String),
    #[error(
        "the extension 'vector' (pgvector) isn't there; install pgvector 0.7 or newer on the server \
         (https://github.com/pgvector/pgvector#installation), then run: cronvec migrate up"
    )]
    NoVector,
    #[error(
        "this role may not create the extension 'vector': {0}; let a superuser run in this database: CREATE EXTENSION vector"
    )]
    VectorForbidden(String),
    #[error("pgvector {0} is too old; cronvec needs 0.7 or newer; run: ALTER EXTENSION vector UPDATE")]
    VectorTooOld(String),
    #[error(
        "this role may not create a schema: {0}; let the database's owner run: GRANT CREATE ON DATABASE … TO this role"
    )]
    SchemaForbidden(String),
    #[error(
        "migration {version} ({name}) was applied in another form than this program has; the schema was changed by hand"
    )]
    Changed { version: i32, name: String },
    #[error("{0}, and this role may not set it: run as the schema's owner: cronvec migrate up")]
    Behind(super::numbers::Behind),
    #[error(
        "pgvector was moved, or dropped and made anew; missing, or looking for it where it was: {0}; run: cronvec migrate up"
    )]
    Unbound(String),
    #[error("the schema was changed by hand; missing, or not as the migrations made it: {0}")]
    Altered(String),
}

/// One migration and whether it is there.
#[derive(Debug, Clone, serde::Serialize)]
pub struct MigrationStatus {
    pub version: i32,
    pub name: String,
    pub applied: bool,
}

/// Makes again what went when pgvector was dropped, and what looks for it where it isn't any more. Returns its names.
pub async fn mend(client: &mut Client) -> Result<Vec<String>, StoreError> {
    bound::mend(client).await
}

/// Brings the schema to this program's version, and mends it. Returns the versions that it completed. Two at once are safe, and one
/// that was cut off is resumed by the next.
pub async fn up(client: &mut Client) -> Result<Vec<i32>, StoreError> {
    mend(client).await?;
    let completed = up_to(client, VERSION).await?;
    // A migration that had been cut off is complete now.
    mend(client).await?;
    Ok(completed)
}

/// The same, to a former version.
pub async fn up_to(client: &mut Client, last: i32) -> Result<Vec<i32>, StoreError> {
    let wanted: Vec<Migration> = MIGRATIONS
        .iter()
        .filter(|migration| migration.version <= last)
        .copied()
        .collect();
    apply(client, &wanted).await
}

/// Applies those of these that are missing, in this order.
pub async fn apply(client: &mut Client, migrations: &[Migration]) -> Result<Vec<i32>, StoreError> {
    run::apply(client, migrations).await
}

/// Each known migration, applied or not, and those of newer programs that were applied.
pub async fn status(client: &Client) -> Result<Vec<MigrationStatus>, StoreError> {
    let applied = match schema_exists(client).await? {
        true => applied(client).await?,
        false => Vec::new(),
    };
    let known = MIGRATIONS.iter().map(|migration| MigrationStatus {
        version: migration.version,
        name: migration.name.into(),
        applied: applied.iter().any(|(version, ..)| *version == migration.version),
    });
    let newer = applied.iter().filter(|(version, ..)| *version > VERSION);
    Ok(known
        .chain(newer.map(|(version, name, _)| MigrationStatus {
            version: *version,
            name: name.clone(),
            applied: true,
        }))
        .collect())
}

/// Whether the schema is the one that this program's migrations make, or a newer one that serves it.
pub async fn verify(client: &Client) -> Result<(), StoreError> {
    server::check(client).await?;
    if !schema_exists(client).await? {
        return Err(SchemaError::Missing.into());
    }
    compare(version(client).await?)?;
    for (version, name, sum) in applied(client).await? {
        let known = MIGRATIONS.iter().find(|migration| migration.version == version);
        // What newer migrations should look like only newer programs know.
        if version <= VERSION && known.is_none_or(|migration| checksum(migration) != sum) {
            return Err(SchemaError::Changed { version, name }.into());
        }
    }
    let unbound = bound::amiss(client).await?.names();
    if !unbound.is_empty() {
        return Err(SchemaError::Unbound(unbound.join(", ")).into());
    }
    let missing = objects::missing(client).await?;
    if !missing.is_empty() {
        return Err(SchemaError::Altered(missing.join(", ")).into());
    }
    Ok(())
}

/// Takes all of it away: the schema with everything in it. The extension stays.
pub async fn uninstall(client: &Client) -> Result<(), StoreError> {
    client.batch_execute("DROP SCHEMA IF EXISTS cronvec CASCADE").await?;
    Ok(())
}

impl Store {
    /// Compares the versions of code and schema, as each program does when it starts.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        let there = self.query_one(SCHEMA_EXISTS, &[]).await?;
        if !there.get::<_, bool>(0) {
            return Err(SchemaError::Missing.into());
        }
        let row = self.query_one(FOUND_VERSION, &[]).await?;
        Ok(compare(Version::of(&row))?)
    }
}

const SCHEMA_EXISTS: &str = "SELECT to_regclass('cronvec.migrations') IS NOT NULL";

/// What a schema says of itself.
#[derive(Clone, Copy, Debug)]
struct Version {
    found: i32,
    /// The oldest program that it serves.
    serves: i32,
}

fn compare(version: Version) -> Result<(), SchemaError> {
    if version.found < OLDEST_SCHEMA {
        return Err(SchemaError::TooOld { found: version.found });
    }
    serves_us(version)
}

fn serves_us(Version { found, serves }: Version) -> Result<(), SchemaError> {
    match found > VERSION && serves > VERSION {
        true => Err(SchemaError::TooNew { found, serves }),
        false => Ok(()),
    }
}

/// Schemas that older programs made don't say whom they serve: just their own version.
const FOUND_VERSION: &str = "SELECT coalesce(max(version), 0),
        coalesce(max(coalesce((to_jsonb(m)->>'serves')::int, version)), 0)
    FROM cronvec.migrations m";

impl Version {
    fn of(row: &tokio_postgres::Row) -> Self {
        Self {
            found: row.get(0),
            serves: row.get(1),
        }
    }
}

async fn version(client: &impl tokio_postgres::GenericClient) -> Result<Version, StoreError> {
    let rows = client.query_typed(FOUND_VERSION, &[]).await?;
    Ok(Version::of(rows.first().ok_or_else(super::no_row)?))
}

/// Version, name and checksum of each.
async fn applied(client: &impl tokio_postgres::GenericClient) -> Result<Vec<(i32, String, String)>, StoreError> {
    let rows = client
        .query_typed(
            "SELECT version, name, checksum FROM cronvec.migrations ORDER BY version",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

async fn schema_exists(client: &Client) -> Result<bool, StoreError> {
    let rows = client.query_typed(SCHEMA_EXISTS, &[]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// The first 8 hexadecimal digits of the SHA-256 of all migrations.
pub fn fingerprint() -> String {
    let all: String = MIGRATIONS.iter().map(checksum).collect();
    let mut digits = hexadecimal(&all);
    digits.truncate(8);
    digits
}

fn checksum(migration: &Migration) -> String {
    hexadecimal(migration.sql)
}

fn hexadecimal(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::step::{Kind, index_name, steps};
    use super::*;

    #[test]
    fn every_migration_is_cut_into_steps_that_can_be_run() {
        let files = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
        let files = std::fs::read_dir(files).expect("the migrations").count();
        assert_eq!(files, MIGRATIONS.len());
        assert!(MIGRATIONS.is_sorted_by(|one, next| one.version < next.version));
        for migration in MIGRATIONS {
            assert!(migration.serves <= migration.version);
            for mark in migration.sql.split("-- step:").skip(1) {
                let mark = mark.lines().next().unwrap_or_default().trim();
                assert!(["transaction", "slices", "concurrently"].contains(&mark), "{mark}");
            }
            for step in steps(migration.sql) {
                let concurrently = step.sql.contains("INDEX CONCURRENTLY ");
                assert_eq!(step.kind == Kind::Concurrently, concurrently, "{}", migration.name);
                assert!(step.kind != Kind::Concurrently || index_name(step.sql).is_some());
            }
        }
    }

    /// Two locks of one transaction, and two of a writer's in the other order, are a deadlock, which may end the writer.
    #[test]
    fn no_step_locks_two_tables_that_are_in_use() {
        fn after<'a>(sql: &'a str, words: &str) -> Vec<&'a str> {
            let named = sql.split(words).skip(1);
            named
                .filter_map(|rest| rest.split([' ', ';', '\n', '(', ')']).next())
                .collect()
        }
        for migration in MIGRATIONS.iter().filter(|migration| migration.version > 9) {
            let made = after(migration.sql, "CREATE TABLE ");
            for step in steps(migration.sql) {
                let ways = ["ALTER TABLE ", "REFERENCES ", "DROP TABLE ", "LOCK TABLE "];
                let mut locked: Vec<&str> = ways.iter().flat_map(|words| after(step.sql, words)).collect();
                for index in after(step.sql, "CREATE INDEX ") {
                    locked.extend(after(step.sql, &format!("{index} ON ")));
                }
                locked.retain(|table| !made.contains(table));
                locked.sort_unstable();
                locked.dedup();
                assert!(locked.len() < 2, "{} locks {locked:?} in one step", migration.name);
            }
        }
    }
}
