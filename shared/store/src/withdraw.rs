//! Owns the taking back of pending rows: of one operation, or of a whole project. Refuses to take what anybody wrote since.

use time::OffsetDateTime;
use tokio_postgres::types::Type;

use super::{Store, StoreError};

/// Pending rows that one statement looks at.
const PAGE: i64 = 1000;

/// A place in a project's line.
#[derive(Debug, Clone)]
struct Place {
    urgency: i32,
    not_before: OffsetDateTime,
    record_id: String,
}

impl Store {
    /// Takes the pending rows of a line out of it: of one operation those whose records weren't written since it began,
    /// else all. Purges of deleted records stay, and so do rows that somebody has locked. Gives how many went.
    pub async fn withdraw(&self, space_id: i32, project_id: i32, operation: Option<i64>) -> Result<u64, StoreError> {
        let mut place = Place {
            urgency: i32::MIN,
            not_before: OffsetDateTime::UNIX_EPOCH,
            record_id: String::new(),
        };
        let mut withdrawn = 0;
        loop {
            let rows = self
                .query_along_index(
                    "WITH page AS MATERIALIZED (
                         SELECT -w.priority AS urgency, w.not_before, w.record_id, w.operation
                         FROM cronvec.pending w
                         WHERE w.line = ($1::bigint << 32) + $2
                             AND (-w.priority, w.not_before, w.record_id) > ($4::int, $5, $6)
                         ORDER BY -w.priority, w.not_before, w.record_id LIMIT $7
                     ), mine AS MATERIALIZED (
                         -- The record's row is looked at when it is locked: who wrote it a moment ago marked it anew.
                         SELECT w.record_id
                         FROM page CROSS JOIN LATERAL (
                             SELECT FROM cronvec.records r
                             WHERE r.project_id = $2 AND r.id = page.record_id AND r.content IS NOT NULL
                                 AND ($3::bigint IS NULL OR r.accepted < $3)
                             LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r
                         CROSS JOIN LATERAL (
                             SELECT w.record_id FROM cronvec.pending w
                             WHERE w.record_id = page.record_id AND w.project_id = $2 AND w.space_id = $1
                                 AND ($3::bigint IS NULL OR w.operation = $3)
                             LIMIT 1 FOR UPDATE SKIP LOCKED) AS w
                         WHERE $3::bigint IS NULL OR page.operation = $3
                     ), gone AS (
                         DELETE FROM cronvec.pending w USING mine
                         WHERE w.record_id = mine.record_id AND w.project_id = $2 AND w.space_id = $1 RETURNING 1
                     )
                     SELECT (SELECT count(*) FROM gone), last.urgency, last.not_before, last.record_id
                     FROM (SELECT 1) AS one LEFT JOIN (
                         SELECT * FROM page ORDER BY urgency DESC, not_before DESC, record_id DESC LIMIT 1) AS last ON true",
                    &[
                        (&space_id, Type::INT4),
                        (&project_id, Type::INT4),
                        (&operation, Type::INT8),
                        (&place.urgency, Type::INT4),
                        (&place.not_before, Type::TIMESTAMPTZ),
                        (&place.record_id, Type::TEXT),
                        (&PAGE, Type::INT8),
                    ],
                )
                .await?;
            let row = rows
                .first()
                .ok_or_else(|| StoreError::Unreadable("a statement gave no row".into()))?;
            withdrawn += u64::try_from(row.get::<_, i64>(0)).unwrap_or(0);
            match row.get::<_, Option<i32>>(1) {
                Some(urgency) => {
                    place = Place {
                        urgency,
                        not_before: row.get(2),
                        record_id: row.get(3),
                    };
                }
                None => return Ok(withdrawn),
            }
        }
    }

    /// Ends VECTORIZE jobs that wait and have nothing to do any more, without a hold of their lanes.
    pub async fn end_idle_jobs(&self, project_id: i32) -> Result<u64, StoreError> {
        let due = super::ends::due_in_lane("j");
        self.execute(
            &format!(
                "WITH idle AS MATERIALIZED (
                     SELECT j.id, j.active_ms FROM cronvec.job_queue j
                     WHERE j.job_type = 'VECTORIZE' AND j.status = 'PENDING' AND j.project_id = $1 AND NOT {due}
                     ORDER BY j.id LIMIT 1000 FOR NO KEY UPDATE OF j SKIP LOCKED)
                 UPDATE cronvec.job_queue j
                 SET status = 'COMPLETED', completed_at = clock_timestamp(), turn = NULL, payload = NULL,
                     result = jsonb_build_object('activeMs', idle.active_ms)
                 FROM idle WHERE j.id = idle.id"
            ),
            &[(&project_id, Type::INT4)],
        )
        .await
    }
}
