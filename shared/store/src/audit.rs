//! Owns the audit log: who did what, when, and to which ids. Refuses to fail the act that it tells of.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::charges::Outcome;
use super::{Connection, Store, StoreError};
use cronvec_nouns::job::ClaimedJob;
use cronvec_nouns::token::Reach;

/// Whoever locks the log must not keep an operator from acting.
const PATIENCE: Duration = Duration::from_secs(2);

/// Entries that are looked through for those of some projects.
const ENTRIES_LOOKED_AT: i64 = 10_000;

/// Ids that an entry names; their number is told beside them.
pub const IDS_NAMED: usize = 100;

/// What entries are about. `record`: an attempt at one that failed, told by a worker.
pub const CATEGORIES: [&str; 10] = [
    "queue",
    "project",
    "source",
    "quarantine",
    "backfill",
    "schema",
    "provider",
    "space",
    "token",
    "record",
];
pub const LEVELS: [&str; 4] = ["debug", "info", "warn", "error"];

/// Failed attempts that are told of one record, the latest.
const ATTEMPTS_TOLD: i64 = 20;

/// An attempt at a record that failed, as the log has it.
#[derive(Debug, Clone, Serialize)]
pub struct FailedAttempt {
    pub attempt: i32,
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    pub reason: String,
    pub message: String,
}

/// An act to be written down.
#[derive(Debug, Clone)]
pub struct Act<'a> {
    /// What kind: one of [`CATEGORIES`].
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

    /// Writes down the attempts at records that failed, an entry each. What can't be written is logged, and no more.
    pub async fn audit_failures(&self, connection: &Connection, job: &ClaimedJob, outcomes: &[Outcome]) {
        let ids: Vec<&str> = outcomes.iter().map(|outcome| outcome.record_id.as_str()).collect();
        let attempts: Vec<i32> = outcomes.iter().map(|outcome| outcome.attempt).collect();
        let most: Vec<i32> = outcomes.iter().map(|outcome| outcome.of).collect();
        let reasons: Vec<&str> = outcomes.iter().map(|outcome| outcome.reason).collect();
        let messages: Vec<&str> = outcomes.iter().map(|outcome| outcome.message.as_str()).collect();
        let finals: Vec<bool> = outcomes.iter().map(|outcome| outcome.is_final).collect();
        let params: [super::Param<'_>; 8] = [
            (&job.project, Type::TEXT),
            (&job.lease.job_id, Type::INT8),
            (&ids, Type::TEXT_ARRAY),
            (&attempts, Type::INT4_ARRAY),
            (&most, Type::INT4_ARRAY),
            (&reasons, Type::TEXT_ARRAY),
            (&messages, Type::TEXT_ARRAY),
            (&finals, Type::BOOL_ARRAY),
        ];
        let written = connection.query(
            "INSERT INTO cronvec.audit_log (level, category, message, metadata)
             SELECT 'error', 'record', format('attempt %s of %s failed: %s%s', attempt, most, reason,
                     CASE WHEN final THEN ', quarantined' END),
                 jsonb_build_object('who', 'vectorization', 'role', current_user, 'project', $1::text, 'job', $2::bigint::text,
                     'ids', jsonb_build_array(id), 'count', 1, 'record', id, 'attempt', attempt, 'attempts', most,
                     'reason', reason, 'message', said, 'quarantined', final)
             FROM unnest($3::text[], $4::int[], $5::int[], $6::text[], $7::text[], $8::bool[])
                 AS o (id, attempt, most, reason, said, final)",
            &params,
        );
        match tokio::time::timeout(PATIENCE, written).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(error = %error, "failed attempts could not be written to the audit log"),
            Err(_) => tracing::error!("failed attempts could not be written to the audit log in time"),
        }
    }

    /// The failed attempts at a record that the log has, the first one first.
    pub async fn failed_attempts(&self, project: &str, record: &str) -> Result<Vec<FailedAttempt>, StoreError> {
        let rows = self
            .query(
                "SELECT (metadata->>'attempt')::int, timestamp, metadata->>'reason', coalesce(metadata->>'message', '')
                 FROM cronvec.audit_log
                 WHERE category = 'record' AND hashtextextended(metadata->>'record', 0) = hashtextextended($2, 0)
                     AND metadata->>'record' = $2 AND metadata->>'project' = $1 AND metadata ? 'attempt'
                 ORDER BY id DESC LIMIT $3",
                &[
                    (&project, Type::TEXT),
                    (&record, Type::TEXT),
                    (&ATTEMPTS_TOLD, Type::INT8),
                ],
            )
            .await?;
        let attempts = rows.iter().rev().map(|row| FailedAttempt {
            attempt: row.get(0),
            at: row.get(1),
            reason: row.get(2),
            message: row.get(3),
        });
        Ok(attempts.collect())
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
