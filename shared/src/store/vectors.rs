//! Owns the fenced writes of a slice: chunks with their vectors, purges, charges, quarantine. Refuses to embed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Object;
use serde_json::json;
use tokio_postgres::types::Type;

use super::ends::{FENCE, backoff};
use super::vector_array::VectorArray;
use super::{Param, Store, StoreError};
use crate::job::{ClaimedJob, Progress};
use crate::record::ContentHash;

/// A record whose row someone else holds is left alone for so long.
const BUSY_DELAY: &str = "5 seconds";

/// A chunk on its way into the database.
#[derive(Clone, Debug)]
pub struct NewChunk {
    pub record_id: String,
    pub record_hash: ContentHash,
    /// How many chunks the record has in all.
    pub of: i32,
    pub ordinal: i32,
    pub content: String,
    pub hash: ContentHash,
    /// `None`: the space holds this text already; its vector is copied.
    pub vector: Option<Arc<Vec<f32>>>,
}

/// What a write did.
#[derive(Debug, Default)]
pub struct Written {
    /// Chunks that are new.
    pub stored: u64,
    /// Records whose set is complete now.
    pub complete: u64,
    /// Records that were let be: their text changed meanwhile, or someone else holds their row.
    pub passed_over: u64,
}

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

/// What the holder of a lease says with each write: how far it is, and for how long it wants to go on.
#[derive(Debug, Clone)]
pub struct Holding<'a> {
    pub job: &'a ClaimedJob,
    pub lease: Duration,
    pub progress: Progress,
}

/// A connection that a job's writes are sent along, one behind the other.
pub struct Connection(Object);

impl Store {
    pub async fn connection(&self) -> Result<Connection, StoreError> {
        // Looked up before it is taken: who holds one and waits for another may wait for one that waits for it.
        self.vector_types().await?;
        Ok(Connection(self.client().await?))
    }

    /// Which of these texts the space has vectors for.
    pub async fn known_texts(&self, space_id: i32, hashes: &[ContentHash]) -> Result<HashSet<ContentHash>, StoreError> {
        let wanted: Vec<&[u8]> = hashes.iter().map(ContentHash::as_bytes).collect();
        let rows = self
            .query(
                &format!("SELECT c.chunk_hash FROM unnest($1) AS i (hash) CROSS JOIN LATERAL (
                         SELECT c.chunk_hash FROM cronvec.chunks_{space_id} c WHERE c.chunk_hash = i.hash LIMIT 1) AS c"),
                &[(&wanted, Type::BYTEA_ARRAY)],
            )
            .await?;
        rows.iter().map(|row| hash(row.get(0))).collect()
    }

    /// Which chunks of these records, cut from these texts, are stored already.
    pub async fn stored_chunks(
        &self,
        job: &ClaimedJob,
        records: &[(&str, ContentHash)],
    ) -> Result<HashMap<String, HashMap<i32, ContentHash>>, StoreError> {
        let ids: Vec<&str> = records.iter().map(|(id, _)| *id).collect();
        let hashes: Vec<&[u8]> = records.iter().map(|(_, hash)| hash.as_bytes()).collect();
        let rows = self
            .query(
                &format!(
                    "SELECT c.record_id, c.ordinal, c.chunk_hash
                     FROM unnest($2::text[], $3::bytea[]) AS i (id, hash)
                     CROSS JOIN LATERAL (
                         SELECT c.record_id, c.ordinal, c.chunk_hash FROM cronvec.chunks_{space} c
                         WHERE c.space_id = {space} AND c.project_id = $1 AND c.record_id = i.id AND c.content_hash = i.hash
                         ORDER BY c.ordinal LIMIT 1000000) AS c",
                    space = job.space_id
                ),
                &[
                    (&job.project_id, Type::INT4),
                    (&ids, Type::TEXT_ARRAY),
                    (&hashes, Type::BYTEA_ARRAY),
                ],
            )
            .await?;
        let mut stored: HashMap<String, HashMap<i32, ContentHash>> = HashMap::new();
        for row in &rows {
            stored
                .entry(row.get(0))
                .or_default()
                .insert(row.get(1), hash(row.get(2))?);
        }
        Ok(stored)
    }

    /// Takes away chunks of unfinished sets that this program would cut otherwise.
    pub async fn discard_chunks(&self, job: &ClaimedJob, records: &[(&str, ContentHash)]) -> Result<(), StoreError> {
        let ids: Vec<&str> = records.iter().map(|(id, _)| *id).collect();
        let hashes: Vec<&[u8]> = records.iter().map(|(_, hash)| hash.as_bytes()).collect();
        self.execute(
            &format!(
                "WITH {FENCE} DELETE FROM cronvec.chunks_{space} c
                 USING job, unnest($4::text[], $5::bytea[]) AS i (id, hash)
                 WHERE c.space_id = {space} AND c.project_id = $3 AND c.record_id = ANY ($4) AND c.record_id = i.id
                     AND c.content_hash = i.hash",
                space = job.space_id
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

    /// The fenced write, one round trip: locks the job by its live lease, then the records whose text is still the one
    /// that was read, stores the chunks, shows the records that are complete, takes these out of `pending`, renews.
    /// Of one job never two at once, or neither of two would see that a record is complete: the next one goes behind it
    /// on the same connection, and may be sent before it has ended.
    pub async fn write_chunks(
        &self,
        connection: &Connection,
        holding: &Holding<'_>,
        chunks: &[NewChunk],
    ) -> Result<Written, StoreError> {
        let vector_array = self.vector_types().await?.array.clone();
        let mut seen = HashSet::new();
        let records: Vec<&NewChunk> = chunks
            .iter()
            .filter(|chunk| seen.insert(chunk.record_id.as_str()))
            .collect();
        let record_ids: Vec<&str> = records.iter().map(|chunk| chunk.record_id.as_str()).collect();
        let record_hashes: Vec<&[u8]> = records.iter().map(|chunk| chunk.record_hash.as_bytes()).collect();
        let totals: Vec<i32> = records.iter().map(|chunk| chunk.of).collect();
        let owners: Vec<&str> = chunks.iter().map(|chunk| chunk.record_id.as_str()).collect();
        let ordinals: Vec<i32> = chunks.iter().map(|chunk| chunk.ordinal).collect();
        let contents: Vec<&str> = chunks.iter().map(|chunk| chunk.content.as_str()).collect();
        let hashes: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.hash.as_bytes()).collect();
        let vectors = VectorArray(
            chunks
                .iter()
                .map(|chunk| chunk.vector.as_ref().map(|vector| vector.as_slice()))
                .collect(),
        );
        let job = holding.job;
        let progress = json!(holding.progress);
        let lease = holding.lease.as_secs_f64();
        let mut params: Vec<Param<'_>> = vec![
            (&job.lease.job_id, Type::INT8),
            (&job.lease.token, Type::UUID),
            (&job.project_id, Type::INT4),
            (&record_ids, Type::TEXT_ARRAY),
            (&record_hashes, Type::BYTEA_ARRAY),
            (&totals, Type::INT4_ARRAY),
            (&owners, Type::TEXT_ARRAY),
            (&ordinals, Type::INT4_ARRAY),
            (&contents, Type::TEXT_ARRAY),
            (&hashes, Type::BYTEA_ARRAY),
        ];
        params.push((&vectors, vector_array));
        params.push((&lease, Type::FLOAT8));
        params.push((&progress, Type::JSONB));
        let rows = connection
            .0
            .query_typed(&write_statement(job.space_id), &params)
            .await?;
        let row = rows.first().ok_or(StoreError::LeaseLost)?;
        if !row.get::<_, bool>(0) {
            return Err(StoreError::LeaseLost);
        }
        let locked = count(row.get(3))?;
        let passed_over = (record_ids.len() as u64).saturating_sub(locked);
        if passed_over > 0 {
            self.defer_held(job, &record_ids, &record_hashes).await?;
        }
        Ok(Written {
            stored: count(row.get(1))?,
            complete: count(row.get(2))?,
            passed_over,
        })
    }

    /// Records that somebody holds are left for a while, so that the same slices don't ask for them again and again; not
    /// where that somebody has marked them anew (`idle` looks at the row as it is, `held` at the snapshot): a new text is
    /// due at once.
    async fn defer_held(&self, job: &ClaimedJob, ids: &[&str], hashes: &[&[u8]]) -> Result<(), StoreError> {
        let space = job.space_id;
        self.execute(
            &format!(
                "WITH {FENCE}, free AS MATERIALIZED (
                     SELECT i.id
                     FROM job CROSS JOIN unnest($4::text[]) AS i (id)
                     CROSS JOIN LATERAL (
                         SELECT FROM cronvec.records r WHERE r.project_id = $3 AND r.id = i.id
                         LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r
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

    /// Takes away what is left of deleted records, a bounded number of them. Returns how many are done with.
    pub async fn purge_deleted(&self, holding: &Holding<'_>, record_ids: &[&str]) -> Result<u64, StoreError> {
        let job = holding.job;
        let space = job.space_id;
        let rows = self
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
                     ), shown AS (
                         DELETE FROM cronvec.embedded_{space}
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

    /// Charges records with an attempt each; those that have none left, and those that it is no use to try again, go to
    /// quarantine. Fenced, and only where the text is still the one that failed.
    pub async fn charge_records(&self, job: &ClaimedJob, charges: &[Charge]) -> Result<Charged, StoreError> {
        let ids: Vec<&str> = charges.iter().map(|charge| charge.record_id.as_str()).collect();
        let hashes: Vec<&[u8]> = charges.iter().map(|charge| charge.record_hash.as_bytes()).collect();
        let reasons: Vec<&str> = charges.iter().map(|charge| charge.reason).collect();
        let messages: Vec<&str> = charges.iter().map(|charge| charge.message.as_str()).collect();
        let permanent: Vec<bool> = charges.iter().map(|charge| charge.permanent).collect();
        let wait = backoff("job.backoff_ms", "w.attempts");
        let space = job.space_id;
        let row = self
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

/// The write for one space: its partitions by name, so that the planner looks at no other.
///
/// A table that was filled a moment ago has no statistics yet, and a join over it may be planned as if it had one row.
/// So nothing here is left to the planner: rows are found by `LATERAL … LIMIT 1` or by `= ANY (array)`, which can only
/// go along the primary key (a slice of 300 out of 16,000 took 650 ms as a join, under 1 ms so).
fn write_statement(space: i32) -> String {
    format!(
        "WITH {FENCE}, locked AS MATERIALIZED (
             SELECT i.id, i.hash, i.chunks
             FROM job CROSS JOIN unnest($4::text[], $5::bytea[], $6::int[]) AS i (id, hash, chunks)
             CROSS JOIN LATERAL (
                 SELECT FROM cronvec.records r
                 WHERE r.project_id = $3 AND r.id = i.id AND r.content_hash = i.hash
                 LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r
         ), stored AS (
             INSERT INTO cronvec.chunks_{space}
                 (space_id, project_id, record_id, content_hash, ordinal, content, chunk_hash, embedding)
             SELECT {space}, $3, l.id, l.hash, c.ordinal, c.content, c.chunk_hash, coalesce(c.embedding, twin.embedding)
             FROM (
                 -- Not in FROM, where all vectors would be copied into a table first.
                 SELECT unnest($7::text[]) AS id, unnest($8::int[]) AS ordinal, unnest($9::text[]) AS content,
                     unnest($10::bytea[]) AS chunk_hash, unnest($11) AS embedding
             ) AS c
             JOIN locked l ON l.id = c.id
             LEFT JOIN LATERAL (
                 -- Not as the join's condition: that is asked after the look-up.
                 SELECT t.embedding FROM cronvec.chunks_{space} t
                 WHERE c.embedding IS NULL AND t.chunk_hash = c.chunk_hash LIMIT 1
             ) AS twin ON true
             WHERE c.embedding IS NOT NULL OR twin.embedding IS NOT NULL
             ON CONFLICT DO NOTHING
             RETURNING record_id
         ), now_there AS MATERIALIZED (
             SELECT record_id, count(*) AS chunks FROM stored GROUP BY record_id
         ), complete AS MATERIALIZED (
             SELECT l.id, l.hash, l.chunks
             FROM locked l LEFT JOIN now_there n ON n.record_id = l.id
             WHERE l.chunks = coalesce(n.chunks, 0)
                 OR l.chunks = coalesce(n.chunks, 0) + (
                     SELECT count(*) FROM cronvec.chunks_{space} c
                     WHERE c.space_id = {space} AND c.project_id = $3 AND c.record_id = l.id AND c.content_hash = l.hash)
         ), shown AS (
             INSERT INTO cronvec.embedded_{space} AS e (space_id, project_id, record_id, content_hash, chunks)
             SELECT {space}, $3, id, hash, chunks FROM complete
             ON CONFLICT (space_id, project_id, record_id) DO UPDATE SET
                 content_hash = excluded.content_hash, chunks = excluded.chunks, embedded_at = excluded.embedded_at
         ), dropped AS (
             DELETE FROM cronvec.chunks_{space} c USING complete
             WHERE c.space_id = {space} AND c.project_id = $3 AND c.record_id = ANY (ARRAY(SELECT id FROM complete))
                 AND c.record_id = complete.id AND (c.content_hash <> complete.hash OR c.ordinal >= complete.chunks)
         ), settled AS (
             DELETE FROM cronvec.pending
             WHERE space_id = {space} AND project_id = $3 AND record_id = ANY (ARRAY(SELECT id FROM complete))
         ), freed AS (
             DELETE FROM cronvec.quarantined_records
             WHERE space_id = {space} AND project_id = $3 AND record_id = ANY (ARRAY(SELECT id FROM complete))
         ), renewed AS (
             UPDATE cronvec.job_queue j
             SET lease_expires_at = clock_timestamp() + make_interval(secs => $12),
                 -- What the write before this one has settled the worker may not know yet.
                 progress = jsonb_set($13, '{{current}}', to_jsonb(greatest((job.progress->>'current')::bigint,
                     ($13->>'current')::bigint) + (SELECT count(*) FROM complete)))
             FROM job WHERE j.id = job.id
         )
         SELECT EXISTS (SELECT FROM job), (SELECT count(*) FROM stored), (SELECT count(*) FROM complete),
             (SELECT count(*) FROM locked)"
    )
}

fn hash(bytes: &[u8]) -> Result<ContentHash, StoreError> {
    bytes
        .try_into()
        .map(ContentHash)
        .map_err(|_| StoreError::Unreadable("a hash".into()))
}

fn count(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|error| StoreError::Unreadable(error.to_string()))
}
