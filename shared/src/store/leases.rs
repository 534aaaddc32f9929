//! Owns what a living worker reports about leases that it gives up or has lost. Refuses to judge why.

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::ends::ACTIVE_MS;
use super::{Store, StoreError};

/// What a report came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Reported {
    /// Jobs that were put back into the line.
    pub released: u64,
    /// Crashes that were taken back: the worker lives, another one holds the job by now.
    pub taken_back: u64,
}

impl Store {
    /// Puts back the jobs that these tokens still hold, and takes back the crashes that were counted when their leases ran
    /// out: their worker lives. The jobs' own rows are found by the tokens, so that a claim whose answer was lost is
    /// released as well; the crashes in `jobs`, and in those that somebody works on.
    pub async fn report_leases(&self, tokens: &[Uuid], jobs: &[i64]) -> Result<Reported, StoreError> {
        let row = self
            .query_one(
                &format!(
                    "WITH held AS MATERIALIZED (
                         SELECT * FROM cronvec.job_queue
                         WHERE status = 'PROCESSING' AND lease_token = ANY ($1)
                         ORDER BY id LIMIT 1000 FOR NO KEY UPDATE
                     ), released AS (
                         UPDATE cronvec.job_queue j
                         SET status = 'PENDING', scheduled_for = clock_timestamp(), active_ms = {ACTIVE_MS},
                             turn = CASE WHEN NOT job.held
                                 THEN cronvec.next_turn(job.job_type, job.space_id, job.project_id, job.priority) END,
                             lease_token = NULL, lease_expires_at = NULL
                         FROM held AS job WHERE j.id = job.id
                         RETURNING 1
                     ), taken_over AS MATERIALIZED (
                         SELECT id FROM cronvec.job_queue WHERE status = 'PROCESSING' AND crashed_leases && $1
                     ), counted AS MATERIALIZED (
                         SELECT id, crashed_leases FROM cronvec.job_queue
                         WHERE id = ANY (ARRAY(SELECT id FROM taken_over) || $2) AND crashed_leases && $1
                             AND NOT (status = 'PROCESSING' AND lease_token = ANY ($1))
                         ORDER BY id FOR NO KEY UPDATE
                     ), sorted AS MATERIALIZED (
                         SELECT c.id, count(*) FILTER (WHERE l.token = ANY ($1)) AS living,
                             array_agg(l.token ORDER BY l.nth) FILTER (WHERE l.token <> ALL ($1)) AS dead
                         FROM counted c, unnest(c.crashed_leases) WITH ORDINALITY AS l (token, nth) GROUP BY c.id
                     ), taken_back AS (
                         UPDATE cronvec.job_queue j
                         SET crashes = greatest(j.crashes - s.living, 0), crashed_leases = s.dead,
                             -- Where no crash is left nobody is suspected any more.
                             cursor = CASE WHEN j.job_type = 'INGEST_DATA' OR j.crashes > s.living THEN j.cursor END
                         FROM sorted s WHERE j.id = s.id
                         RETURNING s.living
                     )
                     SELECT (SELECT count(*) FROM released), (SELECT coalesce(sum(living), 0)::bigint FROM taken_back)"
                ),
                &[(&tokens, Type::UUID_ARRAY), (&jobs, Type::INT8_ARRAY)],
            )
            .await?;
        Ok(Reported {
            released: super::count(row.get(0))?,
            taken_back: super::count(row.get(1))?,
        })
    }
}
