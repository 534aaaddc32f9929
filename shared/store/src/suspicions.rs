//! Owns what is kept of texts that a provider refused together with others, so that the search for the one at fault outlives
//! a pass. Refuses to search.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::ends::FENCE;
use super::{Connection, Store, StoreError, count};
use cronvec_nouns::job::ClaimedJob;
use cronvec_nouns::record::ContentHash;

/// What is known of a record whose text was in a refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// The refused request: records of one group were in it together.
    pub group: i64,
    /// Inputs that the request had. Of 1 it is known that this record is at fault, unless the provider is.
    pub inputs: i32,
    pub reason: String,
    pub message: String,
}

/// A suspicion about one record.
#[derive(Clone, Debug)]
pub struct Suspected {
    pub record_id: String,
    pub record_hash: ContentHash,
    pub suspicion: Suspicion,
    /// Not to be asked for again before this is over.
    pub wait: Option<Duration>,
}

impl Store {
    /// Keeps suspicions with their records' pending rows. Fenced, and only where the text is still the one that was sent.
    /// Nobody is charged. Gives how many were kept.
    pub async fn suspect_records(
        &self,
        connection: &Connection,
        job: &ClaimedJob,
        suspected: &[Suspected],
    ) -> Result<u64, StoreError> {
        let ids: Vec<&str> = suspected.iter().map(|one| one.record_id.as_str()).collect();
        let hashes: Vec<&[u8]> = suspected.iter().map(|one| one.record_hash.as_bytes()).collect();
        let groups: Vec<i64> = suspected.iter().map(|one| one.suspicion.group).collect();
        let inputs: Vec<i32> = suspected.iter().map(|one| one.suspicion.inputs).collect();
        let reasons: Vec<&str> = suspected.iter().map(|one| one.suspicion.reason.as_str()).collect();
        let messages: Vec<&str> = suspected.iter().map(|one| one.suspicion.message.as_str()).collect();
        let waits: Vec<f64> = suspected
            .iter()
            .map(|one| one.wait.map_or(0.0, |wait| wait.as_secs_f64()))
            .collect();
        let space = job.space_id;
        let row = connection
            .query_one(
                &format!(
                    "WITH {FENCE}, locked AS MATERIALIZED (
                         SELECT i.*
                         FROM job CROSS JOIN unnest($4::text[], $5::bytea[], $6::bigint[], $7::int[], $8::text[], $9::text[],
                             $10::float8[]) AS i (id, hash, suspects, inputs, reason, message, wait)
                         CROSS JOIN LATERAL (
                             SELECT FROM cronvec.records r
                             WHERE r.project_id = $3 AND r.id = i.id AND r.content_hash = i.hash
                             LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r
                     ), kept AS (
                         UPDATE cronvec.pending w
                         SET suspect_group = l.suspects, suspect_inputs = l.inputs, suspect_reason = l.reason,
                             suspect_message = l.message, suspect_hash = l.hash,
                             not_before = CASE WHEN l.wait > 0 THEN clock_timestamp() + make_interval(secs => l.wait)
                                 ELSE w.not_before END
                         FROM locked l
                         WHERE w.space_id = {space} AND w.project_id = $3 AND w.record_id = l.id
                             AND w.record_id = ANY (ARRAY(SELECT id FROM locked))
                         RETURNING 1
                     )
                     SELECT EXISTS (SELECT FROM job), (SELECT count(*) FROM kept)"
                ),
                &[
                    (&job.lease.job_id, Type::INT8),
                    (&job.lease.token, Type::UUID),
                    (&job.project_id, Type::INT4),
                    (&ids, Type::TEXT_ARRAY),
                    (&hashes, Type::BYTEA_ARRAY),
                    (&groups, Type::INT8_ARRAY),
                    (&inputs, Type::INT4_ARRAY),
                    (&reasons, Type::TEXT_ARRAY),
                    (&messages, Type::TEXT_ARRAY),
                    (&waits, Type::FLOAT8_ARRAY),
                ],
            )
            .await?;
        match row.get(0) {
            true => count(row.get(1)),
            false => Err(StoreError::LeaseLost),
        }
    }
}
