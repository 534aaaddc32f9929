//! Owns what is known of chunks that are stored, and their discarding. Refuses to store any: that is `vectors`'.

use std::collections::{HashMap, HashSet};

use tokio_postgres::types::Type;

use super::ends::FENCE;
use super::{Store, StoreError};
use cronvec_nouns::job::ClaimedJob;
use cronvec_nouns::record::ContentHash;

/// The chunks of one text of a record that are stored.
#[derive(Debug, Default)]
pub struct StoredSet {
    /// By their place in the text, the hash of each.
    pub chunks: HashMap<i32, ContentHash>,
    /// So many the set had when it was shown; `None` if it isn't the one that the record shows.
    pub shown: Option<i32>,
}

/// A text whose vector needn't be asked for.
#[derive(Debug)]
pub enum Known {
    /// A record shows it.
    Stored,
    /// A record of a table with `--where` had it until a few days ago.
    Left(Vec<f32>),
}

impl StoredSet {
    /// The set is the one that the record shows, and none of it is missing. How it was cut doesn't matter any more.
    pub fn is_shown_whole(&self) -> bool {
        self.shown
            .is_some_and(|chunks| usize::try_from(chunks).is_ok_and(|chunks| chunks == self.chunks.len()))
    }
}

impl Store {
    /// Which of these texts the space has vectors for; with its vector what isn't shown any more, where the space has any
    /// such.
    pub async fn known_texts(
        &self,
        space_id: i32,
        hashes: &[ContentHash],
        has_left: bool,
    ) -> Result<HashMap<ContentHash, Known>, StoreError> {
        let wanted: Vec<&[u8]> = hashes.iter().map(ContentHash::as_bytes).collect();
        let statement = if has_left {
            format!(
                "SELECT i.hash, l.embedding::real[] FROM unnest($1) AS i (hash)
                 LEFT JOIN LATERAL (
                     SELECT true AS is_there FROM cronvec.chunks_{space_id} c WHERE c.chunk_hash = i.hash LIMIT 1) AS c ON true
                 LEFT JOIN LATERAL (
                     SELECT l.embedding FROM cronvec.left_vectors l
                     WHERE c.is_there IS NULL AND l.space_id = {space_id} AND l.chunk_hash = i.hash LIMIT 1) AS l ON true
                 WHERE c.is_there OR l.embedding IS NOT NULL"
            )
        } else {
            format!(
                "SELECT i.hash, NULL::real[] FROM unnest($1) AS i (hash)
                 CROSS JOIN LATERAL (SELECT FROM cronvec.chunks_{space_id} c WHERE c.chunk_hash = i.hash LIMIT 1) AS c"
            )
        };
        let rows = self.query(&statement, &[(&wanted, Type::BYTEA_ARRAY)]).await?;
        let mut known = HashMap::new();
        for row in &rows {
            let text = match row.get::<_, Option<Vec<f32>>>(1) {
                None => Known::Stored,
                Some(vector) => Known::Left(vector),
            };
            known.insert(hash(row.get(0))?, text);
        }
        Ok(known)
    }

    /// Which chunks of these records, cut from these texts, are stored already.
    pub async fn stored_chunks(
        &self,
        job: &ClaimedJob,
        records: &[(&str, ContentHash)],
    ) -> Result<HashMap<String, StoredSet>, StoreError> {
        let ids: Vec<&str> = records.iter().map(|(id, _)| *id).collect();
        let hashes: Vec<&[u8]> = records.iter().map(|(_, hash)| hash.as_bytes()).collect();
        let rows = self
            .query(
                &format!(
                    "SELECT c.record_id, c.ordinal, c.chunk_hash, e.chunks
                     FROM unnest($2::text[], $3::bytea[]) AS i (id, hash)
                     CROSS JOIN LATERAL (
                         SELECT c.record_id, c.ordinal, c.chunk_hash FROM cronvec.chunks_{space} c
                         WHERE c.space_id = {space} AND c.project_id = $1 AND c.record_id = i.id AND c.content_hash = i.hash
                         ORDER BY c.ordinal LIMIT 1000000) AS c
                     LEFT JOIN LATERAL (
                         SELECT e.chunks FROM cronvec.embedded_{space} e
                         WHERE e.space_id = {space} AND e.project_id = $1 AND e.record_id = i.id AND e.content_hash = i.hash
                         LIMIT 1) AS e ON true",
                    space = job.space_id
                ),
                &[
                    (&job.project_id, Type::INT4),
                    (&ids, Type::TEXT_ARRAY),
                    (&hashes, Type::BYTEA_ARRAY),
                ],
            )
            .await?;
        let mut stored: HashMap<String, StoredSet> = HashMap::new();
        for row in &rows {
            let set = stored.entry(row.get(0)).or_default();
            set.chunks.insert(row.get(1), hash(row.get(2))?);
            set.shown = row.get(3);
        }
        Ok(stored)
    }

    /// Those of these records that have some chunks of these texts: whoever began with them cut them its own way.
    pub async fn begun_records(
        &self,
        project_id: i32,
        space_id: i32,
        records: &[(&str, ContentHash)],
    ) -> Result<HashSet<String>, StoreError> {
        let ids: Vec<&str> = records.iter().map(|(id, _)| *id).collect();
        let hashes: Vec<&[u8]> = records.iter().map(|(_, hash)| hash.as_bytes()).collect();
        let rows = self
            .query(
                &format!(
                    "SELECT i.id FROM unnest($2::text[], $3::bytea[]) AS i (id, hash)
                     CROSS JOIN LATERAL (
                         SELECT FROM cronvec.chunks_{space_id} c
                         WHERE c.space_id = {space_id} AND c.project_id = $1 AND c.record_id = i.id
                             AND c.content_hash = i.hash LIMIT 1) AS c"
                ),
                &[
                    (&project_id, Type::INT4),
                    (&ids, Type::TEXT_ARRAY),
                    (&hashes, Type::BYTEA_ARRAY),
                ],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Takes away chunks of unfinished sets that this program would cut otherwise. A set that is shown stays, unless some of
    /// it is missing: nothing but a deletion takes away what a search finds.
    pub async fn discard_chunks(&self, job: &ClaimedJob, records: &[(&str, ContentHash)]) -> Result<(), StoreError> {
        let ids: Vec<&str> = records.iter().map(|(id, _)| *id).collect();
        let hashes: Vec<&[u8]> = records.iter().map(|(_, hash)| hash.as_bytes()).collect();
        self.execute(
            &format!(
                "WITH {FENCE} DELETE FROM cronvec.chunks_{space} c
                 USING job, unnest($4::text[], $5::bytea[]) AS i (id, hash)
                 WHERE c.space_id = {space} AND c.project_id = $3 AND c.record_id = ANY ($4) AND c.record_id = i.id
                     AND c.content_hash = i.hash
                     AND NOT EXISTS (
                         SELECT FROM cronvec.embedded_{space} e
                         WHERE e.space_id = {space} AND e.project_id = $3 AND e.record_id = i.id AND e.content_hash = i.hash
                             AND e.chunks = (
                                 SELECT count(*) FROM cronvec.chunks_{space} t
                                 WHERE t.space_id = {space} AND t.project_id = $3 AND t.record_id = i.id AND t.content_hash = i.hash))",
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
}

fn hash(bytes: &[u8]) -> Result<ContentHash, StoreError> {
    bytes
        .try_into()
        .map(ContentHash)
        .map_err(|_| StoreError::Unreadable("a hash".into()))
}
