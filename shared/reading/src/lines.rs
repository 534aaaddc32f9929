//! Owns physical lines, none of which is held beyond a bound. Refuses to know what they say.

use std::io::{self, BufRead, Read};

use super::ReadError;

/// A buffer that once grew beyond this is given back.
const KEPT: usize = 4 * 1024 * 1024;

pub(super) struct Lines<R> {
    source: R,
    longest: usize,
    /// Of the line that was read last.
    pub number: u64,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// A line with its line feed, if it has one.
    Line,
    /// The beginning of one that is too long; the rest is skipped.
    TooLong,
    End,
}

impl<R: BufRead> Lines<R> {
    pub fn of(source: R, longest: usize) -> Self {
        Self {
            source,
            longest,
            number: 0,
        }
    }

    /// Appends the next line. After an error what came before it stands there.
    pub fn next(&mut self, into: &mut Vec<u8>) -> io::Result<Came> {
        self.number += 1;
        let most = self.longest as u64 + 1;
        let length = self.source.by_ref().take(most).read_until(b'\n', into)?;
        if length == 0 {
            self.number -= 1;
            return Ok(Came::End);
        }
        if length <= self.longest || into.ends_with(b"\n") {
            return Ok(Came::Line);
        }
        loop {
            let seen = self.source.fill_buf()?;
            let found = seen.iter().position(|byte| *byte == b'\n');
            let (length, is_end) = (seen.len(), seen.is_empty() || found.is_some());
            self.source.consume(found.map_or(length, |at| at + 1));
            if is_end {
                return Ok(Came::TooLong);
            }
        }
    }

    pub fn too_long(&self) -> String {
        format!("longer than {} bytes", self.longest)
    }
}

pub(super) fn clear(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEPT {
        buffer.shrink_to(KEPT);
    }
}

/// Without what ends it.
pub(super) fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// What is said of the line at which a source can't be read any more.
pub(super) fn breaks_off(line: u64, source: io::Error) -> (String, ReadError) {
    (
        format!("the file breaks off here: {source}"),
        ReadError::BreaksOff { line, cause: source },
    )
}
