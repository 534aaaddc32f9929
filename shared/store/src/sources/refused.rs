//! Owns which rows a comparison leaves alone because they refuse their vector, and what it does when one of them does.
//! Refuses to find out which: a worker does, row by row.

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::super::column::COLUMN_REFUSED;
use super::super::quarantine::QuarantineFilter;
use super::super::{Store, StoreError};

impl Store {
    /// Lets the next comparison try all rows of a project again that refused their vector.
    pub async fn forget_refusals(&self, project: &str) -> Result<(), StoreError> {
        let filter = QuarantineFilter {
            project: Some(project.to_owned()),
            reason: Some(COLUMN_REFUSED.to_owned()),
            ..QuarantineFilter::default()
        };
        while !self.purge_page(&filter).await?.is_empty() {}
        Ok(())
    }
}

/// Whether row `i.id` of the project $2 has refused its vector lately: it is tried again after ten minutes, then after twice
/// as long each time, up to a day. A text that changes, and a replay, take it out of quarantine.
pub(super) fn has_refused_lately(live: i32) -> String {
    format!(
        "EXISTS (
             SELECT FROM cronvec.quarantined_records q
             WHERE q.project_id = $2 AND q.record_id = i.id AND q.space_id = {live} AND q.reason = '{COLUMN_REFUSED}'
                 AND q.last_attempt_at > now() - make_interval(mins => least(1440, 10 * 2 ^ least(q.attempts - 1, 10))::int))"
    )
}

/// Takes rows out of quarantine whose vectors a comparison writes: `firsts` of the project $2.
pub(super) fn free(live: i32) -> String {
    format!(
        "DELETE FROM cronvec.quarantined_records q
         WHERE q.project_id = $2 AND q.space_id = {live} AND q.reason = '{COLUMN_REFUSED}'
             AND q.record_id = ANY (ARRAY(SELECT id FROM firsts))"
    )
}

/// Marks records whose column is to be written: a worker finds their vectors stored, asks no provider, and finds out which
/// row refuses. Those that somebody holds are left to the next comparison.
pub(super) async fn leave_to_a_worker(
    transaction: &Transaction<'_>,
    project_id: i32,
    live: i32,
    ids: &[String],
) -> Result<(), StoreError> {
    transaction
        .execute_typed(
            // Numbered as no write is, like a replay's: their chunks are stored already.
            &format!(
                "INSERT INTO cronvec.pending (space_id, project_id, record_id, bucket, operation)
                 SELECT {live}, $2, r.id, r.bucket, nextval('cronvec.acceptance')
                 FROM unnest($1::text[]) AS i (id)
                 CROSS JOIN LATERAL (
                     SELECT r.id, r.bucket FROM cronvec.records r
                     WHERE r.project_id = $2 AND r.id = i.id AND r.content IS NOT NULL
                     LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r
                 WHERE NOT {}
                 ORDER BY r.id
                 ON CONFLICT ON CONSTRAINT pending_pkey DO NOTHING",
                has_refused_lately(live)
            ),
            &[(&ids, Type::TEXT_ARRAY), (&project_id, Type::INT4)],
        )
        .await?;
    Ok(())
}
