//! Owns the choice of jobs by status, type and project, for lists and for acts on many. Refuses to act on them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::Type;

use super::jobs::{JobView, VIEW, view};
use super::{Param, Store, StoreError};
use cronvec_nouns::job::{JobStatus, JobType};

/// The latest failed jobs that are grouped by their reason.
const FAILED_LOOKED_AT: i64 = 10_000;
/// Groups that are shown.
const GROUPS: i64 = 100;

/// Which jobs; what is left out doesn't matter.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    pub status: Option<JobStatus>,
    pub job_type: Option<JobType>,
    pub project: Option<String>,
}

impl JobFilter {
    /// The status as it stands, so that the index of that status alone is seen to fit. $1 is the type, $2 the project.
    fn condition(&self) -> String {
        let rest = "($1::text IS NULL OR job_type = $1) AND ($2::text IS NULL OR project = $2)";
        match self.status {
            Some(status) => format!("status = '{}' AND {rest}", status.as_str()),
            None => rest.to_owned(),
        }
    }
}

/// All of a job, but for the texts in it.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobDetail {
    #[serde(flatten)]
    pub job: JobView,
    pub space: Option<i32>,
    pub lane: i16,
    pub lanes: i16,
    pub held: bool,
    pub crashes: i32,
    pub backoff_ms: i32,
    pub active_ms: i64,
    pub worker: Option<String>,
    /// Of a job that is worked on; negative when the lease has run out.
    pub lease_seconds_left: Option<f64>,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub cursor: Option<Value>,
    /// Without its records.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub payload: Option<Value>,
    pub staged_pieces: i64,
    pub rejected: i64,
    /// Why no new job is made for its lane, where this job is the reason.
    pub holds_its_lane: Option<String>,
}

/// Jobs that failed alike.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedGroup {
    /// `job` or `record`.
    pub kind: String,
    pub reason: String,
    pub project: String,
    pub count: i64,
    /// The latest: a job's id or a record's.
    pub example: String,
    pub message: Option<String>,
    pub last_at: Option<String>,
}

impl Store {
    /// The latest jobs of a kind, the newest first.
    pub async fn jobs_of(&self, filter: &JobFilter, limit: i64) -> Result<Vec<JobView>, StoreError> {
        let condition = filter.condition();
        let statement = format!("SELECT {VIEW} FROM cronvec.job_queue WHERE {condition} ORDER BY id DESC LIMIT $3");
        let kind = filter.job_type.map(JobType::as_str);
        let params: [Param<'_>; 3] = [(&kind, Type::TEXT), (&filter.project, Type::TEXT), (&limit, Type::INT8)];
        Ok(self.query(&statement, &params).await?.iter().map(view).collect())
    }

    /// Their ids behind this one, in their order: a page for acting on many.
    pub async fn job_ids(&self, filter: &JobFilter, after: i64, limit: i64) -> Result<Vec<i64>, StoreError> {
        let condition = filter.condition();
        let statement = format!("SELECT id FROM cronvec.job_queue WHERE {condition} AND id > $3 ORDER BY id LIMIT $4");
        let kind = filter.job_type.map(JobType::as_str);
        let params: [Param<'_>; 4] = [
            (&kind, Type::TEXT),
            (&filter.project, Type::TEXT),
            (&after, Type::INT8),
            (&limit, Type::INT8),
        ];
        let rows = self.query(&statement, &params).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// One job with all that is known of it.
    pub async fn job_detail(&self, id: i64) -> Result<JobDetail, StoreError> {
        let statement = format!(
            "SELECT {VIEW}, nullif(space_id, 0), lane, lanes, held, crashes, backoff_ms, active_ms, worker,
                 extract(epoch FROM lease_expires_at - clock_timestamp())::float8, cursor,
                 payload - 'records' - 'lines',
                 (SELECT count(*) FROM cronvec.staged s WHERE s.job_id = j.id AND s.piece >= 0),
                 (SELECT count(*) FROM cronvec.ingest_rejects r WHERE r.job_id = j.id),
                 (SELECT h.reason FROM cronvec.lane_holds h
                  WHERE h.job_id = j.id AND h.until > statement_timestamp() LIMIT 1)
             FROM cronvec.job_queue j WHERE id = $1"
        );
        let row = self.query_opt(&statement, &[(&id, Type::INT8)]).await?;
        let row = row.ok_or(StoreError::NoJob(id))?;
        Ok(JobDetail {
            job: view(&row),
            space: row.get(13),
            lane: row.get(14),
            lanes: row.get(15),
            held: row.get(16),
            crashes: row.get(17),
            backoff_ms: row.get(18),
            active_ms: row.get(19),
            worker: row.get(20),
            lease_seconds_left: row.get(21),
            cursor: row.get(22),
            payload: row.get(23),
            staged_pieces: row.get(24),
            rejected: row.get(25),
            holds_its_lane: row.get(26),
        })
    }

    /// The latest failed jobs by their reason, the most frequent first.
    pub async fn failed_jobs_by_reason(&self, filter: &JobFilter) -> Result<Vec<FailedGroup>, StoreError> {
        let rows = self
            .query(
                "SELECT reason, project, count(*), max(id)::text, to_char(max(completed_at) AT TIME ZONE 'UTC',
                     'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
                 FROM (
                     SELECT coalesce(result->>'error', 'no reason given') AS reason, project, id, completed_at
                     FROM cronvec.job_queue
                     WHERE status = 'FAILED' AND ($1::text IS NULL OR job_type = $1) AND ($2::text IS NULL OR project = $2)
                     ORDER BY id DESC LIMIT $3) AS latest
                 GROUP BY reason, project ORDER BY count(*) DESC, max(id) DESC LIMIT $4",
                &[
                    (&filter.job_type.map(JobType::as_str), Type::TEXT),
                    (&filter.project, Type::TEXT),
                    (&FAILED_LOOKED_AT, Type::INT8),
                    (&GROUPS, Type::INT8),
                ],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| FailedGroup {
                kind: "job".to_owned(),
                reason: row.get(0),
                project: row.get(1),
                count: row.get(2),
                example: row.get(3),
                message: None,
                last_at: row.get(4),
            })
            .collect())
    }
}
