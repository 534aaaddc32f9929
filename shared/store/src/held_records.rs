//! Owns which records somebody else held when their vectors were to be stored, so that a provider isn't paid for them again
//! before they are free. Refuses to wait for them.

use std::collections::HashSet;

use tokio_postgres::types::Type;

use super::ends::FENCE;
use super::vectors::Holding;
use super::{Connection, Store, StoreError};
use cronvec_nouns::job::ClaimedJob;

/// A record whose row someone else holds is left alone for so long.
const BUSY_DELAY: &str = "5 seconds";

impl Store {
    /// Notes which of these records somebody holds, and leaves them for a while where that can be written down: not where
    /// that somebody has marked them anew (`idle` looks at the row as it is, `held` at the snapshot), since a new text is
    /// due at once.
    pub(super) async fn note_held(
        &self,
        connection: &Connection,
        holding: &Holding<'_>,
        ids: &[&str],
        hashes: &[&[u8]],
    ) -> Result<(), StoreError> {
        let job = holding.job;
        let space = job.space_id;
        let rows = holding.column.map_or_else(String::new, |source| {
            format!("WHERE i.id = ANY (ARRAY(SELECT cronvec.source_{source}_lock($4)))")
        });
        connection
            .query(
                &format!(
                    "WITH {FENCE}, free AS MATERIALIZED (
                     SELECT i.id
                     FROM job CROSS JOIN unnest($4::text[]) AS i (id)
                     CROSS JOIN LATERAL (
                         SELECT FROM cronvec.records r WHERE r.project_id = $3 AND r.id = i.id
                         LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r {rows}
                 ), held AS MATERIALIZED (
                     SELECT i.id, w.not_before
                     FROM job CROSS JOIN unnest($4::text[], $5::bytea[]) AS i (id, hash)
                     CROSS JOIN LATERAL (
                         SELECT FROM cronvec.records r
                         WHERE r.project_id = $3 AND r.id = i.id AND r.content_hash = i.hash LIMIT 1) AS r
                     CROSS JOIN LATERAL (
                         SELECT w.not_before FROM cronvec.pending w
                         WHERE w.space_id = {space} AND w.project_id = $3 AND w.record_id = i.id LIMIT 1) AS w
                     WHERE NOT EXISTS (SELECT FROM free f WHERE f.id = i.id)
                 ), noted AS (
                     INSERT INTO cronvec.held_records (record_id, project_id, space_id)
                     SELECT id, $3, {space} FROM held ORDER BY id
                     ON CONFLICT ON CONSTRAINT held_records_pkey DO NOTHING
                 ), idle AS MATERIALIZED (
                     SELECT w.record_id FROM held
                     CROSS JOIN LATERAL (
                         SELECT w.record_id FROM cronvec.pending w
                         WHERE w.space_id = {space} AND w.project_id = $3 AND w.record_id = held.id
                             AND w.not_before = held.not_before
                         LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS w
                 )
                 UPDATE cronvec.pending SET not_before = clock_timestamp() + interval '{BUSY_DELAY}'
                 WHERE space_id = {space} AND project_id = $3 AND record_id = ANY (ARRAY(SELECT record_id FROM idle))"
                ),
                &[
                    (&job.lease.job_id, Type::INT8),
                    (&job.lease.token, Type::UUID),
                    (&job.project_id, Type::INT4),
                    (&ids, Type::TEXT_ARRAY),
                    (&hashes, Type::BYTEA_ARRAY),
                ],
            )
            .await?;
        Ok(())
    }

    /// Which of these records, noted as held, are still held. The others are forgotten here.
    pub async fn still_held(
        &self,
        job: &ClaimedJob,
        column: Option<i32>,
        ids: &[&str],
    ) -> Result<HashSet<String>, StoreError> {
        let rows = column.map_or_else(String::new, |source| {
            format!("WHERE i.id = ANY (ARRAY(SELECT cronvec.source_{source}_lock($3)))")
        });
        let held = self
            .query(
                &format!(
                    "WITH free AS MATERIALIZED (
                         SELECT i.id FROM unnest($3::text[]) AS i (id)
                         CROSS JOIN LATERAL (
                             SELECT FROM cronvec.records r WHERE r.project_id = $1 AND r.id = i.id
                             LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r {rows}
                     ), forgotten AS (
                         DELETE FROM cronvec.held_records
                         WHERE project_id = $1 AND space_id = $2 AND record_id = ANY (ARRAY(SELECT id FROM free))
                     )
                     SELECT i.id FROM unnest($3::text[]) AS i (id) WHERE NOT EXISTS (SELECT FROM free f WHERE f.id = i.id)"
                ),
                &[
                    (&job.project_id, Type::INT4),
                    (&job.space_id, Type::INT4),
                    (&ids, Type::TEXT_ARRAY),
                ],
            )
            .await?;
        Ok(held.iter().map(|row| row.get(0)).collect())
    }
}
