//! `ingest` at a deployment: a body a piece.

use std::cell::Cell;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::only_read;
use crate::app::IngestOptions;
use crate::drain;
use crate::exit::Ended;
use crate::output::{Output, count};
use crate::reading::{Piece, Pieces};
use crate::rejects::Rejects;
use crate::remote::{Load, Remote};

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    /// None where the deployment stores and embeds before it answers.
    job_id: Option<String>,
    records: u64,
    rejected: Vec<Rejected>,
}

#[derive(Deserialize)]
struct Rejected {
    line: i32,
    reason: String,
}

pub(super) async fn at_deployment(
    remote: &Remote,
    options: &IngestOptions,
    pieces: &mut Pieces,
    mut rejects: Rejects,
    output: Output,
) -> Result<Ended> {
    // One that runs again is another one: what it hands in is accepted later, and wins.
    let run: u128 = rand::random();
    let (stored, refused) = (Cell::new(0), Cell::new(0));
    let hand = async |piece: &Piece| {
        let answer = hand_in(remote, options, piece, run).await?;
        let first = piece.lines.first().copied().unwrap_or(1);
        for rejected in &answer.rejected {
            output.note(format!(
                "line {}: {}",
                first.saturating_add(rejected.line - 1),
                rejected.reason
            ));
        }
        refused.set(refused.get() + answer.rejected.len());
        match answer.job_id {
            Some(id) => Ok(Some(id.parse().context("the id of a job")?)),
            None => {
                stored.set(stored.get() + answer.records);
                Ok(None)
            }
        }
    };
    let (handed, read) = drain::enqueue(hand, pieces, &mut rejects).await;
    rejects.finish()?;
    let and_all_taken = |ended| if refused.get() == 0 { ended } else { Ended::Unhealthy };
    if handed.is_empty() {
        // Nothing is in the queue: the error is all there is to tell.
        read?;
        output.note(match stored.get() {
            0 => "there are no records in it".to_owned(),
            stored => format!("the deployment has no queue; it has taken {} records", count(stored)),
        });
        return only_read(&handed, &rejects, false, output).map(and_all_taken);
    }
    let ended = only_read(&handed, &rejects, false, output)?;
    output.note("what the jobs reject is known when they have run: see `cronvec job ID`");
    if handed.len() > 1 {
        output.note("each counts lines from the first of its own records");
    }
    read.map(|()| and_all_taken(ended))
}

async fn hand_in(remote: &Remote, options: &IngestOptions, piece: &Piece, run: u128) -> Result<Answer> {
    let first = piece.lines.first().copied().unwrap_or(1);
    // The same body, asked again after a lost answer, is the same job.
    let key = format!("cronvec-{run:032x}-{first}");
    let priority = options.priority.to_string();
    let mut query = vec![
        ("project", options.project.as_str()),
        ("priority", &priority),
        ("idempotencyKey", &key),
    ];
    if !options.generate_embeddings {
        query.push(("generateEmbeddings", "false"));
    }
    let load = Load::Ndjson(&body(piece));
    remote.post_until_answered("api/ingest", &query, &load).await
}

/// A record a line, with as many empty lines between two as there are in the file: its lines are the file's, from the
/// first one on.
fn body(piece: &Piece) -> Vec<u8> {
    let mut body = Vec::with_capacity(piece.body.len() + piece.lines.len());
    let mut at = piece.lines.first().copied().unwrap_or(1);
    for (line, record) in piece.lines.iter().zip(piece.records()) {
        let missing = usize::try_from(line.saturating_sub(at)).unwrap_or(0);
        body.extend(std::iter::repeat_n(b'\n', missing));
        body.extend_from_slice(record);
        body.push(b'\n');
        at = line.saturating_add(1);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_keep_the_distance_that_their_lines_have() {
        let piece = Piece {
            lines: vec![7, 8, 11],
            body: b"a\nb\nc\n".to_vec(),
            unreadable: Vec::new(),
        };
        assert_eq!(body(&piece), b"a\nb\n\n\nc\n");
    }
}
