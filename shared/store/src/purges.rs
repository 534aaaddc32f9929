//! Owns the purging of what is left of deleted records. Refuses to delete any.

use serde_json::json;
use tokio_postgres::types::Type;

use super::ends::FENCE;
use super::vectors::Holding;
use super::{Connection, Store, StoreError, count};

impl Store {
    /// Takes away what is left of deleted records, a bounded number of them. Returns how many are done with.
    pub async fn purge_deleted(
        &self,
        connection: &Connection,
        holding: &Holding<'_>,
        record_ids: &[&str],
    ) -> Result<u64, StoreError> {
        let job = holding.job;
        let space = job.space_id;
        let rows = connection
            .query(
                &format!(
                    "WITH {FENCE}, gone AS MATERIALIZED (
                         SELECT i.id FROM job CROSS JOIN unnest($4::text[]) AS i (id)
                         CROSS JOIN LATERAL (
                             SELECT FROM cronvec.records r WHERE r.project_id = $3 AND r.id = i.id AND r.content IS NULL
                             LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r
                     ), nowhere AS MATERIALIZED (
                         SELECT i.id FROM job CROSS JOIN unnest($4::text[]) AS i (id)
                         LEFT JOIN LATERAL (
                             SELECT true AS there FROM cronvec.records r WHERE r.project_id = $3 AND r.id = i.id LIMIT 1
                         ) AS r ON true
                         WHERE r.there IS NULL
                     ), done AS MATERIALIZED (
                         SELECT id FROM gone UNION ALL SELECT id FROM nowhere
                     ), chunks AS (
                         DELETE FROM cronvec.chunks_{space}
                         WHERE space_id = {space} AND project_id = $3 AND record_id = ANY (ARRAY(SELECT id FROM done))
                         RETURNING chunk_hash, embedding
                     ), may_return AS (
                         -- A row that left an attached table's --where may be back tomorrow.
                         INSERT INTO cronvec.left_vectors AS l (space_id, chunk_hash, project_id, embedding)
                         SELECT DISTINCT ON (c.chunk_hash) {space}, c.chunk_hash, $3, c.embedding FROM chunks c
                         WHERE EXISTS (SELECT FROM cronvec.sources s WHERE s.project_id = $3 AND s.where_sql IS NOT NULL)
                         ORDER BY c.chunk_hash
                         ON CONFLICT ON CONSTRAINT left_vectors_pkey DO UPDATE SET left_at = now()
                     ), shown AS (
                         DELETE FROM cronvec.embedded_{space}
                         WHERE space_id = {space} AND project_id = $3 AND record_id = ANY (ARRAY(SELECT id FROM done))
                     ), forgotten AS (
                         DELETE FROM cronvec.held_records
                         WHERE space_id = {space} AND project_id = $3 AND record_id = ANY (ARRAY(SELECT id FROM done))
                     ), settled AS (
                         -- Of a record that isn't there at all only what is old: it may be coming in right now.
                         DELETE FROM cronvec.pending
                         WHERE space_id = {space} AND project_id = $3 AND record_id = ANY (ARRAY(SELECT id FROM done))
                             AND (not_before < statement_timestamp() - interval '1 minute'
                                 OR record_id = ANY (ARRAY(SELECT id FROM gone)))
                     ), renewed AS (
                         UPDATE cronvec.job_queue j
                         SET lease_expires_at = clock_timestamp() + make_interval(secs => $5), progress = $6
                         FROM job WHERE j.id = job.id
                     )
                     SELECT EXISTS (SELECT FROM job), (SELECT count(*) FROM done)"
                ),
                &[
                    (&job.lease.job_id, Type::INT8),
                    (&job.lease.token, Type::UUID),
                    (&job.project_id, Type::INT4),
                    (&record_ids, Type::TEXT_ARRAY),
                    (&holding.lease.as_secs_f64(), Type::FLOAT8),
                    (&json!(holding.progress), Type::JSONB),
                ],
            )
            .await?;
        let row = rows.first().ok_or(StoreError::LeaseLost)?;
        if row.get(0) {
            count(row.get(1))
        } else {
            Err(StoreError::LeaseLost)
        }
    }
}
