//! Owns the schema: its numbered migrations, its version, what the server must offer. Refuses to go back.

mod objects;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};

use super::{Store, StoreError};

struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: [Migration; 10] = [
    Migration {
        version: 1,
        name: "queue",
        sql: include_str!("../../../migrations/0001_queue.sql"),
    },
    Migration {
        version: 2,
        name: "sql_interface",
        sql: include_str!("../../../migrations/0002_sql_interface.sql"),
    },
    Migration {
        version: 3,
        name: "pending",
        sql: include_str!("../../../migrations/0003_pending.sql"),
    },
    Migration {
        version: 4,
        name: "ingestion",
        sql: include_str!("../../../migrations/0004_ingestion.sql"),
    },
    Migration {
        version: 5,
        name: "sources",
        sql: include_str!("../../../migrations/0005_sources.sql"),
    },
    Migration {
        version: 6,
        name: "operations",
        sql: include_str!("../../../migrations/0006_operations.sql"),
    },
    Migration {
        version: 7,
        name: "removal",
        sql: include_str!("../../../migrations/0007_removal.sql"),
    },
    Migration {
        version: 8,
        name: "api",
        sql: include_str!("../../../migrations/0008_api.sql"),
    },
    Migration {
        version: 9,
        name: "bodies",
        sql: include_str!("../../../migrations/0009_bodies.sql"),
    },
    Migration {
        version: 10,
        name: "origins",
        sql: include_str!("../../../migrations/0010_origins.sql"),
    },
];

/// The schema that this code was written for.
pub const VERSION: i32 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// PostgreSQL 15, as `server_version_num` has it.
const OLDEST_POSTGRES: i32 = 150_000;
const OLDEST_VECTOR: (u32, u32) = (0, 7);

/// Why the schema can't be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("the database has no schema 'cronvec' yet; run: cronvec migrate up")]
    Missing,
    #[error("the database's schema is at version {found}, this program needs {VERSION}; run: cronvec migrate up")]
    TooOld { found: i32 },
    #[error("the database's schema is at version {found}, this program knows {VERSION}; use a newer cronvec")]
    TooNew { found: i32 },
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

/// Brings the schema to this program's version. Returns the versions that it applied. Two at once are safe.
pub async fn up(client: &mut Client) -> Result<Vec<i32>, StoreError> {
    up_to(client, VERSION).await
}

/// The same, to a former version.
pub async fn up_to(client: &mut Client, last: i32) -> Result<Vec<i32>, StoreError> {
    check_server(client).await?;
    let transaction = client.transaction().await?;
    // One migrator at a time; released with the transaction, so that a pooler loses nothing.
    transaction
        .batch_execute("SELECT pg_advisory_xact_lock(7233170410842381)")
        .await?;
    create_schema(&transaction).await?;
    let vector_schema = ensure_vector(&transaction).await?;
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS cronvec.migrations (
                 version int PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,
                 applied_at timestamptz NOT NULL DEFAULT now())",
        )
        .await?;
    let found = version(&transaction).await?;
    if found > VERSION {
        return Err(SchemaError::TooNew { found }.into());
    }
    let mut applied = Vec::new();
    let missing = |migration: &&Migration| migration.version > found && migration.version <= last;
    for migration in MIGRATIONS.iter().filter(missing) {
        transaction
            .batch_execute(&migration.sql.replace("@vector_schema@", &vector_schema))
            .await?;
        transaction
            .execute_typed(
                "INSERT INTO cronvec.migrations (version, name, checksum) VALUES ($1, $2, $3)",
                &[
                    (&migration.version, Type::INT4),
                    (&migration.name, Type::TEXT),
                    (&checksum(migration), Type::TEXT),
                ],
            )
            .await?;
        applied.push(migration.version);
    }
    if !applied.is_empty() {
        objects::note(&transaction).await?;
    }
    transaction.commit().await?;
    Ok(applied)
}

/// Each known migration, applied or not.
pub async fn status(client: &Client) -> Result<Vec<MigrationStatus>, StoreError> {
    let found = if schema_exists(client).await? {
        version(client).await?
    } else {
        0
    };
    Ok(MIGRATIONS
        .iter()
        .map(|migration| MigrationStatus {
            version: migration.version,
            name: migration.name.into(),
            applied: migration.version <= found,
        })
        .collect())
}

/// Whether the schema is the one that this program's migrations make.
pub async fn verify(client: &Client) -> Result<(), StoreError> {
    check_server(client).await?;
    if !schema_exists(client).await? {
        return Err(SchemaError::Missing.into());
    }
    compare(version(client).await?)?;
    for row in client
        .query_typed(
            "SELECT version, name, checksum FROM cronvec.migrations ORDER BY version",
            &[],
        )
        .await?
    {
        let (applied, name, sum): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
        let known = MIGRATIONS.iter().find(|migration| migration.version == applied);
        if known.is_none_or(|migration| checksum(migration) != sum) {
            return Err(SchemaError::Changed { version: applied, name }.into());
        }
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
        let client = self.client().await?;
        if !schema_exists(&client).await? {
            return Err(SchemaError::Missing.into());
        }
        Ok(compare(version(&**client).await?)?)
    }
}

fn compare(found: i32) -> Result<(), SchemaError> {
    match found.cmp(&VERSION) {
        std::cmp::Ordering::Less => Err(SchemaError::TooOld { found }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(SchemaError::TooNew { found }),
    }
}

async fn version(client: &impl tokio_postgres::GenericClient) -> Result<i32, StoreError> {
    let row = client
        .query_typed("SELECT coalesce(max(version), 0) FROM cronvec.migrations", &[])
        .await?;
    Ok(row.first().map_or(0, |row| row.get(0)))
}

async fn schema_exists(client: &Client) -> Result<bool, StoreError> {
    let rows = client
        .query_typed("SELECT to_regclass('cronvec.migrations') IS NOT NULL", &[])
        .await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

async fn check_server(client: &Client) -> Result<(), StoreError> {
    let rows = client
        .query_typed(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version')",
            &[],
        )
        .await?;
    match rows.first() {
        Some(row) if row.get::<_, i32>(0) < OLDEST_POSTGRES => Err(SchemaError::PostgresTooOld(row.get(1)).into()),
        _ => Ok(()),
    }
}

async fn create_schema(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let rows = transaction
        .query_typed("SELECT to_regnamespace('cronvec') IS NOT NULL", &[])
        .await?;
    if rows.first().is_some_and(|row| row.get(0)) {
        return Ok(());
    }
    transaction
        .batch_execute("CREATE SCHEMA cronvec")
        .await
        .map_err(|error| match error.as_db_error() {
            Some(server) if *server.code() == tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE => {
                SchemaError::SchemaForbidden(server.message().into()).into()
            }
            _ => StoreError::from(error),
        })
}

/// Makes sure of the extension and returns the schema that it lives in, quoted. Never in ours, which `uninstall` drops;
/// the search path of a role named cronvec would put it there.
async fn ensure_vector(transaction: &Transaction<'_>) -> Result<String, StoreError> {
    let find = "SELECT quote_ident(n.nspname), e.extversion
                FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'";
    let mut rows = transaction.query_typed(find, &[]).await?;
    if rows.is_empty() {
        let offered = transaction
            .query_typed("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'", &[])
            .await?;
        if offered.is_empty() {
            return Err(SchemaError::NoVector.into());
        }
        transaction
            .batch_execute("CREATE EXTENSION vector SCHEMA public")
            .await
            .map_err(|error| match error.as_db_error() {
                Some(server) if *server.code() == tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE => {
                    SchemaError::VectorForbidden(server.message().into()).into()
                }
                _ => StoreError::from(error),
            })?;
        rows = transaction.query_typed(find, &[]).await?;
    }
    let row = rows.first().ok_or(SchemaError::NoVector)?;
    let installed: String = row.get(1);
    if is_too_old(&installed) {
        return Err(SchemaError::VectorTooOld(installed).into());
    }
    Ok(row.get(0))
}

/// Whether this version of pgvector lacks what we need.
pub(super) fn is_too_old(vector: &str) -> bool {
    let mut parts = vector.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OLDEST_VECTOR
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
