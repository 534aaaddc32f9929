//! Owns the fenced write of a slice: chunks with their vectors, and the records that they complete. Refuses to embed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::types::Type;

use super::ends::SHARED_FENCE;
use super::vector_array::VectorArray;
use super::write_statement::{ColumnPart, write_statement};
use super::{Connection, Param, Store, StoreError, count};
use cronvec_nouns::job::{ClaimedJob, Lease, Progress};
use cronvec_nouns::record::ContentHash;

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
    /// The space has most likely nothing of its record yet.
    pub is_new: bool,
    /// Its text is cut smaller than the space says: a longer one was refused.
    pub is_cut_smaller: bool,
    /// When its record's text was accepted, or marked, as far as is known.
    pub since: Option<Instant>,
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
    /// What was taken to be new wasn't.
    pub met: bool,
    /// Complete records whose row in the attached table refuses the vector: they stand in quarantine, and are found.
    pub refused: u64,
    /// When the texts of the records that are complete now were accepted, as far as is known.
    pub since: Vec<Instant>,
}

/// What the holder of a lease says from time to time: how far it is, and for how long it wants to go on.
#[derive(Debug, Clone)]
pub struct Holding<'a> {
    pub job: &'a ClaimedJob,
    pub lease: Duration,
    pub progress: Progress,
    /// The attached table, by its source, whose own column gets the vectors, too.
    pub column: Option<i32>,
    /// New chunks are taken to meet nothing.
    pub trusts_new: bool,
}

impl Store {
    /// The fenced write, one round trip unless a row of an attached table refuses: locks the job by its live lease, then the records whose text is still the one
    /// that was read, stores the chunks, shows the records that are complete, takes these out of `pending`.
    ///
    /// Two writes of one job may go beside each other if no record is part of both, or neither would see it complete.
    pub async fn write_chunks(
        &self,
        connection: &Connection,
        holding: &Holding<'_>,
        chunks: &[NewChunk],
    ) -> Result<Written, StoreError> {
        let job = holding.job;
        let target = Target {
            fence: SHARED_FENCE,
            lease: Some(job.lease),
            project_id: job.project_id,
            space_id: job.space_id,
            column: holding.column,
            meets_none: holding.trusts_new && chunks.iter().all(|chunk| chunk.is_new),
        };
        let (written, records) = self.write(connection, &target, Some(holding), chunks).await?;
        if written.passed_over > 0 {
            let ids: Vec<&str> = records.iter().map(|chunk| chunk.record_id.as_str()).collect();
            let hashes: Vec<&[u8]> = records.iter().map(|chunk| chunk.record_hash.as_bytes()).collect();
            self.note_held(connection, holding, &ids, &hashes).await?;
        }
        Ok(written)
    }

    /// The same without a job, for who embeds what they have just written: its only fence is the content's hash.
    pub async fn write_chunks_now(
        &self,
        connection: &Connection,
        project_id: i32,
        space_id: i32,
        column: Option<i32>,
        chunks: &[NewChunk],
    ) -> Result<Written, StoreError> {
        let target = Target {
            fence: NO_FENCE,
            lease: None,
            project_id,
            space_id,
            column,
            meets_none: false,
        };
        Ok(self.write(connection, &target, None, chunks).await?.0)
    }

    /// Gives also a chunk of each record. Where a row of the attached table may have refused its vector, the records are
    /// stored without the column, and the column is written afterwards.
    async fn write<'c>(
        &self,
        connection: &Connection,
        target: &Target,
        holding: Option<&Holding<'_>>,
        chunks: &'c [NewChunk],
    ) -> Result<(Written, Vec<&'c NewChunk>), StoreError> {
        let mut seen = HashSet::new();
        let records: Vec<&NewChunk> = chunks
            .iter()
            // Once for each text: of one that changed meanwhile both may come.
            .filter(|chunk| seen.insert((chunk.record_id.as_str(), chunk.record_hash)))
            .collect();
        let column = target.column.map_or(ColumnPart::Nothing, ColumnPart::Set);
        let mut written = match write_once(connection, target, column, &records, chunks).await {
            Err(error) if target.column.is_some() && error.may_be_the_rows() => {
                let target = Target {
                    meets_none: false,
                    ..*target
                };
                write_once(connection, &target, ColumnPart::Later, &records, chunks).await?
            }
            written => return Ok((written?, records)),
        };
        if written.complete > 0 {
            let filled = self.fill_column(connection, target, holding, &records).await?;
            written.passed_over += written.complete.saturating_sub(filled.settled());
            if filled.settled() < written.complete {
                // Some come again, and are counted then; nobody knows here which.
                written.since.clear();
            }
            written.complete = filled.settled();
            written.refused = filled.refused;
        }
        Ok((written, records))
    }
}

/// No job stands behind the write.
const NO_FENCE: &str = "job AS MATERIALIZED (SELECT 1 AS one)";

/// Where a write goes, and what it is fenced by.
pub(super) struct Target {
    pub fence: &'static str,
    pub lease: Option<Lease>,
    pub project_id: i32,
    pub space_id: i32,
    /// The attached table, by its source, whose own column gets the vectors, too.
    pub column: Option<i32>,
    /// Nothing of these records is there, as far as is known. Where that is wrong the server refuses the write, and it is
    /// done in the other way.
    meets_none: bool,
}

impl Target {
    /// Of the job that a fence looks for.
    pub fn job_and_token(&self) -> (Option<i64>, Option<uuid::Uuid>) {
        (
            self.lease.map(|lease| lease.job_id),
            self.lease.map(|lease| lease.token),
        )
    }
}

/// `records` are the chunks' own, each once.
async fn write_once(
    connection: &Connection,
    target: &Target,
    column: ColumnPart,
    records: &[&NewChunk],
    chunks: &[NewChunk],
) -> Result<Written, StoreError> {
    let (job_id, token) = target.job_and_token();
    let record_ids: Vec<&str> = records.iter().map(|chunk| chunk.record_id.as_str()).collect();
    let record_hashes: Vec<&[u8]> = records.iter().map(|chunk| chunk.record_hash.as_bytes()).collect();
    let totals: Vec<i32> = records.iter().map(|chunk| chunk.of).collect();
    let owners: Vec<&str> = chunks.iter().map(|chunk| chunk.record_id.as_str()).collect();
    let owner_hashes: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.record_hash.as_bytes()).collect();
    let ordinals: Vec<i32> = chunks.iter().map(|chunk| chunk.ordinal).collect();
    let contents: Vec<&str> = chunks.iter().map(|chunk| chunk.content.as_str()).collect();
    let hashes: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.hash.as_bytes()).collect();
    let vectors = VectorArray(
        chunks
            .iter()
            .map(|chunk| chunk.vector.as_ref().map(|vector| vector.as_slice()))
            .collect(),
    );
    let params: Vec<Param<'_>> = vec![
        (&job_id, Type::INT8),
        (&token, Type::UUID),
        (&target.project_id, Type::INT4),
        (&record_ids, Type::TEXT_ARRAY),
        (&record_hashes, Type::BYTEA_ARRAY),
        (&totals, Type::INT4_ARRAY),
        (&owners, Type::TEXT_ARRAY),
        (&ordinals, Type::INT4_ARRAY),
        (&contents, Type::TEXT_ARRAY),
        (&hashes, Type::BYTEA_ARRAY),
        (&vectors, connection.vector_types.array.clone()),
        (&owner_hashes, Type::BYTEA_ARRAY),
    ];
    let ask = async |meets_none| {
        let statement = write_statement(target.fence, target.space_id, column, meets_none);
        connection.query(&statement, &params).await
    };
    let mut met = false;
    let rows = match ask(target.meets_none).await {
        Err(error) if target.meets_none && error.is_duplicate() => {
            met = true;
            ask(false).await?
        }
        rows => rows?,
    };
    let row = rows.first().ok_or(StoreError::LeaseLost)?;
    if !row.get::<_, bool>(0) {
        return Err(StoreError::LeaseLost);
    }
    let locked = count(row.get(3))?;
    let passed_over = (record_ids.len() as u64).saturating_sub(locked);
    let complete = row.get::<_, Option<Vec<&str>>>(2).unwrap_or_default();
    // Mostly all of them are.
    let some: Option<HashSet<&str>> = (complete.len() < records.len()).then(|| complete.iter().copied().collect());
    let is_complete = |record: &&&NewChunk| some.as_ref().is_none_or(|ids| ids.contains(record.record_id.as_str()));
    Ok(Written {
        stored: count(row.get(1))?,
        complete: complete.len() as u64,
        passed_over,
        met,
        refused: 0,
        since: records
            .iter()
            .filter(is_complete)
            .filter_map(|record| record.since)
            .collect(),
    })
}
