//! Owns the fenced, set-wise write of an INGEST_DATA job's records. Refuses to judge whether a record is good.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::types::Type;

use super::ends::FENCE;
use super::{Store, StoreError};
use cronvec_nouns::job::{ClaimedJob, Progress};
use cronvec_nouns::record::{ContentHash, RAW_KEPT, Record, Rejection};

/// Less than PostgreSQL's `deadlock_timeout` (1 s): should a user's transaction and ours wait for each other, we are
/// the one that gives way before the server looks for a victim.
pub const LONGEST_WAIT: Duration = Duration::from_millis(900);

/// How far an INGEST_DATA job has come; kept in the job, moved on by the same transaction that stores the records.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct IngestCursor {
    /// The piece that is worked on; of a payload in the job's row 0.
    pub piece: i32,
    /// Records of it that are done.
    pub offset: usize,
    /// Lines that someone else held; they come again at the end.
    pub left: Vec<(i32, usize, i32)>,
    pub saved: u64,
    pub skipped: u64,
    pub rejected: u64,
    /// The job's crashes that were reckoned with.
    pub crashes: i32,
    /// Lines that may have killed a worker.
    pub suspects: Option<Suspects>,
}

/// The next lines of a job whose worker died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Suspects {
    /// So many from where the cursor stands.
    pub lines: usize,
    /// So many of them a worker has in hand, and nothing else beside; 0 for none.
    pub trying: usize,
    /// Workers that died with the first of them alone.
    pub alone: u32,
}

/// Records of one transaction, with their lines.
#[derive(Debug)]
pub struct IngestBatch<'a> {
    pub records: &'a [(i32, &'a Record)],
    pub rejections: &'a [Refused<'a>],
    /// Whether they are to be embedded, and how urgently.
    pub embed: bool,
    pub priority: i32,
}

/// A line that is set aside, and what it said.
#[derive(Debug)]
pub struct Refused<'a> {
    pub rejection: &'a Rejection,
    pub raw: Option<&'a [u8]>,
}

/// What became of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ingested {
    pub saved: u64,
    /// Nothing changed, or something that was accepted later is there already.
    pub skipped: u64,
    /// Lines whose record someone else holds.
    pub left: Vec<i32>,
}

impl Store {
    /// Stores a batch and moves the job on, in one transaction. `advance` is given what happened and says where the job
    /// stands then. When someone holds an id that is new to us for longer than `patience`, the whole batch fails with a lock
    /// timeout.
    pub async fn ingest_batch(
        &self,
        job: &ClaimedJob,
        batch: &IngestBatch<'_>,
        lease: Duration,
        patience: Duration,
        advance: impl FnOnce(&Ingested) -> (IngestCursor, Progress) + Send,
    ) -> Result<Ingested, StoreError> {
        let mut advance = Some(advance);
        let mut again = self.again();
        loop {
            match self.try_to_ingest(job, batch, lease, patience, &mut advance).await {
                Err(error) if advance.is_some() && Box::pin(again.after(&error)).await => {}
                Err(error) => return Err(again.told(error)),
                Ok(ingested) => return Ok(ingested),
            }
        }
    }

    async fn try_to_ingest(
        &self,
        job: &ClaimedJob,
        batch: &IngestBatch<'_>,
        lease: Duration,
        patience: Duration,
        advance: &mut Option<impl FnOnce(&Ingested) -> (IngestCursor, Progress) + Send>,
    ) -> Result<Ingested, StoreError> {
        let ids: Vec<&str> = batch.records.iter().map(|(_, record)| record.id.as_str()).collect();
        let contents: Vec<&str> = batch
            .records
            .iter()
            .map(|(_, record)| record.content.as_str())
            .collect();
        let metadata: Vec<&str> = batch
            .records
            .iter()
            .map(|(_, record)| record.metadata.as_str())
            .collect();
        let hashes: Vec<ContentHash> = batch
            .records
            .iter()
            .map(|(_, record)| ContentHash::of(&record.content))
            .collect();
        let hashes: Vec<&[u8]> = hashes.iter().map(ContentHash::as_bytes).collect();
        let lines: Vec<i32> = batch.records.iter().map(|(line, _)| *line).collect();

        let mut client = self.client().await?;
        let settings = format!(
            "SET LOCAL lock_timeout = '{}ms'; SET LOCAL idle_in_transaction_session_timeout = '10s'",
            patience.as_millis()
        );
        let transaction = self.begin(&mut client, &settings).await?;
        let rows = transaction
            .query_typed(
                &format!("WITH {FENCE}, {STORE_RECORDS}"),
                &[
                    (&job.lease.job_id, Type::INT8),
                    (&job.lease.token, Type::UUID),
                    (&job.project_id, Type::INT4),
                    (&ids, Type::TEXT_ARRAY),
                    (&contents, Type::TEXT_ARRAY),
                    (&metadata, Type::TEXT_ARRAY),
                    (&hashes, Type::BYTEA_ARRAY),
                    (&lines, Type::INT4_ARRAY),
                    (&batch.embed, Type::BOOL),
                    (&batch.priority, Type::INT4),
                ],
            )
            .await
            .map_err(super::projects::refused)?;
        let row = rows
            .first()
            .ok_or_else(|| StoreError::Unreadable("a statement gave no row".into()))?;
        if !row.get::<_, bool>(0) {
            return Err(StoreError::LeaseLost);
        }
        let number = |column: usize| u64::try_from(row.get::<_, i64>(column)).unwrap_or_default();
        let left: Vec<i32> = row.get(2);
        let purged: Vec<String> = row.get(3);
        if !purged.is_empty() {
            // They are no longer pending, so that no worker will do it.
            transaction
                .execute_typed(
                    "DELETE FROM cronvec.chunks WHERE space_id IN (SELECT id FROM cronvec.spaces)
                         AND project_id = $1 AND record_id = ANY ($2)",
                    &[(&job.project_id, Type::INT4), (&purged, Type::TEXT_ARRAY)],
                )
                .await?;
        }
        let saved = number(1);
        let ingested = Ingested {
            saved,
            skipped: (batch.records.len() as u64).saturating_sub(saved + left.len() as u64),
            left,
        };
        let advance = advance.take().ok_or_else(super::no_row)?;
        let (cursor, progress) = advance(&ingested);
        let refused = batch.rejections.iter();
        let rejected_lines: Vec<i32> = refused.clone().map(|refused| refused.rejection.line).collect();
        let rejected_ids: Vec<Option<&str>> = refused.clone().map(|refused| refused.rejection.id.as_deref()).collect();
        let reasons: Vec<&str> = refused
            .clone()
            .map(|refused| refused.rejection.reason.as_str())
            .collect();
        let raws: Vec<Option<&[u8]>> = refused
            .map(|refused| refused.raw.map(|raw| &raw[..raw.len().min(RAW_KEPT)]))
            .collect();
        let kept: Vec<i32> = cursor.left.iter().map(|(piece, _, _)| *piece).collect();
        // The job's row is ours since the first statement.
        transaction
            .execute_typed(
                "WITH rejects AS (
                     INSERT INTO cronvec.ingest_rejects (job_id, line, id, reason, raw)
                     SELECT $1, i.line, i.id, i.reason, i.raw
                     FROM unnest($2::int[], $3::text[], $4::text[], $10::bytea[]) AS i (line, id, reason, raw)
                     ON CONFLICT ON CONSTRAINT ingest_rejects_pkey DO NOTHING
                 ), done AS (
                     -- Pieces that are stored, but for those with lines that someone else held.
                     DELETE FROM cronvec.staged WHERE job_id = $1 AND piece < $8 AND piece <> ALL ($9))
                 UPDATE cronvec.job_queue
                 SET cursor = $5, progress = $6, lease_expires_at = clock_timestamp() + make_interval(secs => $7)
                 WHERE id = $1",
                &[
                    (&job.lease.job_id, Type::INT8),
                    (&rejected_lines, Type::INT4_ARRAY),
                    (&rejected_ids, Type::TEXT_ARRAY),
                    (&reasons, Type::TEXT_ARRAY),
                    (&json!(cursor), Type::JSONB),
                    (&json!(progress), Type::JSONB),
                    (&lease.as_secs_f64(), Type::FLOAT8),
                    (&cursor.piece, Type::INT4),
                    (&kept, Type::INT4_ARRAY),
                    (&raws, Type::BYTEA_ARRAY),
                ],
            )
            .await?;
        transaction.commit().await?;
        Ok(ingested)
    }

    /// The first rejected lines of a job, in order.
    pub async fn rejects(&self, job_id: i64, after_line: i32, limit: i64) -> Result<Vec<Rejection>, StoreError> {
        let rows = self
            .query(
                "SELECT line, id, reason FROM cronvec.ingest_rejects WHERE job_id = $1 AND line > $2 ORDER BY line LIMIT $3",
                &[(&job_id, Type::INT8), (&after_line, Type::INT4), (&limit, Type::INT8)],
            )
            .await?;
        Ok(rows.iter().map(rejection).collect())
    }

    /// The same with what the lines said, of which [`RAW_KEPT`] bytes are kept at most.
    pub async fn raw_rejects(
        &self,
        job_id: i64,
        after_line: i32,
        limit: i64,
    ) -> Result<Vec<(Rejection, Option<Vec<u8>>)>, StoreError> {
        let rows = self
            .query(
                "SELECT line, id, reason, raw FROM cronvec.ingest_rejects
                 WHERE job_id = $1 AND line > $2 ORDER BY line LIMIT $3",
                &[(&job_id, Type::INT8), (&after_line, Type::INT4), (&limit, Type::INT8)],
            )
            .await?;
        Ok(rows.iter().map(|row| (rejection(row), row.get(3))).collect())
    }
}

fn rejection(row: &tokio_postgres::Row) -> Rejection {
    Rejection {
        line: row.get(0),
        id: row.get(1),
        reason: row.get(2),
    }
}

/// $3 project, $4 ids, $5 contents, $6 metadata, $7 hashes, $8 lines, $9 embed, $10 priority.
/// A record that stands several times in the batch is taken as it stands last. One that is there already is written
/// only where what is there was accepted before: an older job number, or an earlier line of the same job.
/// Rows are found one by one along the primary key, as in `vectors`: a join would be planned by statistics that a table
/// that is just being filled doesn't have.
/// A project that a table feeds takes none: `not_attached` raises that, and locks the project until the batch is stored.
const STORE_RECORDS: &str = "open AS MATERIALIZED (
    SELECT cronvec.not_attached($3) FROM job
), input AS MATERIALIZED (
    SELECT DISTINCT ON (i.id) i.*
    FROM open CROSS JOIN unnest($4::text[], $5::text[], $6::text[], $7::bytea[], $8::int[])
        AS i (id, content, metadata, hash, line)
    ORDER BY i.id, i.line DESC
), there AS MATERIALIZED (
    SELECT r.*
    FROM input i CROSS JOIN LATERAL (
        SELECT r.id, r.accepted, r.position, r.content_hash, r.metadata, r.embed
        FROM cronvec.records r WHERE r.project_id = $3 AND r.id = i.id
        LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r
), fresh AS (
    INSERT INTO cronvec.records (project_id, id, content, metadata, content_hash, bucket, accepted, position, embed)
    SELECT $3, i.id, i.content, i.metadata::jsonb, i.hash, cronvec.bucket(i.id), $1, i.line, $9
    FROM input i LEFT JOIN LATERAL (
        SELECT true AS there FROM cronvec.records r WHERE r.project_id = $3 AND r.id = i.id LIMIT 1) AS r ON true
    WHERE r.there IS NULL
    ORDER BY i.id
    ON CONFLICT ON CONSTRAINT records_pkey DO NOTHING
    RETURNING id
), older AS MATERIALIZED (
    SELECT i.*, t.content_hash <> i.hash AS new_text, t.metadata <> i.metadata::jsonb AS new_metadata,
        t.embed AS was_embedded, t.content_hash = '' AS was_deleted
    FROM there t JOIN input i ON i.id = t.id
    WHERE (t.accepted, t.position) < ($1, i.line)
), numbered AS (
    -- An unchanged one takes the number, too, or an older job that runs later would win.
    UPDATE cronvec.records r SET accepted = $1, position = o.line, source_id = NULL
    FROM older o
    WHERE r.project_id = $3 AND r.id = ANY (ARRAY(SELECT id FROM older)) AND r.id = o.id
        AND NOT (o.new_text OR o.new_metadata OR o.was_embedded <> $9)
), changed AS (
    UPDATE cronvec.records r
    SET content = o.content, metadata = o.metadata::jsonb, content_hash = o.hash, accepted = $1, position = o.line,
        embed = $9, source_id = NULL, updated_at = now()
    FROM older o
    WHERE r.project_id = $3 AND r.id = ANY (ARRAY(SELECT id FROM older)) AND r.id = o.id
        AND (o.new_text OR o.new_metadata OR o.was_embedded <> $9)
), due AS MATERIALIZED (
    SELECT id FROM fresh UNION ALL SELECT id FROM older WHERE new_text OR (NOT was_embedded AND $9)
), freed AS (
    DELETE FROM cronvec.quarantined_records
    WHERE project_id = $3 AND record_id = ANY (ARRAY(SELECT id FROM older WHERE new_text))
), marked AS MATERIALIZED (
    SELECT cronvec.mark($3, ARRAY(SELECT id FROM due), $10, $1)::text WHERE $9
), raised AS (
    -- A text that waits already and was sent again may have become more urgent.
    UPDATE cronvec.pending w SET priority = $10
    WHERE $9 AND w.project_id = $3 AND w.priority < $10
        AND w.record_id = ANY (ARRAY(SELECT id FROM older WHERE NOT new_text AND was_embedded))
), hidden AS (
    -- Of a record that was deleted and comes back without vectors nothing old is shown.
    DELETE FROM cronvec.embedded e USING cronvec.project_spaces o
    WHERE NOT $9 AND o.project_id = $3 AND e.project_id = $3 AND e.space_id = o.space_id
        AND e.record_id = ANY (ARRAY(SELECT id FROM older WHERE was_deleted))
), unmarked AS (
    DELETE FROM cronvec.pending
    WHERE NOT $9 AND project_id = $3 AND record_id = ANY (ARRAY(SELECT id FROM older WHERE new_text))
)
SELECT EXISTS (SELECT FROM open),
    (SELECT count(*) FROM fresh) + (SELECT count(*) FROM older WHERE new_text OR new_metadata OR was_embedded <> $9)
        + (SELECT count(*) - count(*) FROM marked),
    ARRAY(SELECT i.line FROM input i
          WHERE NOT EXISTS (SELECT FROM fresh f WHERE f.id = i.id) AND NOT EXISTS (SELECT FROM there t WHERE t.id = i.id)),
    ARRAY(SELECT id FROM older WHERE was_deleted AND NOT $9)";
