//! Owns what is deleted for its age, in bounded passes. Refuses to touch what still has work.

use tokio_postgres::types::Type;

use super::{Store, StoreError};

/// Rows that one statement deletes at most.
const PASS: i64 = 1000;
/// Uploads that one statement drops at most, each with pieces of up to some megabytes.
const UPLOADS: i64 = 20;

/// Project by project and status by status along the index of both: finished jobs, of which there may be millions, aren't
/// looked at. As rows they are compared and ordered, because the primary key has the order of ids alone, too.
pub const OLDEST_UNFINISHED: &str = "SELECT coalesce(min(j.id), 9223372036854775807)
    FROM cronvec.projects p
    CROSS JOIN unnest(ARRAY['PENDING', 'PROCESSING', 'FAILED', 'CANCELLED']) AS s (status)
    CROSS JOIN LATERAL (
        SELECT j.id FROM cronvec.job_queue j
        WHERE (j.project, j.status, j.id) > (p.name, s.status, 0::bigint)
            AND (j.project, j.status, j.id) <= (p.name, s.status, 9223372036854775807)
            AND j.job_type = 'INGEST_DATA'
        ORDER BY j.project, j.status, j.id LIMIT 1) AS j";

/// What may go, and after how many days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiring {
    /// What finished jobs, and open ones that nobody finished in a day, still have staged; before the jobs themselves, so that these go in bounded steps, too.
    Staged {
        days: u32,
    },
    FinishedJobs {
        days: u32,
    },
    /// Bodies of which nothing has come for an hour: their senders broke off.
    Uploads,
    /// Jobs whose bodies didn't all come within a day.
    OpenJobs,
    Audit {
        days: u32,
    },
    Metrics {
        days: u32,
    },
    /// Tombstones that no unfinished INGEST_DATA job is older than, with the number of the oldest one.
    Tombstones {
        before: i64,
    },
    /// Pauses that ended a day ago.
    Pauses,
    /// Vectors of records that left a week ago and haven't returned.
    LeftVectors,
}

impl Store {
    /// The oldest INGEST_DATA job that could still store records, by its number. It stays good for a whole cleanup: jobs
    /// that come later are younger.
    pub async fn oldest_unfinished_ingest(&self) -> Result<i64, StoreError> {
        let rows = self.query_along_index(OLDEST_UNFINISHED, &[]).await?;
        Ok(rows.first().ok_or_else(super::no_row)?.get(0))
    }

    /// One pass. Returns how many rows it deleted, and whether another pass would find more.
    pub async fn cleanup_pass(&self, what: Expiring) -> Result<(u64, bool), StoreError> {
        let days = |days: u32| f64::from(days);
        let deleted = match what {
            Expiring::Staged { days: age } => {
                self.execute(
                    "WITH ended AS (
                         SELECT j.id FROM cronvec.job_queue j
                         WHERE j.completed_at < now() - make_interval(secs => $1 * 86400)
                         UNION SELECT o.job_id FROM cronvec.open_jobs o WHERE o.opened_at < now() - interval '1 day'
                     ), old AS MATERIALIZED (
                         SELECT s.job_id, s.piece FROM ended JOIN cronvec.staged s ON s.job_id = ended.id
                         ORDER BY s.job_id, s.piece LIMIT $2)
                     DELETE FROM cronvec.staged s USING old WHERE s.job_id = old.job_id AND s.piece = old.piece",
                    &[(&days(age), Type::FLOAT8), (&PASS, Type::INT8)],
                )
                .await?
            }
            Expiring::FinishedJobs { days: age } => {
                self.execute(
                    "WITH old AS MATERIALIZED (
                         SELECT id FROM cronvec.job_queue
                         WHERE completed_at < now() - make_interval(secs => $1 * 86400)
                             -- `retry` of a job that holds its lane must find it.
                             AND NOT EXISTS (
                                 SELECT FROM cronvec.lane_holds h
                                 WHERE h.job_id = job_queue.id AND h.until > statement_timestamp())
                         ORDER BY completed_at LIMIT $2 FOR UPDATE SKIP LOCKED)
                     DELETE FROM cronvec.job_queue j USING old WHERE j.id = old.id",
                    &[(&days(age), Type::FLOAT8), (&PASS, Type::INT8)],
                )
                .await?
            }
            Expiring::Uploads => {
                let deleted = self.drop_abandoned_uploads(UPLOADS).await?;
                return Ok((deleted, deleted >= UPLOADS.unsigned_abs()));
            }
            Expiring::OpenJobs => {
                self.execute(
                    "WITH old AS MATERIALIZED (
                         -- Whoever publishes a body, or closes the job, holds the row.
                         SELECT job_id FROM cronvec.open_jobs WHERE opened_at < now() - interval '1 day'
                         ORDER BY opened_at LIMIT $1 FOR UPDATE SKIP LOCKED)
                     DELETE FROM cronvec.job_queue j USING old WHERE j.id = old.job_id",
                    &[(&PASS, Type::INT8)],
                )
                .await?
            }
            Expiring::Audit { days: age } => self.expire("cronvec.audit_log", days(age)).await?,
            Expiring::Metrics { days: age } => self.expire("cronvec.performance_metrics", days(age)).await?,
            Expiring::Tombstones { before } => {
                self.execute(
                    "WITH old AS MATERIALIZED (
                         SELECT r.project_id, r.id FROM cronvec.records r
                         WHERE r.content IS NULL
                             -- A job may have its number and not be committed yet: nobody enqueues for so long.
                             AND r.updated_at < now() - interval '10 minutes'
                             AND r.accepted < $2
                             AND NOT EXISTS (
                                 SELECT FROM cronvec.pending w, cronvec.spaces s
                                 WHERE w.space_id = s.id AND w.project_id = r.project_id AND w.record_id = r.id)
                         ORDER BY r.accepted LIMIT $1 FOR UPDATE OF r SKIP LOCKED)
                     DELETE FROM cronvec.records r USING old WHERE r.project_id = old.project_id AND r.id = old.id",
                    &[(&PASS, Type::INT8), (&before, Type::INT8)],
                )
                .await?
            }
            Expiring::Pauses => {
                self.execute(
                    // Nobody serves an endpoint whose circuit no canary has tried for so long: its key was changed.
                    "DELETE FROM cronvec.provider_pauses
                     WHERE until < now() - CASE WHEN circuit THEN interval '30 days' ELSE interval '1 day' END",
                    &[],
                )
                .await?
            }
            Expiring::LeftVectors => {
                self.execute(
                    "WITH old AS MATERIALIZED (
                         SELECT space_id, chunk_hash FROM cronvec.left_vectors WHERE left_at < now() - interval '7 days'
                         ORDER BY left_at LIMIT $1 FOR UPDATE SKIP LOCKED)
                     DELETE FROM cronvec.left_vectors l USING old
                     WHERE l.space_id = old.space_id AND l.chunk_hash = old.chunk_hash",
                    &[(&PASS, Type::INT8)],
                )
                .await?
            }
        };
        Ok((deleted, deleted >= PASS.unsigned_abs()))
    }

    async fn expire(&self, table: &str, days: f64) -> Result<u64, StoreError> {
        self.execute(
            &format!(
                "WITH old AS MATERIALIZED (
                     SELECT id FROM {table} WHERE timestamp < now() - make_interval(secs => $1 * 86400)
                     ORDER BY timestamp LIMIT $2)
                 DELETE FROM {table} t USING old WHERE t.id = old.id"
            ),
            &[(&days, Type::FLOAT8), (&PASS, Type::INT8)],
        )
        .await
    }
}
