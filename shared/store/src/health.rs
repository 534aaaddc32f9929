//! Owns what the database says about its own state and ours: connections, versions, columns, clock. Refuses to judge it.

use tokio_postgres::types::Type;

use super::{Store, StoreError};

/// Rejected records that are looked through.
const REJECTS_LOOKED_AT: i64 = 10_000;

/// The server's state.
#[derive(Debug, Clone)]
pub struct Server {
    pub version: String,
    /// It takes no writes: a replica, or set so.
    pub is_read_only: bool,
    pub connections: i64,
    pub max_connections: i64,
    pub oldest_transaction_minutes: Option<f64>,
}

impl Store {
    /// Works without our schema.
    pub async fn server(&self) -> Result<Server, StoreError> {
        let row = self
            .query_one(
                "SELECT current_setting('server_version'),
                     pg_is_in_recovery() OR current_setting('transaction_read_only')::bool,
                     (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
                     current_setting('max_connections')::bigint,
                     (SELECT (extract(epoch FROM clock_timestamp() - min(xact_start)) / 60)::float8 FROM pg_stat_activity
                      WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid())",
                &[],
            )
            .await?;
        Ok(Server {
            version: row.get(0),
            is_read_only: row.get(1),
            connections: row.get(2),
            max_connections: row.get(3),
            oldest_transaction_minutes: row.get(4),
        })
    }

    /// The extension's version and whether it is too old; `None` if it isn't there.
    pub async fn vector_version(&self) -> Result<Option<(String, bool)>, StoreError> {
        let row = self
            .query_opt("SELECT extversion FROM pg_extension WHERE extname = 'vector'", &[])
            .await?;
        Ok(row.map(|row| {
            let version: String = row.get(0);
            let is_too_old = super::migrate::is_too_old(&version);
            (version, is_too_old)
        }))
    }

    /// Spaces whose partition is missing, has another type of column, or lacks the check of its width; in words.
    pub async fn wrong_vector_columns(&self) -> Result<Vec<String>, StoreError> {
        let rows = self
            .query(
                "SELECT CASE
                         WHEN c.oid IS NULL THEN format('space %s has no partition cronvec.chunks_%s', s.id, s.id)
                         WHEN t.typname IS DISTINCT FROM 'vector'
                             THEN format('cronvec.chunks_%s.embedding is %s, not vector', s.id, coalesce(t.typname, 'missing'))
                         ELSE format('cronvec.chunks_%s has no check that its vectors are %s wide', s.id, s.dimensions) END
                 FROM cronvec.spaces s
                 LEFT JOIN pg_class c ON c.relname = 'chunks_' || s.id AND c.relnamespace = 'cronvec'::regnamespace
                     AND c.relispartition
                 LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'embedding' AND NOT a.attisdropped
                 LEFT JOIN pg_type t ON t.oid = a.atttypid
                 WHERE c.oid IS NULL OR t.typname IS DISTINCT FROM 'vector' OR NOT EXISTS (
                     SELECT FROM pg_constraint o WHERE o.conrelid = c.oid AND o.contype = 'c' AND o.convalidated
                         AND o.conname = 'chunks_' || s.id || '_width'
                         AND pg_get_constraintdef(o.oid) LIKE '%= ' || s.dimensions || ')%')
                 ORDER BY s.id LIMIT 10",
                &[],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Records that were rejected lately for their size, and what one of them was told.
    pub async fn too_large_rejects(&self) -> Result<(i64, String), StoreError> {
        let row = self
            .query_one(
                "SELECT count(*), coalesce(max(reason), '') FROM (
                     SELECT reason FROM cronvec.ingest_rejects ORDER BY job_id DESC, line LIMIT $1) AS lately
                 WHERE reason ~* 'MAX_CONTENT_BYTES|longer than|too large'",
                &[(&REJECTS_LOOKED_AT, Type::INT8)],
            )
            .await?;
        Ok((row.get(0), row.get(1)))
    }

    /// The database's clock, in seconds since 1970.
    pub async fn seconds_of_clock(&self) -> Result<f64, StoreError> {
        let row = self
            .query_one("SELECT extract(epoch FROM clock_timestamp())::float8", &[])
            .await?;
        Ok(row.get(0))
    }
}
