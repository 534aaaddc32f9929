//! Owns the lists of jobs that people page through, and what became of one job. Refuses to read without a bound.

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::types::Type;

use super::begin::Begin;
use super::jobs::{JobView, VIEW, rfc3339, view};
use super::{Store, StoreError};
use cronvec_nouns::job::{JobStatus, JobType};
use cronvec_nouns::token::Reach;

/// Projects that a list without a project looks through.
pub(super) const ALL_PROJECTS: &str = "ARRAY(SELECT name FROM cronvec.projects ORDER BY name LIMIT 10000)";
/// Acts that are looked through for one job.
const ACTS_LOOKED_AT: i64 = 20_000;

/// Nobody waits longer for a page.
pub(super) const READ: Begin = Begin::read(
    "SET LOCAL statement_timeout = '5s'; SET LOCAL jit = off; SET LOCAL idle_in_transaction_session_timeout = '2s'",
);

/// The same along indexes, whatever the statistics say: without any a count of ten thousand finished jobs sorted all of a
/// million (380 ms).
pub(super) const READ_ALONG: Begin = Begin::read(
    "SET LOCAL statement_timeout = '5s'; SET LOCAL jit = off;
     SET LOCAL enable_sort = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
     SET LOCAL idle_in_transaction_session_timeout = '2s'",
);

/// Which jobs; what is left out doesn't matter.
#[derive(Debug, Clone)]
pub struct Listing {
    pub status: Option<JobStatus>,
    pub job_type: Option<JobType>,
    pub reach: Reach,
    pub id: Option<i64>,
}

/// A job in a list.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ListedJob {
    #[serde(flatten)]
    pub job: JobView,
    pub lane: i16,
    /// Why it failed, or failed last.
    pub error: Option<String>,
}

/// Something that happened to a job.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    pub at: String,
    #[cfg_attr(feature = "openapi", schema(example = "claimed"))]
    pub what: &'static str,
    pub detail: Option<String>,
}

impl Store {
    /// The latest of them, older than this one.
    pub async fn jobs_page(
        &self,
        listing: &Listing,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<ListedJob>, StoreError> {
        let chosen = match (&listing.status, listing.reach.projects()) {
            // Along the primary key.
            (None, None) => "SELECT id FROM cronvec.job_queue
                 WHERE id < $1 AND ($2::text IS NULL OR job_type = $2) AND ($3::bigint IS NULL OR id = $3)
                     AND $4::text[] IS NULL AND $5::text[] IS NOT NULL
                 ORDER BY id DESC LIMIT $6"
                .to_owned(),
            // Along each project's own part of its index.
            _ => format!(
                "SELECT j.id FROM unnest(coalesce($4::text[], {ALL_PROJECTS})) AS p (name)
                 CROSS JOIN unnest($5::text[]) AS s (status)
                 CROSS JOIN LATERAL (
                     SELECT j.id FROM cronvec.job_queue j
                     WHERE j.project = p.name AND j.status = s.status AND j.id < $1
                         AND ($2::text IS NULL OR j.job_type = $2) AND ($3::bigint IS NULL OR j.id = $3)
                     ORDER BY j.id DESC LIMIT $6) AS j
                 ORDER BY j.id DESC LIMIT $6"
            ),
        };
        let statuses: Vec<&str> = match listing.status {
            Some(status) => vec![status.as_str()],
            None => JobStatus::ALL.iter().map(|status| status.as_str()).collect(),
        };
        let rows = self
            .query_in_transaction(
                READ_ALONG,
                &format!(
                    "SELECT {VIEW}, lane, result->>'error' FROM cronvec.job_queue
                     WHERE id = ANY (ARRAY({chosen})) ORDER BY id DESC"
                ),
                &[
                    (&before.unwrap_or(i64::MAX), Type::INT8),
                    (&listing.job_type.map(JobType::as_str), Type::TEXT),
                    (&listing.id, Type::INT8),
                    (&listing.reach.projects(), Type::TEXT_ARRAY),
                    (&statuses, Type::TEXT_ARRAY),
                    (&limit, Type::INT8),
                ],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| ListedJob {
                job: view(row),
                lane: row.get(13),
                error: row.get(14),
            })
            .collect())
    }

    /// Projects whose name has this in it.
    pub async fn projects_named_like(&self, part: &str) -> Result<Vec<String>, StoreError> {
        let rows = self
            .query(
                "SELECT name FROM cronvec.projects WHERE strpos(lower(name), lower($1)) > 0 ORDER BY name LIMIT 1000",
                &[(&part, Type::TEXT)],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// What an INGEST_DATA job was handed, as far as it stands in the job's row.
    pub async fn job_payload(&self, id: i64) -> Result<Option<Value>, StoreError> {
        let row = self
            .query_opt(
                "SELECT payload FROM cronvec.job_queue WHERE id = $1",
                &[(&id, Type::INT8)],
            )
            .await?;
        Ok(row.ok_or(StoreError::NoJob(id))?.get(0))
    }

    /// What happened to a job, in order, as far as it is kept.
    pub async fn timeline(&self, id: i64) -> Result<Vec<Event>, StoreError> {
        let rows = self
            .query_in_transaction(
                READ,
                "WITH job AS MATERIALIZED (SELECT * FROM cronvec.job_queue WHERE id = $1)
                 SELECT at, what, detail FROM (
                     SELECT created_at, 'created', NULL FROM job
                     UNION ALL SELECT started_at, 'claimed', 'the first time' FROM job WHERE started_at IS NOT NULL
                     UNION ALL SELECT claimed_at, 'claimed', 'by ' || coalesce(worker, '?') FROM job
                         WHERE claimed_at > started_at
                     UNION ALL SELECT scheduled_for, 'due',
                         CASE WHEN attempts > 0 THEN 'after ' || attempts || ' failed: ' || coalesce(result->>'error', '?') END
                         FROM job WHERE status = 'PENDING' AND scheduled_for > created_at
                     UNION ALL SELECT lease_expires_at, 'lease ends', 'held by ' || coalesce(worker, '?') FROM job
                         WHERE lease_expires_at IS NOT NULL
                     UNION ALL SELECT completed_at, lower(status), result->>'error' FROM job WHERE completed_at IS NOT NULL
                     UNION ALL SELECT timestamp, 'acted on', message || ' by ' || coalesce(metadata->>'who', '?') FROM (
                         SELECT a.* FROM job, cronvec.audit_log a
                         WHERE a.timestamp >= job.created_at ORDER BY a.timestamp DESC LIMIT $2) AS lately
                         WHERE category = 'queue' AND metadata->'ids' ? $1::text
                 ) AS e (at, what, detail) ORDER BY at LIMIT 500",
                &[(&id, Type::INT8), (&ACTS_LOOKED_AT, Type::INT8)],
            )
            .await?;
        let known = [
            "created",
            "claimed",
            "due",
            "lease ends",
            "completed",
            "failed",
            "cancelled",
            "acted on",
        ];
        Ok(rows
            .iter()
            .map(|row| Event {
                at: rfc3339(row.get::<_, OffsetDateTime>(0)),
                what: known
                    .into_iter()
                    .find(|what| *what == row.get::<_, &str>(1))
                    .unwrap_or("?"),
                detail: row.get(2),
            })
            .collect())
    }
}
