//! Owns how vectors get into a table's own column when one of its rows refuses: by halves, each a statement of its own, until
//! the rows that refuse are found. Refuses to touch the records' own vectors: they are stored by then, and found.

use std::time::{Duration, Instant};

use tokio_postgres::types::Type;

use super::vectors::{Holding, NewChunk, Target};
use super::write_statement::settle;
use super::{Connection, Param, Store, StoreError, count, describe};

/// Quarantine's reason for a row that refuses its vector.
pub const COLUMN_REFUSED: &str = "column_refused";

/// Meanwhile the lease is renewed so often.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// A record whose row can't be written because of others is left alone for so long.
const BUSY_DELAY: &str = "5 seconds";
/// Characters that are kept of what the server said.
const MOST_SAID: usize = 1000;

/// What became of the records.
#[derive(Debug, Default)]
pub(super) struct Filled {
    /// Their vectors stand in the column.
    pub set: u64,
    /// They stand in quarantine.
    pub refused: u64,
}

impl Filled {
    /// Nothing is left to do about them.
    pub fn settled(&self) -> u64 {
        self.set + self.refused
    }
}

impl StoreError {
    /// Whether a write may have failed by some rows of a user's table alone: by a constraint or a trigger of it, or by a
    /// lock that somebody holds. Not where the database is away, or the statement was ended.
    pub(super) fn may_be_the_rows(&self) -> bool {
        self.is_refusal() || self.is_contention()
    }
}

impl Store {
    /// Writes the column of records that are stored and complete, and settles them; those whose row refuses are settled,
    /// too, and stand in quarantine. What is left stays pending: somebody holds it, or its text changed.
    pub(super) async fn fill_column(
        &self,
        connection: &Connection,
        target: &Target,
        holding: Option<&Holding<'_>>,
        records: &[&NewChunk],
    ) -> Result<Filled, StoreError> {
        let mut filled = Filled::default();
        let Some(source) = target.column else { return Ok(filled) };
        let mut kept = Instant::now();
        let mut parts = vec![records];
        while let Some(part) = parts.pop() {
            if let Some(holding) = holding
                && kept.elapsed() >= KEEP_EVERY
            {
                self.keep_job(connection, holding).await?;
                kept = Instant::now();
            }
            let error = match set(connection, target, source, part).await {
                Ok(written) => {
                    filled.set += written;
                    continue;
                }
                Err(error) if error.may_be_the_rows() => error,
                Err(error) => return Err(error),
            };
            match part {
                [] => {}
                [record] if error.is_refusal() => {
                    let refused = refuse(connection, target, source, record, &said(&error)).await?;
                    filled.refused += refused;
                    if filled.refused == 1 {
                        tracing::warn!(source.id = source, error = %error, "rows of an attached table refuse their vectors");
                    }
                }
                [record] => put_off(connection, target, record).await?,
                several => {
                    let (first, rest) = several.split_at(several.len() / 2);
                    parts.extend([rest, first]);
                }
            }
        }
        Ok(filled)
    }
}

/// The server's own words, without ours.
fn said(error: &StoreError) -> String {
    let said = match error {
        StoreError::Database(error) => describe(error),
        error => error.to_string(),
    };
    said.chars().take(MOST_SAID).collect()
}

/// Rows before records, as everywhere. What somebody holds is left, and what isn't complete, or is of another text.
async fn set(connection: &Connection, target: &Target, source: i32, records: &[&NewChunk]) -> Result<u64, StoreError> {
    let Target {
        fence, space_id: space, ..
    } = target;
    let ids: Vec<&str> = records.iter().map(|record| record.record_id.as_str()).collect();
    let hashes: Vec<&[u8]> = records.iter().map(|record| record.record_hash.as_bytes()).collect();
    let settled = settle(*space, "firsts");
    let statement = format!(
        "WITH {fence}, rows AS MATERIALIZED (
             SELECT r.id FROM job CROSS JOIN LATERAL cronvec.source_{source}_lock($4) AS r (id)
         ), locked AS MATERIALIZED (
             SELECT i.id, i.hash
             FROM job CROSS JOIN unnest($4::text[], $5::bytea[]) AS i (id, hash)
             CROSS JOIN LATERAL (
                 SELECT FROM cronvec.records r
                 WHERE r.project_id = $3 AND r.id = i.id AND r.content_hash = i.hash
                 LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r
             WHERE i.id = ANY (ARRAY(SELECT id FROM rows))
         ), firsts AS MATERIALIZED (
             SELECT l.id, c.embedding FROM locked l
             CROSS JOIN LATERAL (
                 SELECT c.embedding FROM cronvec.chunks_{space} c
                 WHERE c.space_id = {space} AND c.project_id = $3 AND c.record_id = l.id AND c.content_hash = l.hash
                     AND c.ordinal = 0 LIMIT 1) AS c
             WHERE EXISTS (
                 SELECT FROM cronvec.embedded_{space} e
                 WHERE e.space_id = {space} AND e.project_id = $3 AND e.record_id = l.id AND e.content_hash = l.hash)
         ){settled}
         SELECT EXISTS (SELECT FROM job), (SELECT count(*) FROM firsts),
             (SELECT cronvec.source_{source}_set(ARRAY(SELECT id FROM firsts), ARRAY(SELECT embedding FROM firsts))
              WHERE EXISTS (SELECT FROM firsts))"
    );
    let (job_id, token) = target.job_and_token();
    fenced(
        connection,
        &statement,
        &[
            (&job_id, Type::INT8),
            (&token, Type::UUID),
            (&target.project_id, Type::INT4),
            (&ids, Type::TEXT_ARRAY),
            (&hashes, Type::BYTEA_ARRAY),
        ],
    )
    .await
}

/// The record whose text is still the one that was read, locked. $3 is the project, $4 the record, $5 its hash.
const THE_RECORD: &str = "the_record AS MATERIALIZED (
    SELECT r.id, r.content_hash FROM job CROSS JOIN LATERAL (
        SELECT r.id, r.content_hash FROM cronvec.records r
        WHERE r.project_id = $3 AND r.id = $4 AND r.content_hash = $5 LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r)";

/// Into quarantine with it, unless the table was detached meanwhile. It stays embedded.
async fn refuse(
    connection: &Connection,
    target: &Target,
    source: i32,
    record: &NewChunk,
    message: &str,
) -> Result<u64, StoreError> {
    let Target {
        fence, space_id: space, ..
    } = target;
    let statement = format!(
        "WITH {fence}, {THE_RECORD}, aside AS (
             INSERT INTO cronvec.quarantined_records AS q
                 (space_id, project_id, record_id, content_hash, reason, message, attempts)
             SELECT {space}, $3, r.id, r.content_hash, '{COLUMN_REFUSED}', $6, 1 FROM the_record r
             WHERE EXISTS (SELECT FROM cronvec.sources s WHERE s.id = {source} AND s.embedding_column IS NOT NULL)
             ON CONFLICT ON CONSTRAINT quarantined_records_pkey DO UPDATE SET
                 attempts = CASE WHEN q.reason = excluded.reason AND q.content_hash = excluded.content_hash
                     THEN q.attempts + 1 ELSE 1 END,
                 content_hash = excluded.content_hash, reason = excluded.reason, message = excluded.message,
                 last_attempt_at = now()
         ), settled AS (
             DELETE FROM cronvec.pending
             WHERE space_id = {space} AND project_id = $3 AND record_id = ANY (ARRAY(SELECT id FROM the_record))
         )
         SELECT EXISTS (SELECT FROM job), (SELECT count(*) FROM the_record)"
    );
    let (job_id, token) = target.job_and_token();
    fenced(
        connection,
        &statement,
        &[
            (&job_id, Type::INT8),
            (&token, Type::UUID),
            (&target.project_id, Type::INT4),
            (&record.record_id, Type::TEXT),
            (&record.record_hash.as_bytes(), Type::BYTEA),
            (&message, Type::TEXT),
        ],
    )
    .await
}

/// Others were in the way, and will be gone.
async fn put_off(connection: &Connection, target: &Target, record: &NewChunk) -> Result<(), StoreError> {
    let Target {
        fence, space_id: space, ..
    } = target;
    let statement = format!(
        "WITH {fence}, {THE_RECORD}, later AS (
             UPDATE cronvec.pending SET not_before = clock_timestamp() + interval '{BUSY_DELAY}'
             WHERE space_id = {space} AND project_id = $3 AND record_id = ANY (ARRAY(SELECT id FROM the_record))
         )
         SELECT EXISTS (SELECT FROM job), (SELECT count(*) FROM the_record)"
    );
    let (job_id, token) = target.job_and_token();
    fenced(
        connection,
        &statement,
        &[
            (&job_id, Type::INT8),
            (&token, Type::UUID),
            (&target.project_id, Type::INT4),
            (&record.record_id, Type::TEXT),
            (&record.record_hash.as_bytes(), Type::BYTEA),
        ],
    )
    .await
    .map(|_| ())
}

/// A statement whose row says first whether the fence held, and then how many records it was about.
async fn fenced(connection: &Connection, statement: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
    let row = connection.query_one(statement, params).await?;
    if !row.get::<_, bool>(0) {
        return Err(StoreError::LeaseLost);
    }
    count(row.get(1))
}
