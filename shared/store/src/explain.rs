//! Owns what the database knows about one record and whatever stands before its embedding. Refuses to judge which of it
//! is the reason.

use serde::Deserialize;
use tokio_postgres::types::Type;

use super::begin::Begin;
use super::{Store, StoreError};

/// All that bears on one record in its project's live space. Times are as PostgreSQL writes them in JSON.
#[derive(Debug, Clone, Deserialize)]
pub struct RecordFacts {
    pub space_id: i32,
    pub paused: bool,
    /// The table that feeds the project.
    pub table: Option<String>,
    /// The record has another origin, as far as is known.
    pub is_stranger: bool,
    pub known: bool,
    pub deleted: bool,
    pub embed: Option<bool>,
    pub embedded_at: Option<String>,
    /// Its vectors are of its current text.
    pub current: bool,
    pub chunks: Option<i32>,
    /// Of the set that it shows, those that are there.
    pub stored_chunks: Option<i64>,
    /// What a provider said when it refused a request with its text.
    pub suspect_reason: Option<String>,
    pub suspect_message: Option<String>,
    /// Inputs that this request had.
    pub suspect_inputs: Option<i32>,
    /// Somebody's transaction held the record when its vectors were to be stored.
    pub was_held: bool,
    pub pending: bool,
    pub not_before: Option<String>,
    /// Positive when it waits for its time.
    pub seconds_to_wait: Option<f64>,
    pub seconds_due: Option<f64>,
    pub attempts: Option<i32>,
    pub quarantine_reason: Option<String>,
    pub quarantine_message: Option<String>,
    pub quarantined_at: Option<String>,
    pub hold_reason: Option<String>,
    pub hold_job: Option<i64>,
    pub job_id: Option<i64>,
    pub job_status: Option<String>,
    /// As while its project is paused.
    pub job_held: Option<bool>,
    pub job_error: Option<String>,
    pub job_seconds_to_wait: Option<f64>,
    /// Since the worker was last seen.
    pub worker_seconds: Option<f64>,
}

/// A row of an attached table that is no record yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowFacts {
    /// There is none of this key.
    Missing,
    /// `--where`, which is this, leaves it out.
    Excluded { filter: String },
    /// It is to be a record.
    Wanted,
}

impl Store {
    /// What an attached table has under a record's id.
    pub async fn row_facts(&self, project: &str, record: &str) -> Result<RowFacts, StoreError> {
        let source = self.source(project).await?;
        let rows = self
            .query_in_transaction(
                Begin::read("SET LOCAL row_security = off; SET LOCAL statement_timeout = '5s'"),
                &match source.generation {
                    0 => format!("SELECT passes FROM cronvec.source_{}_named(ARRAY[$1::text])", source.id),
                    _ => format!(
                        "SELECT passes FROM cronvec.source_{}_named(ARRAY[$1::text], 1, 1)",
                        source.id
                    ),
                },
                &[(&record, Type::TEXT)],
            )
            .await?;
        Ok(match rows.first().map(|row| row.get::<_, bool>(0)) {
            None => RowFacts::Missing,
            Some(true) => RowFacts::Wanted,
            Some(false) => RowFacts::Excluded {
                filter: source.filter.unwrap_or_default(),
            },
        })
    }

    /// What bears on a record of an existing project.
    pub async fn record_facts(&self, project: &str, record: &str) -> Result<RecordFacts, StoreError> {
        let row = self
            .query_opt(
                "SELECT to_jsonb(f) FROM (
                     SELECT l.space_id, p.paused, o.table_name AS table,
                         coalesce(o.origins_known AND r.content IS NOT NULL AND r.source_id IS DISTINCT FROM o.id, false)
                             AS is_stranger,
                         r.id IS NOT NULL AS known,
                         r.id IS NOT NULL AND r.content IS NULL AS deleted, r.embed,
                         e.embedded_at, coalesce(e.content_hash = r.content_hash, false) AS current, e.chunks,
                         (SELECT count(*) FROM cronvec.chunks c WHERE c.space_id = l.space_id AND c.project_id = p.id
                              AND c.record_id = $2 AND c.content_hash = e.content_hash) AS stored_chunks,
                         CASE WHEN w.suspect_hash = r.content_hash THEN w.suspect_reason END AS suspect_reason,
                         CASE WHEN w.suspect_hash = r.content_hash THEN w.suspect_message END AS suspect_message,
                         CASE WHEN w.suspect_hash = r.content_hash THEN w.suspect_inputs END AS suspect_inputs,
                         EXISTS (SELECT FROM cronvec.held_records h WHERE h.record_id = $2 AND h.project_id = p.id
                              AND h.space_id = l.space_id) AS was_held,
                         w.record_id IS NOT NULL AS pending, w.not_before, w.attempts,
                         extract(epoch FROM w.not_before - clock_timestamp())::float8 AS seconds_to_wait,
                         extract(epoch FROM clock_timestamp() - w.not_before)::float8 AS seconds_due,
                         q.reason AS quarantine_reason, q.message AS quarantine_message,
                         q.last_attempt_at AS quarantined_at,
                         h.reason AS hold_reason, h.job_id AS hold_job,
                         j.id AS job_id, j.status AS job_status, j.held AS job_held, j.result->>'error' AS job_error,
                         extract(epoch FROM j.scheduled_for - clock_timestamp())::float8 AS job_seconds_to_wait,
                         (SELECT extract(epoch FROM clock_timestamp() - s.last_seen_at)::float8
                          FROM cronvec.worker_status s WHERE s.name = 'vectorization') AS worker_seconds
                     FROM cronvec.projects p
                     JOIN cronvec.project_spaces l ON l.project_id = p.id AND l.role = 'live'
                     LEFT JOIN cronvec.sources o ON o.project_id = p.id
                     LEFT JOIN cronvec.records r ON r.project_id = p.id AND r.id = $2
                     LEFT JOIN cronvec.embedded e
                         ON e.space_id = l.space_id AND e.project_id = p.id AND e.record_id = $2
                     LEFT JOIN cronvec.pending w
                         ON w.record_id = $2 AND w.project_id = p.id AND w.space_id = l.space_id
                     LEFT JOIN cronvec.quarantined_records q
                         ON q.project_id = p.id AND q.record_id = $2 AND q.space_id = l.space_id
                             AND q.content_hash = r.content_hash
                     LEFT JOIN cronvec.lane_holds h
                         ON h.space_id = l.space_id AND h.project_id = p.id AND h.lane = r.bucket % p.lanes
                             AND h.until > statement_timestamp()
                     LEFT JOIN cronvec.job_queue j
                         ON j.job_type = 'VECTORIZE' AND j.status IN ('PENDING', 'PROCESSING')
                             AND j.space_id = l.space_id AND j.project_id = p.id AND j.lane = r.bucket % p.lanes
                     WHERE p.name = $1) AS f",
                &[(&project, Type::TEXT), (&record, Type::TEXT)],
            )
            .await?
            .ok_or_else(|| StoreError::NoProject(project.into()))?;
        serde_json::from_value(row.get(0)).map_err(|error| StoreError::Unreadable(error.to_string()))
    }
}
