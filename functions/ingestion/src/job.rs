//! One INGEST_DATA job: piece by piece, batch by batch, from where its cursor stands.

use std::time::Duration;

use cronvec_invocation::Clock;
use cronvec_nouns::job::{ClaimedJob, End, Progress};
use cronvec_nouns::record::Rejection;
use cronvec_reading::names;
use cronvec_store::ingest::{IngestBatch, IngestCursor, LONGEST_WAIT, Refused};
use cronvec_store::staged::{Piece, Place};
use cronvec_store::{Store, StoreError};
use serde::Deserialize;
use serde_json::json;

use crate::lines::{From, Line, step_over};
use crate::suspects;

/// Rejected records that a job's result shows; `ingest_rejects` has all of them.
const REJECTED_SHOWN: i64 = 1000;
/// Fields of a record that are named.
const FIELDS_TOLD: usize = 20;
/// So many lines that others hold are remembered; with more the job waits.
const LEFT_AT_MOST: usize = 1000;
/// How long it waits for them.
const LEFT_DELAY: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Payload {
    pub total: u64,
    pub generate_embeddings: bool,
    pub priority: i32,
    /// Of a small job; a large one's are staged.
    records: Option<Vec<String>>,
    /// Where these stood; else they count from 1.
    lines: Option<Vec<i32>>,
}

/// What a step came to.
pub(crate) enum Step {
    Went { records: u64 },
    Ended(End),
}

pub(crate) struct IngestJob<'a> {
    pub store: &'a Store,
    pub clock: &'a Clock,
    pub job: &'a ClaimedJob,
    pub payload: Payload,
    pub cursor: IngestCursor,
    piece: Option<Piece>,
    batch_size: usize,
    pub max_content_bytes: usize,
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
        let mut cursor = job
            .cursor
            .clone()
            .map(serde_json::from_value)
            .transpose()
            .map_err(unreadable)?
            .unwrap_or_default();
        let batch_size = batch_size.max(1);
        suspects::reckon(&mut cursor, job.crashes, batch_size);
        Ok(Self {
            store,
            clock,
            job,
            payload,
            cursor,
            piece: None,
            batch_size,
            max_content_bytes,
            saved: 0,
            skipped: 0,
            rejected: 0,
        })
    }

    /// Whether the next step may kill the worker: nothing else runs beside it.
    pub fn is_suspected(&self) -> bool {
        self.cursor.suspects.is_some()
    }

    /// One batch; or the job's end, when there is none left.
    pub async fn step(&mut self) -> Result<Step, StoreError> {
        let Some(suspects) = self.cursor.suspects else {
            return self.next_batch(self.batch_size).await;
        };
        if suspects::is_culprit(suspects) {
            return self.set_culprit_aside().await;
        }
        // Before anything is touched the job remembers what it is about: whoever finds it dead must know.
        let suspects = suspects::trying(suspects);
        self.cursor.suspects = Some(suspects);
        self.store.save_cursor(self.job.lease, &json!(self.cursor)).await?;
        self.next_batch(suspects.trying).await
    }

    async fn next_batch(&mut self, most: usize) -> Result<Step, StoreError> {
        if self.cursor.left.len() >= LEFT_AT_MOST {
            return self.come_back_to_left(most).await;
        }
        let offset = self.cursor.offset;
        let Some(piece) = self.current_piece().await? else {
            if !self.cursor.left.is_empty() {
                return self.come_back_to_left(most).await;
            }
            return Ok(Step::Ended(self.end().await?));
        };
        let number = piece.number;
        let behind = piece.records.iter().enumerate().skip(offset);
        let lines: Vec<Line> = behind
            .take(most)
            .map(|(offset, (line, text))| Line {
                number: *line,
                piece: number,
                offset,
                text: text.clone(),
            })
            .collect();
        let ends = offset + lines.len() >= piece.records.len();
        self.cursor.piece = number;
        let records = self.store_lines(&lines, From::Piece { ends }).await?;
        Ok(Step::Went { records })
    }

    /// Tries the lines again that someone else held; when that is still so, the job waits.
    async fn come_back_to_left(&mut self, most: usize) -> Result<Step, StoreError> {
        let before = self.cursor.left.len();
        let mut lines = Vec::new();
        let mut loaded: Option<Piece> = None;
        for (piece, offset, number) in self.cursor.left.iter().take(most).copied() {
            if loaded.as_ref().is_none_or(|loaded| loaded.number != piece) {
                loaded = self.load_piece(piece).await?;
            }
            let record = loaded.as_ref().and_then(|piece| piece.records.get(offset).cloned());
            let Some((_, text)) = record else {
                return Err(StoreError::Unreadable(format!(
                    "line {number} of job {} is gone",
                    self.job.lease.job_id
                )));
            };
            lines.push(Line {
                number,
                piece,
                offset,
                text,
            });
        }
        let records = self.store_lines(&lines, From::Left).await?;
        if self.cursor.left.len() >= before {
            return Ok(Step::Ended(End::Snoozed { delay: LEFT_DELAY }));
        }
        Ok(Step::Went { records })
    }

    /// Rejects the line that killed worker after worker, unread.
    async fn set_culprit_aside(&mut self) -> Result<Step, StoreError> {
        let place = if self.cursor.left.len() >= LEFT_AT_MOST {
            None
        } else {
            self.place().await?
        };
        let mut next = self.cursor.clone();
        let (line, text) = match place {
            Some(place) => {
                next.piece = place.piece;
                let ends = next.offset + 1 >= place.lines;
                step_over(&mut next, 1, true, From::Piece { ends });
                (place.line, place.text)
            }
            None => {
                let first = next.left.first().copied();
                let Some((_, _, line)) = first else {
                    // Nothing is left of the job but its end.
                    self.cursor.suspects = None;
                    return Ok(Step::Went { records: 0 });
                };
                step_over(&mut next, 1, true, From::Left);
                (line, None)
            }
        };
        tracing::error!(
            job.id = self.job.lease.job_id,
            line,
            "a line kills its workers; it is set aside"
        );
        let rejection = Rejection {
            line,
            id: None,
            reason: "crashed_worker".into(),
        };
        next.suspects = None;
        next.rejected += 1;
        let current = next.saved + next.skipped + next.rejected;
        let progress = Progress {
            current,
            total: self.payload.total.max(current),
            message: Some("storing".into()),
        };
        let batch = IngestBatch {
            records: &[],
            rejections: &[Refused {
                rejection: &rejection,
                raw: text.as_deref(),
            }],
            embed: self.payload.generate_embeddings,
            priority: self.payload.priority,
        };
        let (cursor, lease, patience) = (next.clone(), self.clock.lease(), self.clock.patience(LONGEST_WAIT));
        self.store
            .ingest_batch(self.job, &batch, lease, patience, |_| (cursor, progress))
            .await?;
        self.cursor = next;
        self.rejected += 1;
        Ok(Step::Went { records: 1 })
    }

    async fn current_piece(&mut self) -> Result<Option<&Piece>, StoreError> {
        let wanted = self.cursor.piece;
        if self.piece.as_ref().is_none_or(|piece| piece.number != wanted) {
            self.piece = self.load_piece(wanted).await?;
        }
        Ok(self.piece.as_ref())
    }

    async fn load_piece(&self, number: i32) -> Result<Option<Piece>, StoreError> {
        let Some(records) = &self.payload.records else {
            return self.store.staged_piece(self.job.lease.job_id, number).await;
        };
        let records = self
            .lines(records.len())
            .into_iter()
            .zip(records.iter().map(|record| record.clone().into_bytes()))
            .collect();
        Ok((number == 0).then_some(Piece { number, records }))
    }

    /// Where the cursor stands; none behind the last piece.
    async fn place(&self) -> Result<Option<Place>, StoreError> {
        let (piece, offset) = (self.cursor.piece, self.cursor.offset);
        let Some(records) = &self.payload.records else {
            return self.store.staged_line(self.job.lease.job_id, piece, offset).await;
        };
        Ok(records.get(offset).filter(|_| piece == 0).map(|text| Place {
            piece,
            line: self.lines(records.len())[offset],
            lines: records.len(),
            text: Some(text.clone().into_bytes()),
        }))
    }

    /// The lines of a payload in the job's row.
    fn lines(&self, records: usize) -> Vec<i32> {
        match &self.payload.lines {
            Some(lines) if lines.len() == records => lines.clone(),
            _ => (1..).take(records).collect(),
        }
    }

    /// A payload of which nothing could be stored is no success.
    async fn end(&self) -> Result<End, StoreError> {
        let result = self.result().await?;
        if self.cursor.saved + self.cursor.skipped > 0 || self.cursor.rejected == 0 {
            return Ok(End::Completed { result });
        }
        let first = self.store.raw_rejects(self.job.lease.job_id, 0, 1).await?.pop();
        let error = first.map_or_else(
            || "all records were rejected".to_owned(),
            |(rejection, raw)| none_taken(self.cursor.rejected, &rejection, &raw.unwrap_or_default()),
        );
        Ok(End::Refused { error, result })
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

/// Says what was looked for where, beside what is there.
fn none_taken(rejected: u64, first: &Rejection, raw: &[u8]) -> String {
    let Rejection { line, reason, .. } = first;
    let fields: Vec<String> = names(raw).into_iter().take(FIELDS_TOLD).collect();
    let seen = match fields.as_slice() {
        [] => String::new(),
        fields => format!(", whose fields are: {}", fields.join(", ")),
    };
    format!(
        "all {rejected} records were rejected, the first ({line}) for this: {reason}{seen}. A record has its id in `id` and its \
         text in `content`; `cronvec ingest` takes others with --id FIELD and --text FIELD"
    )
}
