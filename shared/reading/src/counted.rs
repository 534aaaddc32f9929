//! Owns how many lines a source has, as it is read. Refuses to look at anything else in them.

use std::io::{self, Read};

pub(super) struct Counted<R> {
    source: R,
    line_feeds: u64,
    is_amid_a_line: bool,
}

impl<R: Read> Counted<R> {
    pub fn of(source: R) -> Self {
        Self {
            source,
            line_feeds: 0,
            is_amid_a_line: false,
        }
    }

    /// The last one may have no end.
    pub fn lines(&self) -> u64 {
        self.line_feeds + u64::from(self.is_amid_a_line)
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        let came = &buffer[..length];
        self.line_feeds += came.iter().filter(|byte| **byte == b'\n').count() as u64;
        if let Some(last) = came.last() {
            self.is_amid_a_line = *last != b'\n';
        }
        Ok(length)
    }
}
