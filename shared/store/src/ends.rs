//! Owns what the holder of a lease may do to its job: renew, report, end. Refuses all of it without a live lease.

use serde_json::json;
use tokio_postgres::types::Type;

use super::vectors::Holding;
use super::{Connection, Store, StoreError};
use cronvec_nouns::job::{ClaimedJob, End, Ended, JobStatus, Lease, Progress};

/// The fence. It locks the job's row, so that whoever would take the job over waits for this statement's end, and if
/// someone changed the row meanwhile PostgreSQL looks at it again. An `EXISTS` wouldn't: it sees a snapshot. The time is
/// looked at when the row is locked: a row that was only held by someone isn't looked at again by itself.
/// $1 is the job, $2 the token.
pub(super) const FENCE: &str = "mine AS MATERIALIZED (
    SELECT j.* FROM cronvec.job_queue j WHERE j.id = $1 AND j.lease_token = $2 FOR NO KEY UPDATE
), job AS MATERIALIZED (
    SELECT * FROM mine WHERE lease_expires_at > clock_timestamp())";

/// The same for writes of one lease that may go beside each other: nobody takes the job over meanwhile. No such statement
/// may change the job's row, or two of them would wait for each other.
pub(super) const SHARED_FENCE: &str = "mine AS MATERIALIZED (
    SELECT j.* FROM cronvec.job_queue j WHERE j.id = $1 AND j.lease_token = $2 FOR SHARE
), job AS MATERIALIZED (
    SELECT * FROM mine WHERE lease_expires_at > clock_timestamp())";

/// How long a FAILED job keeps its lane before a new one is made.
const FAILED_HOLD: &str = "1 hour";

impl Store {
    pub async fn complete_job(&self, job: &ClaimedJob, result: serde_json::Value) -> Result<Ended, StoreError> {
        self.end_job(job, End::Completed { result }).await
    }

    /// Completes many INGEST_DATA jobs at once: those whose lease is still alive. Returns how many.
    pub async fn complete_jobs(&self, leases: &[Lease]) -> Result<u64, StoreError> {
        let ids: Vec<i64> = leases.iter().map(|lease| lease.job_id).collect();
        let tokens: Vec<_> = leases.iter().map(|lease| lease.token).collect();
        self.execute(
            "WITH mine AS MATERIALIZED (
                 SELECT j.id, j.lease_expires_at
                 FROM unnest($1::bigint[], $2::uuid[]) AS i (id, token)
                 CROSS JOIN LATERAL (
                     SELECT j.id, j.lease_expires_at FROM cronvec.job_queue j
                     WHERE j.id = i.id AND j.lease_token = i.token AND j.job_type = 'INGEST_DATA'
                     LIMIT 1 FOR NO KEY UPDATE) AS j
             ), job AS MATERIALIZED (
                 SELECT id FROM mine WHERE lease_expires_at > clock_timestamp()
             ), staged AS (
                 DELETE FROM cronvec.staged WHERE job_id = ANY (ARRAY(SELECT id FROM job))
             )
             UPDATE cronvec.job_queue job
             SET status = 'COMPLETED', payload = NULL, cursor = NULL, completed_at = clock_timestamp(), crashes = 0,
                 crashed_leases = NULL,
                 active_ms = job.active_ms + (extract(epoch FROM clock_timestamp() - job.claimed_at) * 1000)::bigint,
                 result = jsonb_build_object('activeMs',
                     job.active_ms + (extract(epoch FROM clock_timestamp() - job.claimed_at) * 1000)::bigint),
                 lease_token = NULL, lease_expires_at = NULL
             WHERE id = ANY (ARRAY(SELECT id FROM job))",
            &[(&ids, Type::INT8_ARRAY), (&tokens, Type::UUID_ARRAY)],
        )
        .await
    }

    /// Costs the job an attempt; after the last one it is FAILED, before that it waits.
    pub async fn fail_job(&self, job: &ClaimedJob, error: &str) -> Result<Ended, StoreError> {
        self.end_job(job, End::Failed { error: error.into() }).await
    }

    /// Parts from a job. One statement, so that a continuing job is the same row and can't fork.
    pub async fn end_job(&self, job: &ClaimedJob, end: End) -> Result<Ended, StoreError> {
        let fenced = |rest: &str| format!("WITH {FENCE}{rest} RETURNING j.status, j.attempts");
        let id: super::Param<'_> = (&job.lease.job_id, Type::INT8);
        let token: super::Param<'_> = (&job.lease.token, Type::UUID);
        let row = match &end {
            End::Completed { result } => {
                let due = due_in_lane("job");
                self.query_opt(
                    &fenced(&format!(
                        ", due AS MATERIALIZED (SELECT job.job_type = 'VECTORIZE' AND {due} AS more FROM job),
                         -- The payload's larger part.
                         staged AS (DELETE FROM cronvec.staged s USING job, due WHERE s.job_id = job.id AND NOT due.more)
                         UPDATE cronvec.job_queue j
                         SET status = CASE WHEN due.more THEN 'PENDING' ELSE 'COMPLETED' END,
                             turn = CASE WHEN due.more AND NOT job.held
                                 THEN cronvec.next_turn(job.job_type, job.space_id, job.project_id, job.priority) END,
                             scheduled_for = CASE WHEN due.more THEN clock_timestamp() ELSE job.scheduled_for END,
                             payload = CASE WHEN due.more THEN job.payload END,
                             cursor = CASE WHEN due.more THEN job.cursor END,
                             completed_at = CASE WHEN NOT due.more THEN clock_timestamp() END,
                             active_ms = {ACTIVE_MS},
                             result = CASE WHEN NOT due.more
                                 THEN $3::jsonb || jsonb_build_object('activeMs', {ACTIVE_MS}) END,
                             lease_token = NULL, lease_expires_at = NULL, crashes = 0, crashed_leases = NULL,
                             attempts = CASE WHEN due.more THEN 0 ELSE job.attempts END
                         FROM job, due WHERE j.id = job.id"
                    )),
                    &[id, token, (result, Type::JSONB)],
                )
                .await?
            }
            End::Released { progressed } => {
                self.query_opt(
                    &fenced(&format!(
                        " UPDATE cronvec.job_queue j
                         SET status = 'PENDING', scheduled_for = clock_timestamp(),
                             turn = CASE WHEN NOT job.held
                                 THEN cronvec.next_turn(job.job_type, job.space_id, job.project_id, job.priority) END,
                             active_ms = {ACTIVE_MS}, lease_token = NULL, lease_expires_at = NULL,
                             attempts = CASE WHEN $3 THEN 0 ELSE job.attempts END,
                             crashes = CASE WHEN $3 THEN 0 ELSE job.crashes END,
                             crashed_leases = CASE WHEN NOT $3 THEN job.crashed_leases END,
                             -- An INGEST_DATA job remembers the crashes that it has reckoned with: they begin anew, too.
                             cursor = CASE WHEN $3 AND job.cursor ? 'crashes'
                                 THEN jsonb_set(job.cursor, '{{crashes}}', '0') ELSE job.cursor END
                         FROM job WHERE j.id = job.id"
                    )),
                    &[id, token, (progressed, Type::BOOL)],
                )
                .await?
            }
            End::Snoozed { delay } => {
                self.query_opt(
                    &fenced(&format!(
                        " UPDATE cronvec.job_queue j
                         SET status = 'PENDING', turn = NULL,
                             scheduled_for = clock_timestamp() + make_interval(secs => $3),
                             active_ms = {ACTIVE_MS}, lease_token = NULL, lease_expires_at = NULL
                         FROM job WHERE j.id = job.id"
                    )),
                    &[id, token, (&delay.as_secs_f64(), Type::FLOAT8)],
                )
                .await?
            }
            End::Failed { error } | End::Refused { error, .. } => {
                let besides = match &end {
                    End::Refused { result, .. } => Some(result),
                    _ => None,
                };
                self.query_opt(
                    &fenced(&format!(
                        ", verdict AS MATERIALIZED (SELECT $4 OR attempts + 1 >= max_attempts AS final FROM job),
                         hold AS (
                             INSERT INTO cronvec.lane_holds (space_id, project_id, lane, job_id, reason, until)
                             SELECT job.space_id, job.project_id, job.lane, job.id, 'FAILED', now() + interval '{FAILED_HOLD}'
                             FROM job, verdict WHERE verdict.final AND job.job_type = 'VECTORIZE'
                             ON CONFLICT ON CONSTRAINT lane_holds_pkey DO UPDATE
                                 SET job_id = excluded.job_id, reason = excluded.reason, until = excluded.until)
                         UPDATE cronvec.job_queue j
                         SET attempts = job.attempts + 1,
                             status = CASE WHEN verdict.final THEN 'FAILED' ELSE 'PENDING' END,
                             turn = NULL,
                             completed_at = CASE WHEN verdict.final THEN clock_timestamp() END,
                             scheduled_for = CASE WHEN verdict.final THEN job.scheduled_for
                                 ELSE clock_timestamp() + {BACKOFF} END,
                             active_ms = {ACTIVE_MS},
                             result = coalesce($5, '{{}}'::jsonb) || jsonb_build_object('error', $3::text, 'activeMs', {ACTIVE_MS}),
                             lease_token = NULL, lease_expires_at = NULL
                         FROM job, verdict WHERE j.id = job.id",
                        BACKOFF = backoff("job.backoff_ms", "job.attempts"),
                    )),
                    &[id, token, (error, Type::TEXT), (&besides.is_some(), Type::BOOL), (&besides, Type::JSONB)],
                )
                .await?
            }
        };
        let row = row.ok_or(StoreError::LeaseLost)?;
        let status: JobStatus = row.get::<_, &str>(0).parse().map_err(StoreError::Unreadable)?;
        Ok(Ended {
            status,
            attempts: row.get(1),
        })
    }

    /// Keeps a job for longer, and says how far it is.
    pub async fn keep_job(&self, connection: &Connection, holding: &Holding<'_>) -> Result<(), StoreError> {
        let lease = holding.job.lease;
        let kept = connection
            .query(
                &format!(
                    "WITH {FENCE} UPDATE cronvec.job_queue j
                     SET lease_expires_at = clock_timestamp() + make_interval(secs => $3), progress = $4
                     FROM job WHERE j.id = job.id RETURNING j.id"
                ),
                &[
                    (&lease.job_id, Type::INT8),
                    (&lease.token, Type::UUID),
                    (&holding.lease.as_secs_f64(), Type::FLOAT8),
                    (&json!(holding.progress), Type::JSONB),
                ],
            )
            .await?;
        if kept.is_empty() {
            Err(StoreError::LeaseLost)
        } else {
            Ok(())
        }
    }

    /// What the job remembers for whoever goes on with it; `null` for nothing.
    pub async fn save_cursor(&self, lease: Lease, cursor: &serde_json::Value) -> Result<(), StoreError> {
        let saved = self
            .execute(
                &format!(
                    "WITH {FENCE} UPDATE cronvec.job_queue j SET cursor = nullif($3, 'null'::jsonb) FROM job WHERE j.id = job.id"
                ),
                &[
                    (&lease.job_id, Type::INT8),
                    (&lease.token, Type::UUID),
                    (cursor, Type::JSONB),
                ],
            )
            .await?;
        if saved == 1 { Ok(()) } else { Err(StoreError::LeaseLost) }
    }

    pub async fn update_progress(&self, lease: Lease, progress: &Progress) -> Result<(), StoreError> {
        let updated = self
            .execute(
                &format!("WITH {FENCE} UPDATE cronvec.job_queue j SET progress = $3 FROM job WHERE j.id = job.id"),
                &[
                    (&lease.job_id, Type::INT8),
                    (&lease.token, Type::UUID),
                    (&json!(progress), Type::JSONB),
                ],
            )
            .await?;
        if updated == 1 {
            Ok(())
        } else {
            Err(StoreError::LeaseLost)
        }
    }
}

/// Time worked on it so far, in ms.
pub(super) const ACTIVE_MS: &str =
    "(job.active_ms + (extract(epoch FROM clock_timestamp() - job.claimed_at) * 1000)::bigint)";

/// What attempt n failing waits: base × 2^(n−1), plus up to 10 %, at most an hour. `failed` counts those before it.
pub(super) fn backoff(base_ms: &str, failed: &str) -> String {
    format!(
        "make_interval(secs => least(3600, {base_ms} / 1000.0 * power(2, least({failed}, 30)) * (1 + random() / 10)))"
    )
}

/// Whether the lane of this job row has work that is due.
pub(super) fn due_in_lane(job: &str) -> String {
    format!(
        "EXISTS (
             SELECT FROM cronvec.pending w
             WHERE w.line = ({job}.space_id::bigint << 32) + {job}.project_id AND w.not_before <= statement_timestamp()
                 AND ({job}.lanes = 1 OR w.bucket % {job}.lanes = {job}.lane))"
    )
}
