//! Owns what operators do with records that stand aside: list, replay, purge. Refuses to put any there.

use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::selection::FailedGroup;
use super::{Param, Store, StoreError};
use cronvec_nouns::token::Reach;

/// Records that one statement moves.
const PAGE: i64 = 500;
/// Records that are counted or grouped at most.
pub const COUNTED: i64 = 100_000;

/// Which records; what is left out doesn't matter.
#[derive(Debug, Clone, Default)]
pub struct QuarantineFilter {
    pub project: Option<String>,
    pub reason: Option<String>,
    pub records: Option<Vec<String>>,
    /// Their last attempt is at least so many days ago.
    pub older_than_days: Option<f64>,
}

/// $1 to $4.
const CHOSEN: &str = "($1::text IS NULL OR p.name = $1) AND ($2::text IS NULL OR q.reason = $2)
    AND ($3::text[] IS NULL OR q.record_id = ANY ($3))
    AND ($4::float8 IS NULL OR q.last_attempt_at < now() - make_interval(secs => $4 * 86400))";

impl QuarantineFilter {
    fn params(&self) -> [Param<'_>; 4] {
        [
            (&self.project, Type::TEXT),
            (&self.reason, Type::TEXT),
            (&self.records, Type::TEXT_ARRAY),
            (&self.older_than_days, Type::FLOAT8),
        ]
    }
}

/// A record that stands aside.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    pub project: String,
    pub record_id: String,
    pub reason: String,
    pub message: String,
    pub attempts: i32,
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub last_attempt_at: OffsetDateTime,
}

/// Where a record stands among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub project_id: i32,
    pub record_id: String,
    pub space_id: i32,
}

fn quarantined(row: &Row) -> Quarantined {
    Quarantined {
        project: row.get(0),
        record_id: row.get(1),
        reason: row.get(2),
        message: row.get(3),
        attempts: row.get(4),
        last_attempt_at: row.get(5),
    }
}

impl Store {
    /// The latest of them.
    pub async fn quarantined(&self, filter: &QuarantineFilter, limit: i64) -> Result<Vec<Quarantined>, StoreError> {
        let mut params = filter.params().to_vec();
        params.push((&limit, Type::INT8));
        let rows = self
            .query(
                &format!(
                    "SELECT p.name, q.record_id, q.reason, q.message, q.attempts, q.last_attempt_at
                     FROM cronvec.quarantined_records q JOIN cronvec.projects p ON p.id = q.project_id
                     WHERE {CHOSEN} ORDER BY q.last_attempt_at DESC, q.record_id LIMIT $5"
                ),
                &params,
            )
            .await?;
        Ok(rows.iter().map(quarantined).collect())
    }

    /// A page of them, in the order of projects and records, behind a place; each with its own place.
    pub async fn quarantined_page(
        &self,
        reach: &Reach,
        reason: Option<&str>,
        after: Option<&Place>,
        limit: i64,
    ) -> Result<Vec<(Quarantined, Place)>, StoreError> {
        let first = Place {
            project_id: 0,
            record_id: String::new(),
            space_id: 0,
        };
        let after = after.unwrap_or(&first);
        let rows = self
            .query_in_transaction(
                super::listing::READ,
                "SELECT p.name, q.record_id, q.reason, q.message, q.attempts, q.last_attempt_at, q.project_id, q.space_id
                 FROM cronvec.quarantined_records q JOIN cronvec.projects p ON p.id = q.project_id
                 WHERE (q.project_id, q.record_id, q.space_id) > ($3, $4, $5)
                     AND ($1::text[] IS NULL OR p.name = ANY ($1)) AND ($2::text IS NULL OR q.reason = $2)
                 ORDER BY q.project_id, q.record_id, q.space_id LIMIT $6",
                &[
                    (&reach.projects(), Type::TEXT_ARRAY),
                    (&reason, Type::TEXT),
                    (&after.project_id, Type::INT4),
                    (&after.record_id, Type::TEXT),
                    (&after.space_id, Type::INT4),
                    (&limit, Type::INT8),
                ],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| {
                let place = Place {
                    project_id: row.get(6),
                    record_id: row.get(1),
                    space_id: row.get(7),
                };
                (quarantined(row), place)
            })
            .collect())
    }

    /// How many there are, counted up to [`COUNTED`].
    pub async fn count_quarantined(&self, filter: &QuarantineFilter) -> Result<i64, StoreError> {
        let mut params = filter.params().to_vec();
        params.push((&COUNTED, Type::INT8));
        let row = self
            .query_one(
                &format!(
                    "SELECT count(*) FROM (
                         SELECT FROM cronvec.quarantined_records q JOIN cronvec.projects p ON p.id = q.project_id
                         WHERE {CHOSEN} LIMIT $5) AS first_ones"
                ),
                &params,
            )
            .await?;
        Ok(row.get(0))
    }

    /// How many there are of each reason, of [`COUNTED`] at most.
    #[allow(clippy::cast_precision_loss, reason = "numbers for charts")]
    pub async fn quarantine_by_reason(&self) -> Result<Vec<(String, f64)>, StoreError> {
        let rows = self
            .query(
                "SELECT reason, count(*) FROM (SELECT reason FROM cronvec.quarantined_records LIMIT $1) AS first_ones
                 GROUP BY reason ORDER BY reason LIMIT 100",
                &[(&COUNTED, Type::INT8)],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| (row.get(0), row.get::<_, i64>(1) as f64))
            .collect())
    }

    /// By reason and project, the most frequent first.
    pub async fn quarantined_by_reason(&self, filter: &QuarantineFilter) -> Result<Vec<FailedGroup>, StoreError> {
        let mut params = filter.params().to_vec();
        params.push((&COUNTED, Type::INT8));
        let rows = self
            .query(
                &format!(
                    "SELECT reason, project, count(*), (array_agg(record_id ORDER BY last_attempt_at DESC))[1],
                         (array_agg(message ORDER BY last_attempt_at DESC))[1],
                         to_char(max(last_attempt_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
                     FROM (
                         SELECT q.reason, p.name AS project, q.record_id, q.message, q.last_attempt_at
                         FROM cronvec.quarantined_records q JOIN cronvec.projects p ON p.id = q.project_id
                         WHERE {CHOSEN} LIMIT $5) AS first_ones
                     GROUP BY reason, project ORDER BY count(*) DESC, reason, project LIMIT 100"
                ),
                &params,
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| FailedGroup {
                kind: "record".to_owned(),
                reason: row.get(0),
                project: row.get(1),
                count: row.get(2),
                example: row.get(3),
                message: row.get(4),
                last_at: row.get(5),
            })
            .collect())
    }

    /// Lets a page of them try again, one behind the other at this rate: `before` of this replay are in line already.
    /// Gives the records' ids; none when there are no more that nobody has locked.
    pub async fn replay_page(
        &self,
        filter: &QuarantineFilter,
        per_second: Option<f64>,
        before: i64,
        limit: i64,
    ) -> Result<Vec<String>, StoreError> {
        let limit = limit.min(PAGE);
        let mut params = filter.params().to_vec();
        params.extend([
            (&limit as &(dyn tokio_postgres::types::ToSql + Sync), Type::INT8),
            (&before, Type::INT8),
            (&per_second, Type::FLOAT8),
        ]);
        let rows = self
            .query(
                &format!(
                    "WITH chosen AS MATERIALIZED (
                         SELECT q.space_id, q.project_id, q.record_id, r.bucket
                         FROM cronvec.quarantined_records q
                         JOIN cronvec.projects p ON p.id = q.project_id
                         JOIN cronvec.records r ON r.project_id = q.project_id AND r.id = q.record_id
                         WHERE {CHOSEN}
                         ORDER BY q.project_id, q.record_id, q.space_id LIMIT $5
                         FOR NO KEY UPDATE OF r, q SKIP LOCKED
                     ), freed AS (
                         DELETE FROM cronvec.quarantined_records q USING chosen c
                         WHERE q.space_id = c.space_id AND q.project_id = c.project_id AND q.record_id = c.record_id
                     ), numbered AS (
                         SELECT *, row_number() OVER (ORDER BY project_id, record_id, space_id) - 1 AS nth FROM chosen
                     ), marked AS (
                         -- Numbered as no write is: something of them may be stored already.
                         INSERT INTO cronvec.pending (space_id, project_id, record_id, bucket, operation, not_before)
                         SELECT space_id, project_id, record_id, bucket, nextval('cronvec.acceptance'),
                             clock_timestamp() + make_interval(secs => coalesce(($6 + nth) / $7::float8, 0))
                         FROM numbered ORDER BY record_id, project_id, space_id
                         ON CONFLICT ON CONSTRAINT pending_pkey DO UPDATE
                             SET not_before = excluded.not_before, attempts = 0
                     )
                     SELECT record_id FROM chosen"
                ),
                &params,
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Forgets a page of them; gives the records' ids. They are embedded when their text changes, or by a backfill.
    pub async fn purge_page(&self, filter: &QuarantineFilter) -> Result<Vec<String>, StoreError> {
        let mut params = filter.params().to_vec();
        params.push((&PAGE, Type::INT8));
        let rows = self
            .query(
                &format!(
                    "WITH chosen AS MATERIALIZED (
                         SELECT q.space_id, q.project_id, q.record_id
                         FROM cronvec.quarantined_records q JOIN cronvec.projects p ON p.id = q.project_id
                         WHERE {CHOSEN}
                         ORDER BY q.project_id, q.record_id, q.space_id LIMIT $5 FOR UPDATE OF q SKIP LOCKED)
                     DELETE FROM cronvec.quarantined_records q USING chosen c
                     WHERE q.space_id = c.space_id AND q.project_id = c.project_id AND q.record_id = c.record_id
                     RETURNING q.record_id"
                ),
                &params,
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}
