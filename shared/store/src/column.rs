//! Owns how vectors get into a table's own column when one of its rows refuses: row by row, until those that refuse are known.
//! Refuses to touch the records' own vectors: they are stored by then, and found.

use std::time::{Duration, Instant};

use tokio_postgres::types::Type;

use super::sqlstate::{self, Fault};
use super::vectors::{Holding, NewChunk, Target};
use super::write_statement::settle;
use super::{Connection, Param, Store, StoreError, count, describe};

/// Quarantine's reason for a row that refuses its vector.
pub const COLUMN_REFUSED: &str = "column_refused";

/// Rows that one statement writes. Each may become a subtransaction, and of more than 64 the server loses sight.
const PIECE: usize = 50;
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

/// A record whose row didn't get its vector.
struct Unset {
    id: String,
    hash: Vec<u8>,
    fault: Fault,
    message: String,
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
        for piece in records.chunks(PIECE) {
            if let Some(holding) = holding
                && kept.elapsed() >= KEEP_EVERY
            {
                self.keep_job(connection, holding).await?;
                kept = Instant::now();
            }
            let unset = match set(connection, target, source, piece).await {
                Ok((written, unset)) => {
                    filled.set += written;
                    unset
                }
                // Their rows can't even be locked.
                Err(error) if error.is_refusal() => piece.iter().map(|record| all_unset(record, &error)).collect(),
                Err(error) => return Err(error),
            };
            let (refused, others): (Vec<Unset>, Vec<Unset>) =
                unset.into_iter().partition(|unset| unset.fault.is_refusal());
            if let Some(gone) = others.iter().find(|unset| !unset.fault.is_contention()) {
                return Err(StoreError::Outage(gone.message.clone()));
            }
            if let Some(first) = refused.first() {
                tracing::warn!(
                    source.id = source, rows = refused.len(), error = %first.message, "rows of an attached table refuse their vectors"
                );
                filled.refused += refuse(connection, target, source, &refused).await?;
            }
            if !others.is_empty() {
                put_off(connection, target, &others).await?;
            }
        }
        Ok(filled)
    }
}

fn all_unset(record: &NewChunk, error: &StoreError) -> Unset {
    let said = match error {
        // The server's own words, without ours.
        StoreError::Database(error) => describe(error),
        error => error.to_string(),
    };
    Unset {
        id: record.record_id.clone(),
        hash: record.record_hash.as_bytes().to_vec(),
        fault: Fault::Bug,
        message: said,
    }
}

/// Rows before records, as everywhere. What somebody holds is left, and what isn't complete, or is of another text.
async fn set(
    connection: &Connection,
    target: &Target,
    source: i32,
    records: &[&NewChunk],
) -> Result<(u64, Vec<Unset>), StoreError> {
    let Target {
        fence, space_id: space, ..
    } = target;
    let ids: Vec<&str> = records.iter().map(|record| record.record_id.as_str()).collect();
    let hashes: Vec<&[u8]> = records.iter().map(|record| record.record_hash.as_bytes()).collect();
    let settled = settle(*space, "done");
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
             SELECT l.id, l.hash, c.embedding FROM locked l
             CROSS JOIN LATERAL (
                 SELECT c.embedding FROM cronvec.chunks_{space} c
                 WHERE c.space_id = {space} AND c.project_id = $3 AND c.record_id = l.id AND c.content_hash = l.hash
                     AND c.ordinal = 0 LIMIT 1) AS c
             WHERE EXISTS (
                 SELECT FROM cronvec.embedded_{space} e
                 WHERE e.space_id = {space} AND e.project_id = $3 AND e.record_id = l.id AND e.content_hash = l.hash)
         ), unset AS MATERIALIZED (
             SELECT u.id, f.hash, u.code, u.message
             FROM cronvec.fill_column({source}, ARRAY(SELECT id FROM firsts), ARRAY(SELECT embedding FROM firsts)) AS u
             JOIN firsts f ON f.id = u.id
         ), done AS MATERIALIZED (
             SELECT f.id FROM firsts f WHERE f.id <> ALL (ARRAY(SELECT id FROM unset))
         ){settled}
         SELECT EXISTS (SELECT FROM job), (SELECT count(*) FROM done), ARRAY(SELECT id FROM unset ORDER BY id),
             ARRAY(SELECT hash FROM unset ORDER BY id), ARRAY(SELECT code FROM unset ORDER BY id),
             ARRAY(SELECT message FROM unset ORDER BY id)"
    );
    let (job_id, token) = target.job_and_token();
    let params: [Param<'_>; 5] = [
        (&job_id, Type::INT8),
        (&token, Type::UUID),
        (&target.project_id, Type::INT4),
        (&ids, Type::TEXT_ARRAY),
        (&hashes, Type::BYTEA_ARRAY),
    ];
    let row = connection.query_one(&statement, &params).await?;
    if !row.get::<_, bool>(0) {
        return Err(StoreError::LeaseLost);
    }
    let (ids, hashes): (Vec<String>, Vec<Vec<u8>>) = (row.get(2), row.get(3));
    let (codes, messages): (Vec<String>, Vec<String>) = (row.get(4), row.get(5));
    let named = ids.into_iter().zip(hashes);
    let unset = named
        .zip(codes.iter().zip(messages))
        .map(|((id, hash), (code, message))| Unset {
            id,
            hash,
            fault: sqlstate::of_code(code),
            message,
        });
    Ok((count(row.get(1))?, unset.collect()))
}

/// Records whose text is still the one that was read, locked. $3 is the project, $4 the records, $5 their hashes, $6 what was
/// said of them.
const THEIRS: &str = "theirs AS MATERIALIZED (
    SELECT i.* FROM job CROSS JOIN unnest($4::text[], $5::bytea[], $6::text[]) AS i (id, hash, message)
    CROSS JOIN LATERAL (
        SELECT FROM cronvec.records r
        WHERE r.project_id = $3 AND r.id = i.id AND r.content_hash = i.hash LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r)";

/// Into quarantine with them, unless the table was detached meanwhile. They stay embedded.
async fn refuse(connection: &Connection, target: &Target, source: i32, unset: &[Unset]) -> Result<u64, StoreError> {
    let Target {
        fence, space_id: space, ..
    } = target;
    let statement = format!(
        "WITH {fence}, {THEIRS}, aside AS (
             INSERT INTO cronvec.quarantined_records AS q
                 (space_id, project_id, record_id, content_hash, reason, message, attempts)
             SELECT {space}, $3, t.id, t.hash, '{COLUMN_REFUSED}', t.message, 1 FROM theirs t
             WHERE EXISTS (SELECT FROM cronvec.sources s WHERE s.id = {source} AND s.embedding_column IS NOT NULL)
             ON CONFLICT ON CONSTRAINT quarantined_records_pkey DO UPDATE SET
                 attempts = CASE WHEN q.reason = excluded.reason AND q.content_hash = excluded.content_hash
                     THEN q.attempts + 1 ELSE 1 END,
                 content_hash = excluded.content_hash, reason = excluded.reason, message = excluded.message,
                 last_attempt_at = now()
         ), settled AS (
             DELETE FROM cronvec.pending
             WHERE space_id = {space} AND project_id = $3 AND record_id = ANY (ARRAY(SELECT id FROM theirs))
         )
         SELECT EXISTS (SELECT FROM job), (SELECT count(*) FROM theirs)"
    );
    about(connection, target, &statement, unset).await
}

/// Others were in the way, and will be gone.
async fn put_off(connection: &Connection, target: &Target, unset: &[Unset]) -> Result<u64, StoreError> {
    let Target {
        fence, space_id: space, ..
    } = target;
    let statement = format!(
        "WITH {fence}, {THEIRS}, later AS (
             UPDATE cronvec.pending SET not_before = clock_timestamp() + interval '{BUSY_DELAY}'
             WHERE space_id = {space} AND project_id = $3 AND record_id = ANY (ARRAY(SELECT id FROM theirs))
         )
         SELECT EXISTS (SELECT FROM job), (SELECT count(*) FROM theirs)"
    );
    about(connection, target, &statement, unset).await
}

/// A statement whose row says first whether the fence held, and then how many records it was about.
async fn about(connection: &Connection, target: &Target, statement: &str, unset: &[Unset]) -> Result<u64, StoreError> {
    let (job_id, token) = target.job_and_token();
    let ids: Vec<&str> = unset.iter().map(|unset| unset.id.as_str()).collect();
    let hashes: Vec<&[u8]> = unset.iter().map(|unset| unset.hash.as_slice()).collect();
    let messages: Vec<String> = unset
        .iter()
        .map(|unset| unset.message.chars().take(MOST_SAID).collect())
        .collect();
    let params: [Param<'_>; 6] = [
        (&job_id, Type::INT8),
        (&token, Type::UUID),
        (&target.project_id, Type::INT4),
        (&ids, Type::TEXT_ARRAY),
        (&hashes, Type::BYTEA_ARRAY),
        (&messages, Type::TEXT_ARRAY),
    ];
    let row = connection.query_one(statement, &params).await?;
    if !row.get::<_, bool>(0) {
        return Err(StoreError::LeaseLost);
    }
    count(row.get(1))
}
