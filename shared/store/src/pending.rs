//! Owns the reading of the pending set, slice by slice. Refuses to take anything out of it: that is `vectors`'.

use std::time::{Instant, SystemTime};

use time::OffsetDateTime;
use tokio_postgres::types::Type;

use super::suspicions::Suspicion;
use super::{Store, StoreError};
use cronvec_nouns::job::ClaimedJob;
use cronvec_nouns::record::ContentHash;

/// A place in the line of one lane: reading ahead goes on behind it. A hint inside one invocation, nothing more.
#[derive(Clone, Debug)]
pub struct Place {
    urgency: i64,
    not_before: OffsetDateTime,
    record_id: String,
}

/// A record whose vectors have yet to be brought in line.
#[derive(Clone, Debug)]
pub struct PendingRecord {
    pub id: String,
    /// Times that it failed by its own fault.
    pub attempts: i32,
    /// `None`: it was deleted; what is left of it goes.
    pub text: Option<PendingText>,
}

#[derive(Clone, Debug)]
pub struct PendingText {
    pub content: String,
    pub hash: ContentHash,
    /// Tokens of its chunks, where the provider found the space's own number too many for this text.
    pub cut_tokens: Option<usize>,
    /// Nobody has written it a second time, and nothing has worked on it before.
    pub is_new: bool,
    /// What an earlier request said of it.
    pub suspicion: Option<Suspicion>,
    /// Somebody else held the record when its vectors were to be stored.
    pub was_held: bool,
    /// When it was accepted; of one that was marked later, by a backfill or a replay, when it was marked.
    pub since: Option<Instant>,
}

/// What one reading brought.
#[derive(Debug)]
pub struct PendingSlice {
    pub records: Vec<PendingRecord>,
    /// Where to go on; `None` when nothing due was left behind it.
    pub next: Option<Place>,
}

impl Store {
    /// Reads due records of the job's lane, by priority, then age: at most `limit`, and no more than `max_bytes` of
    /// text unless the first alone has more.
    pub async fn read_slice(
        &self,
        job: &ClaimedJob,
        after: Option<&Place>,
        limit: usize,
        max_bytes: i64,
    ) -> Result<PendingSlice, StoreError> {
        let rows = self
            .query_along_index(
                "SELECT s.record_id, s.urgency, s.not_before, s.attempts, s.content_hash,
                     CASE WHEN s.fits THEN s.content END, s.fits,
                     CASE WHEN s.cut_hash = s.content_hash THEN s.cut_tokens END, s.is_new,
                     CASE WHEN s.suspect_hash = s.content_hash THEN s.suspect_group END, s.suspect_inputs, s.suspect_reason,
                     s.suspect_message, s.was_held, s.since, statement_timestamp()
                 FROM (
                     SELECT *, row_number() OVER line = 1 OR sum(bytes) OVER line <= $9 AS fits
                     FROM (
                         SELECT w.record_id, -w.priority AS urgency, w.not_before, w.attempts, w.cut_tokens, w.cut_hash, r.content_hash, r.content,
                             w.suspect_group, w.suspect_inputs, w.suspect_reason, w.suspect_message, w.suspect_hash,
                             -- Marked by the write that made it, not by a replay or a backfill.
                             r.updated_at = r.created_at AND coalesce(w.operation, r.accepted) = r.accepted AS is_new,
                             -- Asked once, and for each record only where there are any at all.
                             (SELECT EXISTS (SELECT FROM cronvec.held_records)) AND EXISTS (
                                 SELECT FROM cronvec.held_records h
                                 WHERE h.record_id = w.record_id AND h.project_id = $2 AND h.space_id = $1 OFFSET 0) AS was_held,
                             CASE WHEN w.operation > r.accepted THEN w.not_before ELSE r.updated_at END AS since,
                             -- Of a long text it is known without reading it.
                             coalesce(octet_length(r.content), 0) AS bytes
                         FROM (
                             SELECT * FROM cronvec.pending w
                             WHERE w.line = ($1::bigint << 32) + $2 AND ($3 = 1 OR w.bucket % $3 = $4)
                                 AND w.not_before <= statement_timestamp()
                                 AND (-w.priority, w.not_before, w.record_id) > ($5::int, $6, $7)
                             ORDER BY -w.priority, w.not_before, w.record_id
                             LIMIT $8
                         ) AS w
                         LEFT JOIN cronvec.records r ON r.project_id = $2 AND r.id = w.record_id
                     ) AS w
                     WINDOW line AS (ORDER BY urgency, not_before, record_id)
                 ) AS s
                 ORDER BY s.urgency, s.not_before, s.record_id",
                &[
                    (&job.space_id, Type::INT4),
                    (&job.project_id, Type::INT4),
                    (&job.lanes, Type::INT2),
                    (&job.lane, Type::INT2),
                    (&after.map_or(i32::MIN, |place| i32::try_from(place.urgency).unwrap_or(i32::MAX)), Type::INT4),
                    (&after.map_or(OffsetDateTime::UNIX_EPOCH, |place| place.not_before), Type::TIMESTAMPTZ),
                    (&after.map_or("", |place| place.record_id.as_str()), Type::TEXT),
                    (&i64::try_from(limit).unwrap_or(i64::MAX), Type::INT8),
                    (&max_bytes, Type::INT8),
                ],
            )
            .await?;
        let now = Instant::now();
        let mut records = Vec::with_capacity(rows.len());
        let mut next = None;
        for row in rows.iter().take_while(|row| row.get(6)) {
            next = Some(Place {
                urgency: row.get::<_, i32>(1).into(),
                not_before: row.get(2),
                record_id: row.get(0),
            });
            let text = match (row.get::<_, Option<String>>(5), row.get::<_, Option<&[u8]>>(4)) {
                (Some(content), Some(hash)) => Some(PendingText {
                    content,
                    hash: ContentHash(
                        hash.try_into()
                            .map_err(|_| StoreError::Unreadable("a content hash".into()))?,
                    ),
                    cut_tokens: row.get::<_, Option<i32>>(7).and_then(|tokens| tokens.try_into().ok()),
                    is_new: row.get::<_, Option<bool>>(8).unwrap_or(false),
                    suspicion: suspicion(row),
                    was_held: row.get(13),
                    since: accepted_at(row, now),
                }),
                _ => None,
            };
            records.push(PendingRecord {
                id: row.get(0),
                attempts: row.get(3),
                text,
            });
        }
        let was_last = rows.len() < limit && records.len() == rows.len();
        Ok(PendingSlice {
            records,
            next: if was_last { None } else { next },
        })
    }

    /// How many records are due in the job's lane, counted up to a cap.
    pub async fn count_due(&self, job: &ClaimedJob, cap: i64) -> Result<u64, StoreError> {
        let rows = self
            .query_along_index(
                "SELECT count(*) FROM (
                     SELECT FROM cronvec.pending w
                     WHERE w.line = ($1::bigint << 32) + $2 AND ($3 = 1 OR w.bucket % $3 = $4)
                         AND w.not_before <= statement_timestamp()
                     LIMIT $5) AS due",
                &[
                    (&job.space_id, Type::INT4),
                    (&job.project_id, Type::INT4),
                    (&job.lanes, Type::INT2),
                    (&job.lane, Type::INT2),
                    (&cap, Type::INT8),
                ],
            )
            .await?;
        let due = rows.first().map_or(0, |row| row.get::<_, i64>(0));
        u64::try_from(due).map_err(|error| StoreError::Unreadable(error.to_string()))
    }

    /// Whether anything that these spaces could do is due, in one project or in all.
    pub async fn has_due_work(&self, spaces: &[i32], project_id: Option<i32>) -> Result<bool, StoreError> {
        let rows = self
            .query_along_index(
                "SELECT EXISTS (
                     SELECT FROM unnest($1) AS s (id)
                     JOIN LATERAL (
                         SELECT FROM cronvec.pending w
                         WHERE w.line BETWEEN (s.id::bigint << 32) + coalesce($2, 0) AND (s.id::bigint << 32) + coalesce($2, 2147483647)
                             AND w.not_before <= statement_timestamp()
                         LIMIT 1) AS w ON true)",
                &[(&spaces, Type::INT4_ARRAY), (&project_id, Type::INT4)],
            )
            .await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }
}

/// When a record's text was accepted, by our own clock, which says `now`; columns 14 and 15 of a slice's row are the server's.
fn accepted_at(row: &tokio_postgres::Row, now: Instant) -> Option<Instant> {
    let (since, servers_now): (Option<SystemTime>, SystemTime) = (row.get(14), row.get(15));
    now.checked_sub(servers_now.duration_since(since?).unwrap_or_default())
}

/// Columns 9 to 12 of a slice's row.
fn suspicion(row: &tokio_postgres::Row) -> Option<Suspicion> {
    Some(Suspicion {
        group: row.get::<_, Option<i64>>(9)?,
        inputs: row.get::<_, Option<i32>>(10)?,
        reason: row.get::<_, Option<String>>(11)?,
        message: row.get::<_, Option<String>>(12)?,
    })
}
