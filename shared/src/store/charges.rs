//! Owns the charging of records that failed by their own fault, up to quarantine. Refuses to decide whose fault it was.

use tokio_postgres::types::Type;

use super::ends::{FENCE, backoff};
use super::{Connection, Store, StoreError, count};
use crate::job::ClaimedJob;
use crate::record::ContentHash;

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

/// What the charges came to.
#[derive(Debug, Default, Clone, Copy)]
pub struct Charged {
    pub quarantined: u64,
    pub to_retry: u64,
}

impl Store {
    /// Charges records with an attempt each; those that have none left, and those that it is no use to try again, go to
    /// quarantine. Fenced, and only where the text is still the one that failed.
    pub async fn charge_records(
        &self,
        connection: &Connection,
        job: &ClaimedJob,
        charges: &[Charge],
    ) -> Result<Charged, StoreError> {
        let ids: Vec<&str> = charges.iter().map(|charge| charge.record_id.as_str()).collect();
        let hashes: Vec<&[u8]> = charges.iter().map(|charge| charge.record_hash.as_bytes()).collect();
        let reasons: Vec<&str> = charges.iter().map(|charge| charge.reason).collect();
        let messages: Vec<&str> = charges.iter().map(|charge| charge.message.as_str()).collect();
        let permanent: Vec<bool> = charges.iter().map(|charge| charge.permanent).collect();
        let wait = backoff("job.backoff_ms", "w.attempts");
        let space = job.space_id;
        let row = connection
            .query_one(
                &format!(
                    "WITH {FENCE}, charged AS MATERIALIZED (
                         SELECT i.*, w.attempts + 1 AS attempts, i.permanent OR w.attempts + 1 >= job.max_attempts AS final
                         FROM job CROSS JOIN unnest($4::text[], $5::bytea[], $6::text[], $7::text[], $8::bool[])
                             AS i (id, hash, reason, message, permanent)
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
                     SELECT EXISTS (SELECT FROM job), (SELECT count(*) FROM charged WHERE final),
                         (SELECT count(*) FROM charged WHERE NOT final)"
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
        if !row.get::<_, bool>(0) {
            return Err(StoreError::LeaseLost);
        }
        Ok(Charged {
            quarantined: count(row.get(1))?,
            to_retry: count(row.get(2))?,
        })
    }
}
