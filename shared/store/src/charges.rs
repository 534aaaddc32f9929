//! Owns the charging of records that failed by their own fault, up to quarantine. Refuses to decide whose fault it was.

use tokio_postgres::types::Type;

use super::ends::{FENCE, backoff};
use super::{Connection, Store, StoreError};
use cronvec_nouns::job::ClaimedJob;
use cronvec_nouns::record::ContentHash;

/// A record that failed by its own fault.
#[derive(Debug, Clone)]
pub struct Charge {
    pub record_id: String,
    pub record_hash: ContentHash,
    pub reason: &'static str,
    pub message: String,
    /// Trying again is no use.
    pub permanent: bool,
}

/// What a charge came to: an attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub record_id: String,
    /// Which attempt it was, and how many there are.
    pub attempt: i32,
    pub of: i32,
    pub reason: &'static str,
    pub message: String,
    /// The record stands aside now.
    pub is_final: bool,
}

impl Store {
    /// Charges records with an attempt each; those that have none left, and those that it is no use to try again, go to
    /// quarantine. Fenced, and only where the text is still the one that failed. Gives what each charge came to.
    pub async fn charge_records(
        &self,
        connection: &Connection,
        job: &ClaimedJob,
        charges: &[Charge],
    ) -> Result<Vec<Outcome>, StoreError> {
        let ids: Vec<&str> = charges.iter().map(|charge| charge.record_id.as_str()).collect();
        let hashes: Vec<&[u8]> = charges.iter().map(|charge| charge.record_hash.as_bytes()).collect();
        let reasons: Vec<&str> = charges.iter().map(|charge| charge.reason).collect();
        let messages: Vec<&str> = charges.iter().map(|charge| charge.message.as_str()).collect();
        let permanent: Vec<bool> = charges.iter().map(|charge| charge.permanent).collect();
        let wait = backoff("job.backoff_ms", "w.attempts");
        let space = job.space_id;
        let rows = connection
            .query(
                &format!(
                    "WITH {FENCE}, charged AS MATERIALIZED (
                         SELECT i.*, w.attempts + 1 AS attempts, job.max_attempts,
                             i.permanent OR w.attempts + 1 >= job.max_attempts AS final
                         FROM job CROSS JOIN unnest($4::text[], $5::bytea[], $6::text[], $7::text[], $8::bool[])
                             WITH ORDINALITY AS i (id, hash, reason, message, permanent, nth)
                         CROSS JOIN LATERAL (
                             SELECT FROM cronvec.records r
                             WHERE r.project_id = $3 AND r.id = i.id AND r.content_hash = i.hash
                             LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r
                         CROSS JOIN LATERAL (
                             SELECT w.attempts FROM cronvec.pending w
                             WHERE w.space_id = {space} AND w.project_id = $3 AND w.record_id = i.id LIMIT 1) AS w
                     ), aside AS (
                         INSERT INTO cronvec.quarantined_records
                             (space_id, project_id, record_id, content_hash, reason, message, attempts)
                         SELECT {space}, $3, id, hash, reason, message, attempts FROM charged WHERE final
                         ON CONFLICT ON CONSTRAINT quarantined_records_pkey DO UPDATE SET
                             content_hash = excluded.content_hash, reason = excluded.reason, message = excluded.message,
                             attempts = excluded.attempts, last_attempt_at = now()
                     ), settled AS (
                         DELETE FROM cronvec.pending
                         WHERE space_id = {space} AND project_id = $3
                             AND record_id = ANY (ARRAY(SELECT id FROM charged WHERE final))
                     ), dropped AS (
                         -- What earlier texts have left unfinished is of no use to anyone; what is shown stays.
                         DELETE FROM cronvec.chunks_{space} c USING charged d
                         WHERE d.final AND c.space_id = {space} AND c.project_id = $3 AND c.record_id = d.id
                             AND c.record_id = ANY (ARRAY(SELECT id FROM charged WHERE final)) AND c.content_hash <> d.hash
                             AND NOT EXISTS (
                                 SELECT FROM cronvec.embedded_{space} e
                                 WHERE e.space_id = {space} AND e.project_id = $3 AND e.record_id = c.record_id
                                     AND e.content_hash = c.content_hash)
                     ), later AS (
                         UPDATE cronvec.pending w SET attempts = c.attempts, not_before = clock_timestamp() + {wait}
                         FROM charged c, job
                         WHERE w.space_id = {space} AND w.project_id = $3 AND w.record_id = c.id
                             AND w.record_id = ANY (ARRAY(SELECT id FROM charged WHERE NOT final))
                     )
                     SELECT c.nth, c.attempts, c.max_attempts, c.final FROM job LEFT JOIN charged c ON true ORDER BY c.nth"
                ),
                &[
                    (&job.lease.job_id, Type::INT8),
                    (&job.lease.token, Type::UUID),
                    (&job.project_id, Type::INT4),
                    (&ids, Type::TEXT_ARRAY),
                    (&hashes, Type::BYTEA_ARRAY),
                    (&reasons, Type::TEXT_ARRAY),
                    (&messages, Type::TEXT_ARRAY),
                    (&permanent, Type::BOOL_ARRAY),
                ],
            )
            .await?;
        if rows.is_empty() {
            return Err(StoreError::LeaseLost);
        }
        let outcomes = rows.iter().filter_map(|row| {
            let nth = usize::try_from(row.get::<_, Option<i64>>(0)?).ok()?;
            let charge = charges.get(nth.checked_sub(1)?)?;
            Some(Outcome {
                record_id: charge.record_id.clone(),
                attempt: row.get(1),
                of: row.get(2),
                reason: charge.reason,
                message: charge.message.clone(),
                is_final: row.get(3),
            })
        });
        Ok(outcomes.collect())
    }
}
