//! Owns the audit log: who did what, when, and to which ids. Refuses to fail the act that it tells of.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{Store, StoreError};
use crate::token::Reach;

/// Whoever locks the log must not keep an operator from acting.
const PATIENCE: Duration = Duration::from_secs(2);

/// Entries that are looked through for those of some projects.
const ENTRIES_LOOKED_AT: i64 = 10_000;

/// Ids that an entry names; their number is told beside them.
pub const IDS_NAMED: usize = 100;

/// An act to be written down.
#[derive(Debug, Clone)]
pub struct Act<'a> {
    /// What kind: `queue`, `project`, `source`, `quarantine`, `backfill`, `schema`, `provider`, `space`, `token`.
    pub category: &'a str,
    pub message: &'a str,
    pub metadata: Value,
    pub operation: Option<&'a str>,
}

/// One entry as it is read.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub timestamp: OffsetDateTime,
    pub level: String,
    pub category: String,
    pub message: String,
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub metadata: Value,
    pub operation_id: Option<String>,
}

/// Which entries are wanted; those left out don't matter.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub level: Option<String>,
    pub category: Option<String>,
    pub operation: Option<String>,
}

fn entry(row: &Row) -> AuditEntry {
    AuditEntry {
        timestamp: row.get(0),
        level: row.get(1),
        category: row.get(2),
        message: row.get(3),
        metadata: row.get(4),
        operation_id: row.get(5),
    }
}

impl Store {
    /// Writes down an act, with the database's role that did it. What can't be written is logged, and no more.
    pub async fn audit(&self, act: Act<'_>) {
        let written = async {
            self.execute(
                "INSERT INTO cronvec.audit_log (level, category, message, metadata, operation_id)
                 VALUES ('info', $1, $2, $3 || jsonb_build_object('role', current_user), $4)",
                &[
                    (&act.category, Type::TEXT),
                    (&act.message, Type::TEXT),
                    (&act.metadata, Type::JSONB),
                    (&act.operation, Type::TEXT),
                ],
            )
            .await
        };
        match tokio::time::timeout(PATIENCE, written).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::error!(error = %error, audit.message = act.message, "an audit entry could not be written");
            }
            Err(_) => tracing::error!(
                audit.message = act.message,
                "an audit entry could not be written in time"
            ),
        }
    }

    /// A page of the latest entries, older than this one, each with its number; of some projects those that name one.
    pub async fn audit_page(
        &self,
        reach: &Reach,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<(i64, AuditEntry)>, StoreError> {
        let rows = self
            .query_in_transaction(
                super::listing::READ,
                "SELECT timestamp, level, category, message, metadata, operation_id, id FROM (
                     SELECT * FROM cronvec.audit_log WHERE id < $2 ORDER BY id DESC
                     LIMIT CASE WHEN $1::text[] IS NULL THEN $3 ELSE $4 END) AS lately
                 WHERE $1::text[] IS NULL OR metadata->>'project' = ANY ($1) ORDER BY id DESC LIMIT $3",
                &[
                    (&reach.projects(), Type::TEXT_ARRAY),
                    (&before.unwrap_or(i64::MAX), Type::INT8),
                    (&limit, Type::INT8),
                    (&ENTRIES_LOOKED_AT, Type::INT8),
                ],
            )
            .await?;
        Ok(rows.iter().map(|row| (row.get(6), entry(row))).collect())
    }

    /// The latest entries, the newest first.
    pub async fn audit_entries(&self, filter: &AuditFilter, limit: i64) -> Result<Vec<AuditEntry>, StoreError> {
        let rows = self
            .query(
                "SELECT timestamp, level, category, message, metadata, operation_id
                 FROM cronvec.audit_log
                 WHERE ($1::text IS NULL OR level = $1) AND ($2::text IS NULL OR category = $2)
                     AND ($3::text IS NULL OR operation_id = $3)
                 ORDER BY timestamp DESC, id DESC LIMIT $4",
                &[
                    (&filter.level, Type::TEXT),
                    (&filter.category, Type::TEXT),
                    (&filter.operation, Type::TEXT),
                    (&limit, Type::INT8),
                ],
            )
            .await?;
        Ok(rows.iter().map(entry).collect())
    }
}
