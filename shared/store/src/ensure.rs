//! Owns the step that each tick begins with: due work has its VECTORIZE job. Refuses to do any of the work.

use tokio_postgres::types::Type;

use super::{Store, StoreError};

/// Pairs of space and project that one tick looks at; the next tick goes on behind them.
const PAIRS_PER_TICK: i64 = 1000;

impl Store {
    /// Makes a VECTORIZE job for each lane that has due work and no active job, and lets a waiting job rank as its
    /// highest due record. Bounded, idempotent, ordered by key. Returns how many it made.
    pub async fn ensure_vectorize_jobs(&self, max_attempts: i32, backoff_ms: i32) -> Result<u64, StoreError> {
        let rows = self
            .query_along_index(
                "WITH RECURSIVE start AS MATERIALIZED (
                     SELECT space_id, project_id FROM cronvec.tick_cursor WHERE name = 'ensure'
                 ), pairs (space_id, project_id, nth) AS (
                     (SELECT w.space_id, w.project_id, 1 FROM start CROSS JOIN LATERAL (
                          SELECT w.space_id, w.project_id FROM cronvec.pending w
                          WHERE w.line > (start.space_id::bigint << 32) + start.project_id
                          ORDER BY w.line LIMIT 1) AS w)
                     UNION ALL
                     SELECT following.space_id, following.project_id, pairs.nth + 1
                     FROM pairs CROSS JOIN LATERAL (
                         SELECT w.space_id, w.project_id FROM cronvec.pending w
                         WHERE w.line > (pairs.space_id::bigint << 32) + pairs.project_id
                         ORDER BY w.line LIMIT 1) AS following
                     WHERE pairs.nth < $1
                 ), due AS MATERIALIZED (
                     SELECT pairs.space_id, p.id AS project_id, p.name, p.lanes, l.lane::smallint AS lane, top.priority,
                         coalesce(p.max_attempts, $2) AS max_attempts, coalesce(p.backoff_ms, $3) AS backoff_ms
                     FROM pairs
                     JOIN cronvec.projects p ON p.id = pairs.project_id AND NOT p.paused
                     CROSS JOIN LATERAL generate_series(0, p.lanes - 1) AS l (lane)
                     CROSS JOIN LATERAL (
                         SELECT w.priority FROM cronvec.pending w
                         WHERE w.line = (pairs.space_id::bigint << 32) + pairs.project_id
                             AND w.not_before <= statement_timestamp() AND (p.lanes = 1 OR w.bucket % p.lanes = l.lane)
                         ORDER BY -w.priority, w.not_before LIMIT 1) AS top
                     WHERE NOT EXISTS (
                         SELECT FROM cronvec.lane_holds h
                         WHERE h.space_id = pairs.space_id AND h.project_id = p.id AND h.lane = l.lane
                             AND h.until > statement_timestamp())
                 ), active AS MATERIALIZED (
                     SELECT j.id, j.space_id, j.project_id, j.lane, due.priority, due.lanes,
                         j.priority <> due.priority OR j.lanes <> due.lanes AS changed
                     FROM due JOIN cronvec.job_queue j
                         ON j.job_type = 'VECTORIZE' AND j.status IN ('PENDING', 'PROCESSING')
                             AND j.space_id = due.space_id AND j.project_id = due.project_id AND j.lane = due.lane
                 ), waiting AS MATERIALIZED (
                     SELECT j.id, active.priority, active.lanes
                     FROM active JOIN cronvec.job_queue j ON j.id = active.id
                     WHERE active.changed AND j.status = 'PENDING'
                     ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
                 ), ranked AS (
                     UPDATE cronvec.job_queue j
                     SET priority = waiting.priority, lanes = waiting.lanes,
                         turn = CASE WHEN j.turn IS NOT NULL
                             THEN cronvec.next_turn('VECTORIZE', j.space_id, j.project_id, waiting.priority) END
                     FROM waiting WHERE j.id = waiting.id AND j.status = 'PENDING'
                 ), obsolete AS MATERIALIZED (
                     -- Of lanes that the project has no more; those that it has cover their records.
                     SELECT j.id
                     FROM pairs
                     JOIN cronvec.projects p ON p.id = pairs.project_id
                     JOIN cronvec.job_queue j
                         ON j.job_type = 'VECTORIZE' AND j.status IN ('PENDING', 'PROCESSING')
                             AND j.space_id = pairs.space_id AND j.project_id = pairs.project_id AND j.lane >= p.lanes
                     WHERE j.status = 'PENDING'
                     ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
                 ), uncounted AS MATERIALIZED (
                     -- Waiting jobs of lanes without due work: none of the project's jobs that count its lanes as it does
                     -- would be claimed before one that counts otherwise, whatever it waits for.
                     SELECT j.id, p.lanes
                     FROM pairs
                     JOIN cronvec.projects p ON p.id = pairs.project_id
                     JOIN cronvec.job_queue j
                         ON j.job_type = 'VECTORIZE' AND j.status IN ('PENDING', 'PROCESSING')
                             AND j.space_id = pairs.space_id AND j.project_id = pairs.project_id AND j.lane < p.lanes
                     WHERE j.status = 'PENDING' AND j.lanes <> p.lanes
                         AND NOT EXISTS (SELECT FROM active WHERE active.id = j.id)
                     ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
                 ), counted AS (
                     UPDATE cronvec.job_queue j SET lanes = uncounted.lanes FROM uncounted WHERE j.id = uncounted.id
                 ), ended AS (
                     UPDATE cronvec.job_queue j
                     SET status = 'COMPLETED', completed_at = clock_timestamp(), turn = NULL, payload = NULL,
                         result = jsonb_build_object('activeMs', j.active_ms)
                     FROM obsolete WHERE j.id = obsolete.id
                 ), lacking AS MATERIALIZED (
                     SELECT due.*,
                         -- A project's lanes take turns with other projects, not only with each other.
                         row_number() OVER (PARTITION BY due.space_id, due.project_id, due.priority ORDER BY due.lane) - 1
                             AS nth
                     FROM due
                     WHERE NOT EXISTS (
                         SELECT FROM active a
                         WHERE a.space_id = due.space_id AND a.project_id = due.project_id AND a.lane = due.lane)
                 ), unpaused AS MATERIALIZED (
                     -- Against a pause at this moment, which couldn't see the new job.
                     SELECT p.id FROM cronvec.projects p
                     WHERE p.id IN (SELECT project_id FROM lacking) AND NOT p.paused
                     ORDER BY p.id FOR SHARE SKIP LOCKED
                 ), made AS (
                     INSERT INTO cronvec.job_queue (job_type, project, project_id, space_id, lane, lanes, priority,
                         max_attempts, backoff_ms, turn)
                     SELECT 'VECTORIZE', due.name, due.project_id, due.space_id, due.lane, due.lanes, due.priority,
                         due.max_attempts, due.backoff_ms,
                         due.nth + cronvec.next_turn('VECTORIZE', due.space_id, due.project_id, due.priority)
                     FROM lacking due
                     JOIN unpaused ON unpaused.id = due.project_id
                     ORDER BY due.space_id, due.project_id, due.lane
                     ON CONFLICT (space_id, project_id, lane)
                         WHERE job_type = 'VECTORIZE' AND status IN ('PENDING', 'PROCESSING') DO NOTHING
                     RETURNING 1
                 )
                 SELECT (SELECT count(*) FROM made), (SELECT count(*) FROM pairs), last.space_id, last.project_id,
                     start.space_id, start.project_id
                 FROM start LEFT JOIN (
                     SELECT space_id, project_id FROM pairs ORDER BY nth DESC LIMIT 1) AS last ON true",
                &[
                    (&PAIRS_PER_TICK, Type::INT8),
                    (&max_attempts, Type::INT4),
                    (&backoff_ms, Type::INT4),
                ],
            )
            .await?;
        let row = rows
            .first()
            .ok_or_else(|| StoreError::Unreadable("the tick's cursor is gone".into()))?;
        let looked_at: i64 = row.get(1);
        // The end of the table was reached: the next tick begins at its start.
        let next = if looked_at < PAIRS_PER_TICK {
            (0, 0)
        } else {
            (
                row.get::<_, Option<i32>>(2).unwrap_or(0),
                row.get::<_, Option<i32>>(3).unwrap_or(0),
            )
        };
        let began_at: (i32, i32) = (row.get(4), row.get(5));
        if next != began_at {
            self.execute(
                "UPDATE cronvec.tick_cursor SET space_id = $1, project_id = $2 WHERE name = 'ensure'",
                &[(&next.0, Type::INT4), (&next.1, Type::INT4)],
            )
            .await?;
        }
        u64::try_from(row.get::<_, i64>(0)).map_err(|error| StoreError::Unreadable(error.to_string()))
    }
}
