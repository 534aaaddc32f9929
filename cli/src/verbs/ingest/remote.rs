//! `ingest` at a deployment: one job, handed in as several bodies.

use anyhow::{Context as _, Result};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::{nothing_taken, only_read};
use crate::app::IngestOptions;
use crate::exit::Ended;
use crate::output::{Output, count};
use crate::reading::{Piece, Pieces};
use crate::rejects::Rejects;
use crate::remote::{Load, Remote};
use crate::shapes::Enqueued;

/// A piece has no more, unless one record alone does. A function's request has 6 MB at most, of which base64 takes a quarter.
const BODY_BYTES: usize = 4 << 20;
/// Lines without a record that are handed in, so that those behind them keep their numbers.
const LONGEST_GAP: usize = 64 << 10;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Opened {
    job_id: String,
}

#[derive(Deserialize)]
struct Closed {
    /// That the job has.
    records: u64,
}

#[derive(Deserialize)]
struct Taken {
    #[serde(default)]
    rejected: Vec<Rejected>,
}

#[derive(Deserialize)]
struct Rejected {
    line: i32,
    reason: String,
}

/// What is handed in as one body: the records of some pieces, at the lines that they have in the file.
#[derive(Default)]
struct Body {
    bytes: Vec<u8>,
    records: u64,
    /// The file's line before its first one.
    after: i32,
    /// The file's line that it ends with.
    last: i32,
}

impl Body {
    /// With as many empty lines between two records as there are in the file.
    fn push(&mut self, piece: &Piece) {
        for (line, record) in piece.lines.iter().zip(piece.records()) {
            let missing = usize::try_from(line.saturating_sub(self.last + 1)).unwrap_or(0);
            let missing = missing.min(LONGEST_GAP);
            self.bytes.extend(std::iter::repeat_n(b'\n', missing));
            self.bytes.extend_from_slice(record);
            self.bytes.push(b'\n');
            self.last = *line;
            self.records += 1;
        }
    }

    /// The next one, which goes on where this one ends.
    fn next(&self) -> Self {
        Self {
            after: self.last,
            last: self.last,
            ..Self::default()
        }
    }
}

/// A job that takes bodies.
struct Open<'a> {
    remote: &'a Remote,
    output: Output,
    id: String,
    bodies: u32,
    records: u64,
    refused: usize,
}

impl<'a> Open<'a> {
    async fn new(remote: &'a Remote, options: &IngestOptions, output: Output) -> Result<Self> {
        // One that runs again is another one: what it hands in is accepted later, and wins.
        let key = format!("cronvec-{:032x}", rand::random::<u128>());
        let body = json!({
            "project": options.project,
            "priority": options.priority,
            "generateEmbeddings": options.generate_embeddings,
            "idempotencyKey": key,
        });
        let load = Load::Json(&body);
        let Opened { job_id } = remote
            .until_answered(Method::POST, "api/ingest/jobs", &[], &load)
            .await?;
        Ok(Self {
            remote,
            output,
            id: job_id,
            bodies: 0,
            records: 0,
            refused: 0,
        })
    }

    /// The same number again, after a lost answer, is the same body.
    async fn put(&mut self, body: &Body) -> Result<()> {
        let number = self.bodies + 1;
        let path = format!("api/ingest/jobs/{}/bodies/{number}", self.id);
        let load = Load::Ndjson(&body.bytes);
        let taken: Taken = self.remote.until_answered(Method::PUT, &path, &[], &load).await?;
        for Rejected { line, reason } in &taken.rejected {
            self.output
                .note(format!("line {}: {reason}", body.after.saturating_add(*line)));
        }
        self.refused += taken.rejected.len();
        self.bodies = number;
        self.records += body.records;
        Ok(())
    }

    async fn close(self) -> Result<Enqueued> {
        let path = format!("api/ingest/jobs/{}/close", self.id);
        let body = json!({ "bodies": self.bodies });
        let load = Load::Json(&body);
        let closed = self.remote.until_answered(Method::POST, &path, &[], &load);
        let Closed { records } = closed.await.with_context(|| {
            format!(
                "all of it is in job {}, which couldn't be closed: it never runs and is dropped in a day",
                self.id
            )
        })?;
        Ok(Enqueued {
            job_id: self.id,
            records,
        })
    }
}

pub(super) async fn at_deployment(
    remote: &Remote,
    options: &IngestOptions,
    pieces: &mut Pieces,
    mut rejects: Rejects,
    output: Output,
) -> Result<Ended> {
    let mut job = None;
    let handed = hand_in(&mut job, remote, options, pieces, &mut rejects, output).await;
    rejects.finish()?;
    let read = handed.with_context(|| match &job {
        None => "no record is handed in".to_owned(),
        Some(Open { id, records, .. }) => format!(
            "{} records are in job {id}, which isn't closed: it never runs and is dropped in a day; \
             hand the file in again",
            count(*records)
        ),
    })?;
    let Some(job) = job else {
        read?;
        return nothing_taken(&rejects, false, output);
    };
    let (id, refused) = (job.id.clone(), job.refused);
    let ended = only_read(&[job.close().await?], &rejects, false, output)?;
    output.note(format!(
        "what the job rejects is known when it has run: see `cronvec job {id}`"
    ));
    read.map(|()| if refused == 0 { ended } else { Ended::Unhealthy })
}

/// Opens the job with its first body. What can't be read ends the file, and is given for later: what stands before it is
/// handed in.
async fn hand_in<'a>(
    job: &mut Option<Open<'a>>,
    remote: &'a Remote,
    options: &IngestOptions,
    pieces: &mut Pieces,
    rejects: &mut Rejects,
    output: Output,
) -> Result<Result<()>> {
    let mut body = Body::default();
    let mut read = Ok(());
    let put = async |job: &mut Option<Open<'a>>, body: &Body| {
        let open = match job {
            Some(open) => open,
            None => job.insert(Open::new(remote, options, output).await?),
        };
        open.put(body).await
    };
    loop {
        let piece = pieces.recv().await.transpose();
        let is_last = !matches!(piece, Ok(Some(_)));
        match piece {
            Ok(None) => {}
            Ok(Some(piece)) => {
                for unreadable in &piece.unreadable {
                    rejects.unreadable(unreadable)?;
                }
                if rejects.whole(&piece)? {
                    continue;
                }
                if body.records > 0 && body.bytes.len() + piece.body.len() > BODY_BYTES {
                    put(&mut *job, &body).await?;
                    body = body.next();
                }
                body.push(&piece);
            }
            Err(error) => read = Err(error),
        }
        if is_last {
            if body.records > 0 {
                put(&mut *job, &body).await?;
            }
            return Ok(read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(lines: Vec<i32>, body: &[u8]) -> Piece {
        Piece {
            lines,
            body: body.to_vec(),
            ..Piece::default()
        }
    }

    #[test]
    fn records_stand_at_the_lines_that_they_have_in_the_file() {
        let mut body = Body::default();
        body.push(&piece(vec![2, 3], b"a\nb\n"));
        body.push(&piece(vec![6], b"c\n"));
        assert_eq!((body.bytes.as_slice(), body.records), (&b"\na\nb\n\n\nc\n"[..], 3));
        let mut next = body.next();
        next.push(&piece(vec![8], b"d\n"));
        assert_eq!((next.bytes.as_slice(), next.after), (&b"\nd\n"[..], 6));
    }
}
