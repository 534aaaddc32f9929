//! Owns what the server must offer before there is a schema: its version, the schema's name, pgvector. Refuses to know
//! what a migration does.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use super::SchemaError;
use crate::StoreError;

/// PostgreSQL 15, as `server_version_num` has it.
const OLDEST_POSTGRES: i32 = 150_000;
const OLDEST_VECTOR: (u32, u32) = (0, 7);

pub(super) async fn check(client: &Client) -> Result<(), StoreError> {
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

pub(super) async fn create_schema(transaction: &Transaction<'_>) -> Result<(), StoreError> {
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
            Some(server) if *server.code() == SqlState::INSUFFICIENT_PRIVILEGE => {
                SchemaError::SchemaForbidden(server.message().into()).into()
            }
            _ => StoreError::from(error),
        })
}

/// Makes sure of the extension and returns the schema that it lives in, quoted. Never in ours, which `uninstall` drops;
/// the search path of a role named cronvec would put it there.
pub(super) async fn ensure_vector(transaction: &Transaction<'_>) -> Result<String, StoreError> {
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
                Some(server) if *server.code() == SqlState::INSUFFICIENT_PRIVILEGE => {
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
pub(crate) fn is_too_old(vector: &str) -> bool {
    let mut parts = vector.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OLDEST_VECTOR
}
