//! A batch of lines on its way: in one transaction or, where somebody is in the way, by halves. The job's cursor moves
//! on with each transaction, so that whoever finds the job later goes on behind it.

use std::ops::Range;

use cronvec_nouns::job::Progress;
use cronvec_nouns::record::{self, Record, Rejection};
use cronvec_store::StoreError;
use cronvec_store::ingest::{IngestBatch, IngestCursor, LONGEST_WAIT, Refused};

use crate::job::IngestJob;
use crate::suspects;

/// Waits for others that one batch may cost; then what is left of it is left to later.
const WAITS_PER_BATCH: usize = 2;

/// A line of the job's payload, and where it stands there.
pub(crate) struct Line {
    pub number: i32,
    pub piece: i32,
    pub offset: usize,
    pub text: Vec<u8>,
}

/// Where a batch comes from.
#[derive(Clone, Copy)]
pub(crate) enum From {
    /// The cursor's piece; `ends`: to its end.
    Piece { ends: bool },
    /// The first of those that were left.
    Left,
}

/// What is to be done with a line.
enum Fate {
    Store(Record),
    Reject(Rejection),
    /// Somebody holds its record: it comes again later.
    Leave,
}

impl IngestJob<'_> {
    /// Stores lines and moves the job on. A batch that has to wait for someone, or that the database refuses, is tried by
    /// halves, down to the record that is to blame. Gives how many it is done with.
    pub(crate) async fn store_lines(&mut self, lines: &[Line], from: From) -> Result<u64, StoreError> {
        let mut fates: Vec<Fate> = lines
            .iter()
            .map(
                |line| match record::parse(line.number, &line.text, self.max_content_bytes) {
                    Ok(record) => Fate::Store(record),
                    Err(rejection) => Fate::Reject(rejection),
                },
            )
            .collect();
        let (mut waits, mut done) = (0, 0);
        let whole = 0..lines.len();
        // The last one is the next: they are stored in the lines' order.
        let mut parts = vec![whole];
        while let Some(mut part) = parts.pop() {
            if waits > WAITS_PER_BATCH || (waits > 0 && !self.clock.has_time_to_write()) {
                // Each further wait would cost as much again: all that isn't stored yet comes again later.
                part.end = lines.len();
                parts.clear();
                for fate in &mut fates[part.clone()] {
                    if matches!(fate, Fate::Store(_)) {
                        *fate = Fate::Leave;
                    }
                }
            }
            match self.store_part(lines, &fates, part.clone(), from).await {
                Ok(records) => done += records,
                Err(error) if error.is_lock_timeout() || error.is_value_refused() => {
                    waits += usize::from(error.is_lock_timeout());
                    if !fates[part.clone()].iter().any(|fate| matches!(fate, Fate::Store(_))) {
                        return Err(error);
                    }
                    if part.len() > 1 {
                        let middle = part.start + part.len() / 2;
                        parts.push(middle..part.end);
                        parts.push(part.start..middle);
                        continue;
                    }
                    // The rest goes on without this one.
                    let fate = &mut fates[part.start];
                    *fate = match fate {
                        Fate::Store(record) if error.is_value_refused() => Fate::Reject(Rejection {
                            line: lines[part.start].number,
                            id: Some(record.id.clone()),
                            reason: error.to_string(),
                        }),
                        _ => Fate::Leave,
                    };
                    parts.push(part);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// One transaction.
    async fn store_part(
        &mut self,
        lines: &[Line],
        fates: &[Fate],
        part: Range<usize>,
        from: From,
    ) -> Result<u64, StoreError> {
        let (mut records, mut rejections, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for (line, fate) in lines[part.clone()].iter().zip(&fates[part.clone()]) {
            match fate {
                Fate::Store(record) => records.push((line.number, record)),
                Fate::Reject(rejection) => rejections.push(Refused {
                    rejection,
                    raw: Some(line.text.as_slice()),
                }),
                Fate::Leave => left.push(line.number),
            }
        }
        let batch = IngestBatch {
            records: &records,
            rejections: &rejections,
            embed: self.payload.generate_embeddings,
            priority: self.payload.priority,
        };
        let is_last = part.end == lines.len();
        let mut next = self.cursor.clone();
        step_over(&mut next, part.len(), is_last, from);
        let total = self.payload.total;
        let mut after = next.clone();
        let ingested = self
            .store
            .ingest_batch(
                self.job,
                &batch,
                self.clock.lease(),
                self.clock.patience(LONGEST_WAIT),
                |ingested| {
                    next.saved += ingested.saved;
                    next.skipped += ingested.skipped;
                    next.rejected += rejections.len() as u64;
                    let held = left.iter().chain(&ingested.left);
                    let places =
                        held.filter_map(|number| lines[part.clone()].iter().find(|line| line.number == *number));
                    next.left
                        .extend(places.map(|line| (line.piece, line.offset, line.number)));
                    after = next.clone();
                    let current = next.saved + next.skipped + next.rejected;
                    let progress = Progress {
                        current,
                        total: total.max(current),
                        message: Some("storing".into()),
                    };
                    (next, progress)
                },
            )
            .await?;
        self.cursor = after;
        self.saved += ingested.saved;
        self.skipped += ingested.skipped;
        self.rejected += rejections.len() as u64;
        Ok(ingested.saved + ingested.skipped + rejections.len() as u64)
    }
}

/// The cursor behind so many more lines.
pub(crate) fn step_over(cursor: &mut IngestCursor, lines: usize, is_last: bool, from: From) {
    match from {
        From::Piece { ends: true } if is_last => (cursor.piece, cursor.offset) = (cursor.piece + 1, 0),
        From::Piece { .. } => cursor.offset += lines,
        From::Left => drop(cursor.left.drain(..lines)),
    }
    cursor.suspects = cursor
        .suspects
        .and_then(|suspects| suspects::cleared(suspects, lines, is_last));
}
