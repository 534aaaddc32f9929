//! One INGEST_DATA job: piece by piece, batch by batch, from where its cursor stands.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use shared::job::{ClaimedJob, End, Progress};
use shared::pipeline::Clock;
use shared::record::{self, Record, Rejection};
use shared::store::ingest::{IngestBatch, IngestCursor, Ingested};
use shared::store::staged::Piece;
use shared::store::{Store, StoreError};

/// Rejected records that a job's result shows; `ingest_rejects` has all of them.
const REJECTED_SHOWN: i64 = 1000;
/// So many lines that others hold are remembered; with more the job waits.
const LEFT_AT_MOST: usize = 1000;
/// Waits for others that one batch may cost; then what is left of it is left to later.
const WAITS_PER_BATCH: usize = 2;
/// How long it waits for them.
const LEFT_DELAY: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    total: u64,
    generate_embeddings: bool,
    priority: i32,
    /// Of a small job; a large one's are staged.
    records: Option<Vec<String>>,
}

/// What a step came to.
pub(crate) enum Step {
    Went { records: u64 },
    Ended(End),
}

pub(crate) struct IngestJob<'a> {
    store: &'a Store,
    clock: &'a Clock,
    job: &'a ClaimedJob,
    payload: Payload,
    cursor: IngestCursor,
    piece: Option<Piece>,
    batch_size: usize,
    max_content_bytes: usize,
    pub saved: u64,
    pub skipped: u64,
    pub rejected: u64,
}

impl<'a> IngestJob<'a> {
    pub fn open(
        store: &'a Store,
        clock: &'a Clock,
        job: &'a ClaimedJob,
        batch_size: usize,
        max_content_bytes: usize,
    ) -> Result<Self, StoreError> {
        let unreadable = |error| StoreError::Unreadable(format!("job {}: {error}", job.lease.job_id));
        let payload = job.payload.clone().unwrap_or_default();
        let payload = serde_json::from_value(payload).map_err(unreadable)?;
        let cursor = job
            .cursor
            .clone()
            .map(serde_json::from_value)
            .transpose()
            .map_err(unreadable)?
            .unwrap_or_default();
        Ok(Self {
            store,
            clock,
            job,
            payload,
            cursor,
            piece: None,
            batch_size: batch_size.max(1),
            max_content_bytes,
            saved: 0,
            skipped: 0,
            rejected: 0,
        })
    }

    /// One batch; or the job's end, when there is none left.
    pub async fn step(&mut self) -> Result<Step, StoreError> {
        if self.cursor.left.len() >= LEFT_AT_MOST {
            return self.come_back_to_left().await;
        }
        let Some(piece) = self.current_piece().await? else {
            if !self.cursor.left.is_empty() {
                return self.come_back_to_left().await;
            }
            return Ok(Step::Ended(End::Completed {
                result: self.result().await?,
            }));
        };
        let (piece, length) = (piece.number, piece.records.len());
        let offset = self.cursor.offset;
        let until = (offset + self.batch_size).min(length);
        let lines = self
            .piece
            .as_ref()
            .map_or(Vec::new(), |piece| piece.records[offset..until].to_vec());
        let mut next = self.cursor.clone();
        (next.piece, next.offset) = if until == length {
            (piece + 1, 0)
        } else {
            (piece, until)
        };
        let places: Vec<(i32, usize)> = (offset..until).map(|offset| (piece, offset)).collect();
        let records = self.store_lines(&lines, &places, next).await?;
        Ok(Step::Went { records })
    }

    /// Tries the lines again that someone else held; when that is still so, the job waits.
    async fn come_back_to_left(&mut self) -> Result<Step, StoreError> {
        let left: Vec<(i32, usize, i32)> = self.cursor.left.iter().take(self.batch_size).copied().collect();
        let (mut lines, mut places) = (Vec::new(), Vec::new());
        let mut loaded: Option<Piece> = None;
        for (piece, offset, line) in &left {
            if loaded.as_ref().is_none_or(|loaded| loaded.number != *piece) {
                loaded = self.load_piece(*piece).await?;
            }
            let record = loaded.as_ref().and_then(|piece| piece.records.get(*offset).cloned());
            let Some((_, text)) = record else {
                return Err(StoreError::Unreadable(format!(
                    "line {line} of job {} is gone",
                    self.job.lease.job_id
                )));
            };
            lines.push((*line, text));
            places.push((*piece, *offset));
        }
        let mut next = self.cursor.clone();
        next.left.drain(..left.len());
        let before = self.cursor.left.len();
        let records = self.store_lines(&lines, &places, next).await?;
        if self.cursor.left.len() >= before {
            return Ok(Step::Ended(End::Snoozed { delay: LEFT_DELAY }));
        }
        Ok(Step::Went { records })
    }

    /// Stores lines and moves the job on to `next`. A batch that has to wait for someone, or that the database refuses,
    /// is tried by halves, down to the record that is to blame.
    async fn store_lines(
        &mut self,
        lines: &[(i32, Vec<u8>)],
        places: &[(i32, usize)],
        next: IngestCursor,
    ) -> Result<u64, StoreError> {
        let (mut records, mut rejections): (Vec<(i32, Record)>, Vec<Rejection>) = (Vec::new(), Vec::new());
        for (line, text) in lines {
            match record::parse(*line, text, self.max_content_bytes) {
                Ok(record) => records.push((*line, record)),
                Err(rejection) => rejections.push(rejection),
            }
        }
        let place_of = |line: i32| {
            lines
                .iter()
                .zip(places)
                .find(|((other, _), _)| *other == line)
                .map(|(_, (piece, offset))| (*piece, *offset, line))
        };
        let mut parts: Vec<&[(i32, Record)]> = vec![&records];
        let mut stored = Ingested::default();
        let mut rejected = 0;
        let mut waits = 0;
        while let Some(mut part) = parts.pop() {
            if !part.is_empty() && (waits > WAITS_PER_BATCH || (waits > 0 && !self.clock.has_time_to_write())) {
                // Each further wait would cost as much again: all that isn't stored yet comes again later.
                for part in parts.drain(..).chain([part]) {
                    stored.left.extend(part.iter().map(|(line, _)| *line));
                }
                part = &[];
            }
            let is_last = parts.is_empty();
            let mut so_far = if is_last { next.clone() } else { self.cursor.clone() };
            let total = self.payload.total;
            let batch = IngestBatch {
                records: part,
                rejections: &rejections,
                embed: self.payload.generate_embeddings,
                priority: self.payload.priority,
            };
            let (left_before, counts) = (stored.left.clone(), (&stored, self.cursor.clone()));
            let outcome = self
                .store
                .ingest_batch(self.job, &batch, self.clock.lease(), |ingested| {
                    let (stored, before) = counts;
                    so_far.saved = before.saved + ingested.saved;
                    so_far.skipped = before.skipped + ingested.skipped;
                    so_far.rejected = before.rejected + batch.rejections.len() as u64;
                    debug_assert!(stored.left.len() <= left_before.len());
                    if is_last {
                        let held = left_before.iter().chain(&ingested.left);
                        so_far.left.extend(held.filter_map(|line| place_of(*line)));
                    }
                    let current = so_far.saved + so_far.skipped + so_far.rejected;
                    let progress = Progress {
                        current,
                        total: total.max(current),
                        message: Some("storing".into()),
                    };
                    (so_far.clone(), progress)
                })
                .await;
            match outcome {
                Ok(ingested) => {
                    self.saved += ingested.saved;
                    self.skipped += ingested.skipped;
                    rejected += rejections.len() as u64;
                    self.rejected += rejections.len() as u64;
                    rejections.clear();
                    stored.saved += ingested.saved;
                    stored.skipped += ingested.skipped;
                    stored.left.extend(&ingested.left);
                    self.cursor = so_far;
                }
                Err(error) if error.is_lock_timeout() || error.is_value_refused() => {
                    waits += usize::from(error.is_lock_timeout());
                    match part {
                        [] => return Err(error),
                        [(line, record)] => {
                            // The rest of the batch goes on without this one.
                            if error.is_lock_timeout() {
                                stored.left.push(*line);
                            } else {
                                rejections.push(Rejection {
                                    line: *line,
                                    id: Some(record.id.clone()),
                                    reason: error.to_string(),
                                });
                            }
                            if is_last {
                                parts.push(&[]);
                            }
                        }
                        many => {
                            let (first, second) = many.split_at(many.len() / 2);
                            parts.push(second);
                            parts.push(first);
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(stored.saved + stored.skipped + rejected)
    }

    async fn current_piece(&mut self) -> Result<Option<&Piece>, StoreError> {
        let wanted = self.cursor.piece;
        if self.piece.as_ref().is_none_or(|piece| piece.number != wanted) {
            self.piece = self.load_piece(wanted).await?;
        }
        if let Some(piece) = &self.piece {
            self.cursor.piece = piece.number;
        }
        Ok(self.piece.as_ref())
    }

    async fn load_piece(&self, number: i32) -> Result<Option<Piece>, StoreError> {
        match &self.payload.records {
            Some(records) if number == 0 => Ok(Some(Piece {
                number: 0,
                records: (1..)
                    .zip(records.iter().map(|record| record.clone().into_bytes()))
                    .collect(),
            })),
            Some(_) => Ok(None),
            None => self.store.staged_piece(self.job.lease.job_id, number).await,
        }
    }

    async fn result(&self) -> Result<serde_json::Value, StoreError> {
        let rejected = self.store.rejects(self.job.lease.job_id, 0, REJECTED_SHOWN).await?;
        Ok(json!({
            "savedCount": self.cursor.saved,
            "skippedCount": self.cursor.skipped,
            "rejectedCount": self.cursor.rejected,
            "rejected": rejected,
        }))
    }
}
