//! Pieces of NDJSON, bounded in records and bytes.

use anyhow::Result;
use cronvec_reading::{self as reading, Stopped, Taker, Unreadable};
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
    /// What stood among them and is no record.
    pub unreadable: Vec<Unreadable>,
    /// The fields that the first record has in the file.
    pub fields: Vec<String>,
}

impl Piece {
    /// One JSON text each.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        self.body.split(|byte| *byte == b'\n').take(self.lines.len())
    }
}

/// Collects records into pieces and sends them on, waiting while the other side is busy.
pub(super) struct Pile {
    piece: Piece,
    unreadable_bytes: usize,
    sender: mpsc::Sender<Result<Piece>>,
}

impl Pile {
    pub fn new(sender: mpsc::Sender<Result<Piece>>) -> Self {
        Self {
            piece: Piece::default(),
            unreadable_bytes: 0,
            sender,
        }
    }

    /// Makes room for so many bytes.
    fn make_room(&mut self, bytes: usize) -> Result<(), Stopped> {
        let records = self.piece.lines.len().max(self.piece.unreadable.len());
        if records >= MAX_RECORDS || self.piece.body.len() + self.unreadable_bytes + bytes >= MAX_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Sends what there is.
    pub fn flush(&mut self) -> Result<(), Stopped> {
        if self.piece == Piece::default() {
            return Ok(());
        }
        self.unreadable_bytes = 0;
        let piece = std::mem::take(&mut self.piece);
        let sent = self.sender.blocking_send(Ok(piece));
        sent.map_err(|_| Stopped("nobody takes the records any more".to_owned()))
    }
}

impl Taker for Pile {
    fn saw(&mut self, record: &[u8]) {
        if self.piece.lines.is_empty() {
            self.piece.fields = reading::names(record);
        }
    }

    fn record(&mut self, line: u64, record: &[u8]) -> Result<(), Stopped> {
        let line = i32::try_from(line).map_err(|_| Stopped("more lines than a job can count".to_owned()))?;
        self.make_room(record.len())?;
        self.piece.lines.push(line);
        self.piece.body.extend_from_slice(record);
        self.piece.body.push(b'\n');
        Ok(())
    }

    fn unreadable(&mut self, unreadable: Unreadable) -> Result<(), Stopped> {
        self.make_room(unreadable.raw.len())?;
        self.unreadable_bytes += unreadable.raw.len();
        self.piece.unreadable.push(unreadable);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_bounded_in_records_and_bytes() {
        let (sender, mut pieces) = mpsc::channel(10);
        let mut pile = Pile::new(sender);
        for line in 1..=1_500 {
            pile.record(line, b"{}").unwrap();
        }
        pile.record(1_501, &vec![b' '; MAX_BYTES + 1]).unwrap();
        pile.record(1_503, b"{}").unwrap();
        pile.flush().unwrap();
        drop(pile);
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
