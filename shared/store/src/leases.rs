//! Owns what a living worker reports about leases that it gives up or has lost. Refuses to judge why.

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::ends::ACTIVE_MS;
use super::{Store, StoreError};

/// What is set where a lease of the job `j` has run out: its worker died, as far as anybody knows; unless the server was
/// restarted meanwhile, which no worker can help. Its token is kept, for it may live and report. In any other status nothing is
/// counted.
pub(super) const COUNT_CRASH: &str =
    "crashes = j.crashes + (j.status = 'PROCESSING' AND coalesce(j.claimed_at, now()) > pg_postmaster_start_time())::int,
    crashed_leases = CASE WHEN j.status = 'PROCESSING' AND coalesce(j.claimed_at, now()) > pg_postmaster_start_time()
        THEN trim_array(j.lease_token || j.crashed_leases, greatest(cardinality(j.crashed_leases) - 19, 0))
        ELSE j.crashed_leases END";

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
    /// out: their worker lives. All is found by the tokens, so that a claim whose answer was lost is settled as well.
    pub async fn report_leases(&self, tokens: &[Uuid]) -> Result<Reported, StoreError> {
        let row = self
            .query_one(
                &format!(
                    "WITH found AS MATERIALIZED (
                         SELECT id FROM cronvec.job_queue WHERE status = 'PROCESSING' AND lease_token = ANY ($1)
                         UNION ALL
                         SELECT id FROM cronvec.job_queue WHERE crashed_leases IS NOT NULL AND crashed_leases && $1
                     ), job AS MATERIALIZED (
                         SELECT * FROM cronvec.job_queue
                         WHERE id = ANY (ARRAY(SELECT id FROM found))
                             AND (status = 'PROCESSING' AND lease_token = ANY ($1) OR crashed_leases && $1)
                         ORDER BY id FOR NO KEY UPDATE
                     ), sorted AS MATERIALIZED (
                         -- A worker may have taken its own job over: then it holds it, and is a crash of it.
                         SELECT id, coalesce(status = 'PROCESSING' AND lease_token = ANY ($1), false) AS is_held,
                             (SELECT count(*) FROM unnest(crashed_leases) AS l (token) WHERE token = ANY ($1)) AS living,
                             (SELECT array_agg(token ORDER BY nth) FROM unnest(crashed_leases) WITH ORDINALITY AS l (token, nth)
                                 WHERE token <> ALL ($1)) AS dead
                         FROM job
                     ), reported AS (
                         UPDATE cronvec.job_queue j
                         SET status = CASE WHEN s.is_held THEN 'PENDING' ELSE j.status END,
                             scheduled_for = CASE WHEN s.is_held THEN clock_timestamp() ELSE j.scheduled_for END,
                             active_ms = CASE WHEN s.is_held THEN {ACTIVE_MS} ELSE j.active_ms END,
                             turn = CASE WHEN NOT s.is_held THEN j.turn WHEN NOT job.held
                                 THEN cronvec.next_turn(job.job_type, job.space_id, job.project_id, job.priority) END,
                             lease_token = CASE WHEN NOT s.is_held THEN j.lease_token END,
                             lease_expires_at = CASE WHEN NOT s.is_held THEN j.lease_expires_at END,
                             crashes = greatest(j.crashes - s.living, 0), crashed_leases = s.dead,
                             -- Where no crash is left nobody is suspected any more.
                             cursor = CASE WHEN s.living = 0 OR j.job_type = 'INGEST_DATA' OR j.crashes > s.living
                                 THEN j.cursor END
                         FROM job JOIN sorted s ON s.id = job.id WHERE j.id = job.id
                         RETURNING s.is_held, s.living
                     )
                     SELECT count(*) FILTER (WHERE is_held), coalesce(sum(living), 0)::bigint FROM reported"
                ),
                &[(&tokens, Type::UUID_ARRAY)],
            )
            .await?;
        Ok(Reported {
            released: super::count(row.get(0))?,
            taken_back: super::count(row.get(1))?,
        })
    }
}
