//! A body while it comes: bytes in at one end, pieces of records out at the other, and little held between.

use std::io::{self, Read};

use axum::body::Bytes;
use cronvec_nouns::record::Rejection;
use cronvec_reading::{Stopped, Taker, Unreadable};
use cronvec_store::bodies::{Body, Part};
use cronvec_store::staged::{PIECE_BYTES, PIECE_RECORDS};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

/// Rejected lines that an answer names.
const REJECTED_SHOWN: usize = 1000;

/// The bytes of a body, read by a thread that may wait for them.
pub(super) struct Arriving {
    from: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
    hash: Sha256,
}

impl Arriving {
    pub fn of(from: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self {
            from,
            rest: Bytes::new(),
            hash: Sha256::new(),
        }
    }

    /// Of all of it, also of what stands behind the last record.
    pub fn hash(mut self) -> Result<Vec<u8>, Stopped> {
        io::copy(&mut self, &mut io::sink()).map_err(|error| Stopped(error.to_string()))?;
        Ok(self.hash.finalize().to_vec())
    }
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.from.blocking_recv() {
                None => return Ok(0),
                Some(bytes) => self.rest = bytes?,
            }
            self.hash.update(&self.rest);
        }
        let length = buffer.len().min(self.rest.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}

/// Records on their way into staging.
pub(super) struct Pieces {
    into: mpsc::Sender<Part>,
    lines: Vec<i32>,
    records: Vec<Vec<u8>>,
    bytes: usize,
    count: i32,
    pub rejected: Vec<Rejection>,
    pub rejected_count: u64,
}

impl Pieces {
    pub fn into(into: mpsc::Sender<Part>) -> Self {
        Self {
            into,
            lines: Vec::new(),
            records: Vec::new(),
            bytes: 0,
            count: 0,
            rejected: Vec::new(),
            rejected_count: 0,
        }
    }

    /// All of it was read.
    pub fn end(&mut self, hash: Vec<u8>, lines: u64) -> Result<Body, Stopped> {
        self.hand_on()?;
        let whole = Body {
            hash,
            lines: line(lines)?,
            records: self.count,
        };
        self.send(Part::End(whole.clone()))?;
        Ok(whole)
    }

    fn hand_on(&mut self) -> Result<(), Stopped> {
        if self.records.is_empty() {
            return Ok(());
        }
        let piece = Part::Piece {
            lines: std::mem::take(&mut self.lines),
            records: std::mem::take(&mut self.records),
        };
        self.bytes = 0;
        self.send(piece)
    }

    fn send(&self, part: Part) -> Result<(), Stopped> {
        let sent = self.into.blocking_send(part);
        sent.map_err(|_| Stopped("it is no longer taken".to_owned()))
    }
}

impl Taker for Pieces {
    fn record(&mut self, number: u64, json: &[u8]) -> Result<(), Stopped> {
        if self.records.len() == PIECE_RECORDS || self.bytes + json.len() + 1 > PIECE_BYTES {
            self.hand_on()?;
        }
        self.bytes += json.len() + 1;
        self.count += 1;
        self.lines.push(line(number)?);
        self.records.push(json.to_vec());
        Ok(())
    }

    fn unreadable(&mut self, unreadable: Unreadable) -> Result<(), Stopped> {
        self.rejected_count += 1;
        if self.rejected.len() < REJECTED_SHOWN {
            self.rejected.push(Rejection {
                line: line(unreadable.line)?,
                id: None,
                reason: unreadable.reason,
            });
        }
        Ok(())
    }
}

fn line(number: u64) -> Result<i32, Stopped> {
    i32::try_from(number).map_err(|_| Stopped("it has too many lines".to_owned()))
}
