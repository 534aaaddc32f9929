//! Owns where a row of CSV ends. Refuses to guess what a broken one meant: its first line is set aside, and the next line
//! begins a row.

use std::io::BufRead;
use std::ops::Range;

use super::ReadError;
use super::lines::{self, Came, Lines};

/// Of one row. Each costs some memory beside its text.
const MOST_LINES: usize = 1_000_000;

/// The next row, with the number of its first line.
pub(super) enum Row<'a> {
    /// Without what ends it.
    Whole(u64, &'a [u8]),
    /// One line that is no row, and why.
    Broken(u64, &'a [u8], String),
    End,
}

/// The lines of the row that is read; after a broken one also those that were taken for its rest.
pub(super) struct Window<R> {
    source: Lines<R>,
    delimiter: u8,
    longest: usize,
    bytes: Vec<u8>,
    lines: Vec<Line>,
    /// The line that the next row begins with.
    next: usize,
    /// Its number, less one.
    number: u64,
    /// What the source ended with.
    error: Option<ReadError>,
}

struct Line {
    bytes: Range<usize>,
    /// Why it can't be read.
    fault: Option<String>,
}

/// Where in a row a byte stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// A quote here opens.
    Begin,
    Plain,
    Quoted,
    /// Behind a quote inside of quotes: the end, or half of a doubled one.
    Quote,
}

impl<R: BufRead> Window<R> {
    pub fn over(source: R, delimiter: u8, longest: usize) -> Self {
        Self {
            source: Lines::of(source, longest),
            delimiter,
            longest,
            bytes: Vec::new(),
            lines: Vec::new(),
            next: 0,
            number: 0,
            error: None,
        }
    }

    /// The next row that isn't empty.
    pub fn next_row(&mut self) -> Result<Row<'_>, ReadError> {
        loop {
            if self.next == self.lines.len() {
                lines::clear(&mut self.bytes);
                self.lines.clear();
                self.next = 0;
            }
            let (mut until, mut state) = (self.next, State::Begin);
            let broken = loop {
                if until == self.lines.len() && !self.read_line() {
                    if until > self.next {
                        break Some("a quote is opened that never closes".to_owned());
                    }
                    return self.error.take().map_or(Ok(Row::End), Err);
                }
                let line = &self.lines[until];
                let length = line.bytes.end - self.lines[self.next].bytes.start;
                match &line.fault {
                    Some(fault) if until == self.next => break Some(fault.clone()),
                    None if length <= self.longest + 1 && until - self.next < MOST_LINES => {}
                    _ => break Some(format!("a quote doesn't close within {} bytes", self.longest)),
                }
                let text = lines::trim_end(&self.bytes[line.bytes.clone()]);
                match scan(state, text, self.delimiter) {
                    None => break Some("text follows upon a closing quote".to_owned()),
                    Some(scanned) => state = scanned,
                }
                until += 1;
                if state != State::Quoted {
                    break None;
                }
            };
            let (first, number) = (self.next, self.number + 1);
            self.next = if broken.is_some() { first + 1 } else { until };
            self.number += (self.next - first) as u64;
            let row = self.lines[first].bytes.start..self.lines[self.next - 1].bytes.end;
            if broken.is_none() && lines::trim_end(&self.bytes[row.clone()]).is_empty() {
                continue;
            }
            let row = lines::trim_end(&self.bytes[row]);
            return Ok(match broken {
                Some(reason) => Row::Broken(number, row, reason),
                None => Row::Whole(number, row),
            });
        }
    }

    /// Appends a line of the source; false at its end.
    fn read_line(&mut self) -> bool {
        if self.error.is_some() {
            return false;
        }
        let start = self.bytes.len();
        let fault = match self.source.next(&mut self.bytes) {
            Ok(Came::End) => return false,
            Ok(Came::Line) => None,
            Ok(Came::TooLong) => Some(self.source.too_long()),
            Err(error) => {
                let (reason, error) = lines::breaks_off(self.source.number, error);
                self.error = Some(error);
                Some(reason)
            }
        };
        let bytes = start..self.bytes.len();
        self.lines.push(Line { bytes, fault });
        true
    }
}

/// Where a line ends, begun in this state; none where the quotes make no sense.
fn scan(mut state: State, text: &[u8], delimiter: u8) -> Option<State> {
    for byte in text {
        state = match (state, *byte) {
            (State::Begin, b'"') | (State::Quote, b'"') => State::Quoted,
            (State::Quoted, b'"') => State::Quote,
            (State::Quoted, _) => State::Quoted,
            (_, byte) if byte == delimiter => State::Begin,
            (State::Quote, _) => return None,
            _ => State::Plain,
        };
    }
    Some(state)
}
