//! Pieces of NDJSON, bounded in records and bytes.

use anyhow::{Context, Result};
use tokio::sync::mpsc;

/// A piece has at most so many records…
const MAX_RECORDS: usize = 1_000;
/// …and bytes, unless a single record is larger.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Some records of a file, as NDJSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Where each record stood: its line, or its place in an array.
    pub lines: Vec<i32>,
    /// As many lines, each ended by `\n`.
    pub body: Vec<u8>,
}

impl Piece {
    /// One JSON text each.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        self.body.split(|byte| *byte == b'\n').take(self.lines.len())
    }
}

/// Collects records into pieces and sends them on, waiting while the other side is busy.
pub(super) struct Sink {
    piece: Piece,
    sender: mpsc::Sender<Result<Piece>>,
}

impl Sink {
    pub fn new(sender: mpsc::Sender<Result<Piece>>) -> Self {
        Self {
            piece: Piece::default(),
            sender,
        }
    }

    /// Takes one record, which has no line break in it.
    pub fn push(&mut self, line: u64, record: &[u8]) -> Result<()> {
        let line = i32::try_from(line).context("more lines than a job can count")?;
        let full = self.piece.lines.len() >= MAX_RECORDS || self.piece.body.len() + record.len() >= MAX_BYTES;
        if full {
            self.flush()?;
        }
        self.piece.lines.push(line);
        self.piece.body.extend_from_slice(record);
        self.piece.body.push(b'\n');
        Ok(())
    }

    /// Sends what there is.
    pub fn flush(&mut self) -> Result<()> {
        if self.piece.lines.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.sender
            .blocking_send(Ok(piece))
            .ok()
            .context("nobody takes the records any more")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_bounded_in_records_and_bytes() {
        let (sender, mut pieces) = mpsc::channel(10);
        let mut sink = Sink::new(sender);
        for line in 1..=1_500 {
            sink.push(line, b"{}").unwrap();
        }
        sink.push(1_501, &vec![b' '; MAX_BYTES + 1]).unwrap();
        sink.push(1_503, b"{}").unwrap();
        sink.flush().unwrap();
        drop(sink);
        let mut seen = Vec::new();
        while let Some(piece) = pieces.blocking_recv() {
            seen.push(piece.unwrap());
        }
        assert_eq!(
            seen.iter().map(|piece| piece.lines.len()).collect::<Vec<_>>(),
            [1_000, 500, 1, 1]
        );
        assert_eq!(seen[1].lines.first(), Some(&1_001));
        assert_eq!(seen[1].records().collect::<Vec<_>>(), vec![b"{}"; 500]);
    }
}
