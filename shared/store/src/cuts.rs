//! Owns what is kept of records that are cut smaller than their space says. Refuses to cut.

use tokio_postgres::types::Type;

use super::ends::FENCE;
use super::{Connection, Store, StoreError};
use cronvec_nouns::job::ClaimedJob;
use cronvec_nouns::record::ContentHash;

/// A record one of whose chunks was too long.
#[derive(Debug, Clone)]
pub struct Recut {
    pub record_id: String,
    pub record_hash: ContentHash,
    /// So many chunks it was cut into.
    pub of: i32,
    /// Tokens that its chunks may have from now on.
    pub tokens: i32,
}

impl Store {
    /// Lets records be cut smaller when they are read next. Fenced, and only where the text is still the one that was
    /// sent. They stay pending and due, behind those that are due now, and are charged nothing; chunks of the former cut are
    /// of no use to anyone and go when the record is read. Returns how many were told.
    pub async fn cut_smaller(
        &self,
        connection: &Connection,
        job: &ClaimedJob,
        records: &[Recut],
    ) -> Result<u64, StoreError> {
        let ids: Vec<&str> = records.iter().map(|record| record.record_id.as_str()).collect();
        let hashes: Vec<&[u8]> = records.iter().map(|record| record.record_hash.as_bytes()).collect();
        let tokens: Vec<i32> = records.iter().map(|record| record.tokens).collect();
        let space = job.space_id;
        let row = connection
            .query_one(
                &format!(
                    "WITH {FENCE}, locked AS MATERIALIZED (
                         SELECT i.id, i.hash, i.tokens
                         FROM job CROSS JOIN (
                             -- Several chunks of a record may be too long.
                             SELECT id, hash, min(tokens) AS tokens
                             FROM unnest($4::text[], $5::bytea[], $6::int[]) AS i (id, hash, tokens) GROUP BY id, hash
                         ) AS i
                         CROSS JOIN LATERAL (
                             SELECT FROM cronvec.records r
                             WHERE r.project_id = $3 AND r.id = i.id AND r.content_hash = i.hash
                             LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r
                     ), told AS (
                         UPDATE cronvec.pending w
                         SET not_before = clock_timestamp(), cut_hash = l.hash,
                             -- What was known of it alone is of its former cut.
                             suspect_hash = CASE WHEN w.suspect_inputs > 1 THEN w.suspect_hash END,
                             cut_tokens = CASE WHEN w.cut_hash = l.hash THEN least(w.cut_tokens, l.tokens) ELSE l.tokens END
                         FROM locked l
                         WHERE w.space_id = {space} AND w.project_id = $3 AND w.record_id = l.id
                             AND w.record_id = ANY (ARRAY(SELECT id FROM locked))
                         RETURNING w.record_id
                     )
                     SELECT EXISTS (SELECT FROM job), (SELECT count(*) FROM told)"
                ),
                &[
                    (&job.lease.job_id, Type::INT8),
                    (&job.lease.token, Type::UUID),
                    (&job.project_id, Type::INT4),
                    (&ids, Type::TEXT_ARRAY),
                    (&hashes, Type::BYTEA_ARRAY),
                    (&tokens, Type::INT4_ARRAY),
                ],
            )
            .await?;
        match row.get(0) {
            true => Ok(u64::try_from(row.get::<_, i64>(1)).unwrap_or(0)),
            false => Err(StoreError::LeaseLost),
        }
    }
}
