//! Owns the list of jobs that don't get on, and their release. Refuses to judge why their workers left them.

use serde::Serialize;
use tokio_postgres::types::Type;

use super::leases::COUNT_CRASH;
use super::selection::JobFilter;
use super::{Store, StoreError};
use cronvec_nouns::job::JobType;

/// Of each kind so many are listed.
const LISTED: i64 = 100;

/// A job that doesn't get on, or a lane that gets no new one.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stuck {
    /// `lease_expired`, `waiting`, `crashing`, `lane_held`, `held` or `not_held`.
    pub kind: String,
    pub job_id: String,
    pub job_type: String,
    pub project: String,
    pub status: String,
    pub minutes: f64,
    pub message: String,
    pub mend: String,
}

impl Store {
    /// Jobs whose worker is gone, jobs that could have been claimed for so many minutes, jobs that lost several workers,
    /// lanes that an ended job holds, and jobs that a pause or a resumption left behind.
    pub async fn stuck(&self, filter: &JobFilter, minutes: f64) -> Result<Vec<Stuck>, StoreError> {
        let rows = self
            .query(
                "SELECT * FROM (
                     (SELECT 'lease_expired', id, job_type, project, status,
                          extract(epoch FROM clock_timestamp() - lease_expires_at)::float8 / 60,
                          'its worker is gone', 'the next tick takes it over; without ticks: cronvec reset-stuck'
                      FROM cronvec.job_queue WHERE status = 'PROCESSING' AND lease_expires_at < clock_timestamp()
                      ORDER BY id LIMIT $4)
                     UNION ALL
                     (SELECT 'waiting', id, job_type, project, status,
                          extract(epoch FROM clock_timestamp() - scheduled_for)::float8 / 60,
                          'nobody has claimed it', 'cronvec doctor says what keeps workers from it'
                      FROM cronvec.job_queue
                      WHERE status = 'PENDING' AND NOT held AND scheduled_for < now() - make_interval(secs => $3 * 60)
                      ORDER BY scheduled_for LIMIT $4)
                     UNION ALL
                     (SELECT 'crashing', id, job_type, project, status,
                          extract(epoch FROM clock_timestamp() - coalesce(claimed_at, created_at))::float8 / 60,
                          crashes || ' workers died holding it', 'see the workers'' logs and memory; the record at fault is searched for'
                      FROM (SELECT * FROM cronvec.job_queue WHERE status = 'PENDING' ORDER BY held, scheduled_for LIMIT 10000) AS first_ones
                      WHERE crashes > 1 ORDER BY id LIMIT $4)
                     UNION ALL
                     (SELECT 'lane_held', h.job_id, 'VECTORIZE', p.name, h.reason,
                          coalesce(extract(epoch FROM clock_timestamp() - j.completed_at)::float8 / 60, 0),
                          'job ' || h.job_id || ' ended ' || h.reason || ': its lane gets no new job '
                              || CASE WHEN h.until = 'infinity' THEN 'until it is retried'
                                  ELSE 'before ' || to_char(h.until AT TIME ZONE 'UTC', 'HH24:MI') || ' UTC' END,
                          'cronvec retry ' || h.job_id
                      FROM cronvec.lane_holds h JOIN cronvec.projects p ON p.id = h.project_id
                      LEFT JOIN cronvec.job_queue j ON j.id = h.job_id
                      WHERE h.until > statement_timestamp() ORDER BY h.job_id LIMIT $4)
                 ) AS s (kind, id, job_type, project, status, minutes, message, mend)
                 WHERE ($1::text IS NULL OR s.job_type = $1) AND ($2::text IS NULL OR s.project = $2)
                 ORDER BY s.minutes DESC LIMIT $4",
                &[
                    (&filter.job_type.map(JobType::as_str), Type::TEXT),
                    (&filter.project, Type::TEXT),
                    (&minutes, Type::FLOAT8),
                    (&LISTED, Type::INT8),
                ],
            )
            .await?;
        let mut all: Vec<Stuck> = rows
            .iter()
            .map(|row| Stuck {
                kind: row.get(0),
                job_id: row.get::<_, i64>(1).to_string(),
                job_type: row.get(2),
                project: row.get(3),
                status: row.get(4),
                minutes: (row.get::<_, f64>(5) * 10.0).round() / 10.0,
                message: row.get(6),
                mend: row.get(7),
            })
            .collect();
        all.extend(self.out_of_step(filter, LISTED).await?);
        Ok(all)
    }

    /// Puts jobs whose lease has run out back into the queue, each counted as its worker's crash, as a claim would do. A
    /// job with a live lease isn't touched. Gives the ids.
    pub async fn reset_stuck(&self, filter: &JobFilter) -> Result<Vec<i64>, StoreError> {
        let rows = self
            .query(
                &format!(
                    "WITH gone AS MATERIALIZED (
                     SELECT id FROM cronvec.job_queue
                     WHERE status = 'PROCESSING' AND lease_expires_at < clock_timestamp()
                         AND ($1::text IS NULL OR job_type = $1) AND ($2::text IS NULL OR project = $2)
                     ORDER BY id LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED)
                 UPDATE cronvec.job_queue j
                 SET status = 'PENDING', turn = NULL, scheduled_for = clock_timestamp(),
                     {COUNT_CRASH},
                     lease_token = NULL, lease_expires_at = NULL
                 FROM gone WHERE j.id = gone.id RETURNING j.id"
                ),
                &[
                    (&filter.job_type.map(JobType::as_str), Type::TEXT),
                    (&filter.project, Type::TEXT),
                ],
            )
            .await?;
        // A worker that was killed can't say that it runs no more.
        self.execute(
            "UPDATE cronvec.worker_status SET is_running = false
             WHERE is_running AND last_seen_at < now() - interval '15 minutes'",
            &[],
        )
        .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Lets lanes of a project have new jobs again; gives how many were held.
    pub async fn lift_holds(&self, project_id: i32) -> Result<u64, StoreError> {
        self.execute(
            "DELETE FROM cronvec.lane_holds WHERE project_id = $1",
            &[(&project_id, Type::INT4)],
        )
        .await
    }
}
