//! Owns what operators ask of jobs: numbers, one job, retry, cancel. Refuses to work on any.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{Store, StoreError};
use cronvec_nouns::job::JobStatus;

/// Beyond it the numbers of a status are said to be capped: no page counts what can grow without end.
const CAP: i64 = 10_000;

/// How many jobs stand in each status, each counted up to $1 + 1. The order has each read along an index of its own: a
/// status that stands at the far end of the table isn't searched for there.
pub const COUNTS: &str = "SELECT
    (SELECT count(*) FROM (SELECT FROM cronvec.job_queue WHERE status = 'PENDING'
         ORDER BY held, scheduled_for LIMIT $1 + 1) AS first_ones),
    (SELECT count(*) FROM (SELECT FROM cronvec.job_queue WHERE status = 'PROCESSING'
         ORDER BY id LIMIT $1 + 1) AS first_ones),
    (SELECT count(*) FROM (SELECT FROM cronvec.job_queue WHERE status = 'COMPLETED' AND completed_at IS NOT NULL
         ORDER BY completed_at DESC LIMIT $1 + 1) AS first_ones),
    (SELECT count(*) FROM (SELECT FROM cronvec.job_queue WHERE status = 'FAILED'
         ORDER BY id LIMIT $1 + 1) AS first_ones)";

/// The numbers of the queue, as `contract` has them.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueStats {
    pub queue_stats: Counts,
    /// Those of `queueStats` that are at least so many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capped: Vec<&'static str>,
    pub recent_jobs: Vec<JobView>,
    pub oldest_pending_job: Option<OldestPending>,
}

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    pub pending: i64,
    pub processing: i64,
    pub completed: i64,
    pub failed: i64,
}

/// A job as the outside sees it.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobView {
    pub id: String,
    pub job_type: String,
    pub project: String,
    pub status: String,
    pub priority: i32,
    pub attempts: i32,
    pub max_attempts: i32,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub progress: Option<Value>,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub result: Option<Value>,
    pub scheduled_for: String,
    pub created_at: String,
    pub started_at: Option<String>,
    pub completed_at: Option<String>,
}

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OldestPending {
    pub id: String,
    pub created_at: String,
    /// Since it could first be claimed.
    pub age_minutes: f64,
}

pub(super) const VIEW: &str =
    "id, job_type, project, status, priority, attempts, max_attempts, progress, result, scheduled_for,
    created_at, started_at, completed_at";

impl Store {
    pub async fn queue_stats(&self) -> Result<QueueStats, StoreError> {
        let counts = self
            .query_in_transaction(super::listing::READ_ALONG, COUNTS, &[(&CAP, Type::INT8)])
            .await?;
        let counts = counts.first().ok_or_else(super::no_row)?;
        let mut capped = Vec::new();
        let mut count = |column: usize, name: &'static str| {
            let jobs: i64 = counts.get(column);
            if jobs > CAP {
                capped.push(name);
            }
            jobs.min(CAP)
        };
        let stats = Counts {
            pending: count(0, "pending"),
            processing: count(1, "processing"),
            completed: count(2, "completed"),
            failed: count(3, "failed"),
        };
        Ok(QueueStats {
            queue_stats: stats,
            capped,
            recent_jobs: self.recent_jobs(50).await?,
            oldest_pending_job: self.oldest_pending_job().await?,
        })
    }

    /// Of those that could be claimed now.
    pub async fn oldest_pending_job(&self) -> Result<Option<OldestPending>, StoreError> {
        let oldest = self
            .query_opt(
                "SELECT id, created_at, (extract(epoch FROM clock_timestamp() - scheduled_for) / 60)::float8
                 FROM cronvec.job_queue
                 WHERE status = 'PENDING' AND NOT held AND scheduled_for <= statement_timestamp()
                 ORDER BY scheduled_for LIMIT 1",
                &[],
            )
            .await?;
        Ok(oldest.map(|row| OldestPending {
            id: row.get::<_, i64>(0).to_string(),
            created_at: rfc3339(row.get(1)),
            age_minutes: (row.get::<_, f64>(2) * 10.0).round() / 10.0,
        }))
    }

    pub async fn recent_jobs(&self, limit: i64) -> Result<Vec<JobView>, StoreError> {
        let statement = format!("SELECT {VIEW} FROM cronvec.job_queue ORDER BY id DESC LIMIT $1");
        Ok(self
            .query(&statement, &[(&limit, Type::INT8)])
            .await?
            .iter()
            .map(view)
            .collect())
    }

    pub async fn job(&self, id: i64) -> Result<JobView, StoreError> {
        let statement = format!("SELECT {VIEW} FROM cronvec.job_queue WHERE id = $1");
        self.query_opt(&statement, &[(&id, Type::INT8)])
            .await?
            .as_ref()
            .map(view)
            .ok_or(StoreError::NoJob(id))
    }

    /// Whether a job waits for its time, as after a failure; not whether its project is paused.
    pub async fn is_scheduled(&self, id: i64) -> Result<bool, StoreError> {
        let row = self
            .query_one(
                "SELECT EXISTS (
                     SELECT FROM cronvec.job_queue
                     WHERE id = $1 AND status = 'PENDING' AND NOT held AND scheduled_for > clock_timestamp())",
                &[(&id, Type::INT8)],
            )
            .await?;
        Ok(row.get(0))
    }

    /// Whether a worker embeds this project now, or died doing so a moment ago: its lease runs out by itself.
    pub async fn is_being_embedded(&self, project: &str) -> Result<bool, StoreError> {
        let row = self
            .query_one(
                "SELECT EXISTS (
                     SELECT FROM cronvec.job_queue
                     WHERE status = 'PROCESSING' AND job_type = 'VECTORIZE' AND project = $1)",
                &[(&project, Type::TEXT)],
            )
            .await?;
        Ok(row.get(0))
    }

    /// Whether a job that embeds this project failed and waits to be tried again.
    pub async fn is_embedding_scheduled(&self, project: &str) -> Result<bool, StoreError> {
        let row = self
            .query_one(
                "SELECT EXISTS (
                     SELECT FROM cronvec.job_queue
                     WHERE job_type = 'VECTORIZE' AND project = $1 AND status = 'PENDING' AND NOT held AND attempts > 0
                         AND scheduled_for > clock_timestamp())",
                &[(&project, Type::TEXT)],
            )
            .await?;
        Ok(row.get(0))
    }

    /// Puts a FAILED or CANCELLED job back, its attempts anew, and lifts the hold of its lane.
    pub async fn retry_job(&self, id: i64) -> Result<(), StoreError> {
        // Someone has just made another job for its lane: at the second look it can be seen, and named.
        let mut outcome = self.try_to_retry(id).await;
        if outcome.as_ref().is_err_and(StoreError::is_duplicate) {
            outcome = self.try_to_retry(id).await;
        }
        outcome.map_err(|error| match error.is_duplicate() {
            true => StoreError::Conflict(format!("another job does the work of job {id}'s lane already")),
            false => error,
        })
    }

    async fn try_to_retry(&self, id: i64) -> Result<(), StoreError> {
        let row = self
            .query_opt(
                "WITH job AS MATERIALIZED (
                     SELECT * FROM cronvec.job_queue WHERE id = $1 FOR NO KEY UPDATE
                 ), rival AS MATERIALIZED (
                     SELECT r.id FROM job JOIN cronvec.job_queue r
                         ON job.job_type = 'VECTORIZE' AND r.job_type = 'VECTORIZE' AND r.space_id = job.space_id
                             AND r.project_id = job.project_id AND r.lane = job.lane
                             AND r.status IN ('PENDING', 'PROCESSING') AND r.id <> job.id
                 ), project AS MATERIALIZED (
                     -- A pause or a resumption waits for us.
                     SELECT p.paused FROM job JOIN cronvec.projects p ON p.id = job.project_id FOR SHARE OF p
                 ), open AS MATERIALIZED (
                     -- Its bodies go on coming in.
                     SELECT o.job_id FROM job JOIN cronvec.open_jobs o ON o.job_id = job.id
                 ), again AS (
                     UPDATE cronvec.job_queue j
                     SET status = 'PENDING', attempts = 0, crashes = 0, crashed_leases = NULL, completed_at = NULL, result = NULL,
                         scheduled_for = CASE WHEN EXISTS (SELECT FROM open) THEN j.scheduled_for
                             ELSE clock_timestamp() END,
                         held = project.paused,
                         turn = CASE WHEN NOT project.paused AND NOT EXISTS (SELECT FROM open)
                             THEN cronvec.next_turn(job.job_type, job.space_id, job.project_id, job.priority) END
                     FROM job, project
                     WHERE j.id = job.id AND job.status IN ('FAILED', 'CANCELLED') AND NOT EXISTS (SELECT FROM rival)
                     RETURNING j.id
                 ), lifted AS (
                     -- Also those of lanes that its own has been divided into since.
                     DELETE FROM cronvec.lane_holds h USING job, again
                     WHERE h.space_id = job.space_id AND h.project_id = job.project_id
                         AND (h.lane = job.lane OR h.job_id = job.id)
                 )
                 SELECT job.status, (SELECT id FROM rival LIMIT 1), EXISTS (SELECT FROM again) FROM job",
                &[(&id, Type::INT8)],
            )
            .await?
            .ok_or(StoreError::NoJob(id))?;
        if row.get(2) {
            return Ok(());
        }
        let status: JobStatus = row.get::<_, &str>(0).parse().map_err(StoreError::Unreadable)?;
        Err(match row.get::<_, Option<i64>>(1) {
            Some(active) if matches!(status, JobStatus::Failed | JobStatus::Cancelled) => {
                StoreError::ActiveJob { id, active }
            }
            _ => StoreError::Invalid(format!(
                "job {id} is {}; only FAILED and CANCELLED ones are retried",
                status.as_str()
            )),
        })
    }

    /// Cancels a job that hasn't ended. Its worker, if it has one, finds out at its next write.
    pub async fn cancel_job(&self, id: i64) -> Result<(), StoreError> {
        let row = self
            .query_opt(
                "WITH job AS MATERIALIZED (
                     SELECT * FROM cronvec.job_queue WHERE id = $1 FOR NO KEY UPDATE
                 ), cancelled AS (
                     UPDATE cronvec.job_queue j
                     SET status = 'CANCELLED', turn = NULL, completed_at = clock_timestamp(), lease_token = NULL,
                         lease_expires_at = NULL, result = coalesce(j.result, '{}') || '{\"error\": \"cancelled\"}'
                     FROM job WHERE j.id = job.id AND job.status IN ('PENDING', 'PROCESSING')
                     RETURNING j.id
                 ), hold AS (
                     INSERT INTO cronvec.lane_holds (space_id, project_id, lane, job_id, reason, until)
                     SELECT job.space_id, job.project_id, job.lane, job.id, 'CANCELLED', 'infinity' FROM job, cancelled
                     WHERE job.job_type = 'VECTORIZE'
                     ON CONFLICT ON CONSTRAINT lane_holds_pkey DO UPDATE
                         SET job_id = excluded.job_id, reason = excluded.reason, until = excluded.until
                 )
                 SELECT job.status, EXISTS (SELECT FROM cancelled) FROM job",
                &[(&id, Type::INT8)],
            )
            .await?
            .ok_or(StoreError::NoJob(id))?;
        let status: JobStatus = row.get::<_, &str>(0).parse().map_err(StoreError::Unreadable)?;
        if row.get(1) {
            return Ok(());
        }
        debug_assert!(status.has_ended(), "an active job is cancelled");
        Err(StoreError::Invalid(format!(
            "job {id} has already ended: it is {}",
            row.get::<_, &str>(0)
        )))
    }
}

pub(super) fn view(row: &Row) -> JobView {
    JobView {
        id: row.get::<_, i64>(0).to_string(),
        job_type: row.get(1),
        project: row.get(2),
        status: row.get(3),
        priority: row.get(4),
        attempts: row.get(5),
        max_attempts: row.get(6),
        progress: row.get(7),
        result: row.get(8),
        scheduled_for: rfc3339(row.get(9)),
        created_at: rfc3339(row.get(10)),
        started_at: row.get::<_, Option<OffsetDateTime>>(11).map(rfc3339),
        completed_at: row.get::<_, Option<OffsetDateTime>>(12).map(rfc3339),
    }
}

pub(super) fn rfc3339(at: OffsetDateTime) -> String {
    // Every time that PostgreSQL gives within year 9999 can be written so; what can't is shown as it stands.
    at.format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}
