//! Owns the reading of records from NDJSON, JSON and CSV, gzipped or not, as a stream: each becomes one line of JSON with
//! its line number. Refuses to judge records: what can be read as a line is passed on, and ingestion rejects it.

mod counted;
mod csv_rows;
mod csv_window;
mod fields;
mod json;
mod lines;
mod ndjson;

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

pub use fields::{Fields, names};

use counted::Counted;
use cronvec_nouns::record::RAW_KEPT;

const BUFFER: usize = 64 * 1024;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An object a line.
    Ndjson,
    /// An array of objects, or objects one after the other.
    Json,
    /// A header line, then a record a row, its columns parted by this byte.
    Csv { delimiter: u8 },
}

/// How it is read.
#[derive(Clone, Debug)]
pub struct Rules {
    /// None: by its first character, with commas.
    pub format: Option<Format>,
    pub fields: Fields,
    pub max_content_bytes: usize,
}

/// Of a record besides its text: its id and metadata.
const BESIDES: usize = 1024 * 1024;

impl Rules {
    /// No record in JSON may make us hold more: a byte of text has six at most.
    fn longest_record(&self) -> usize {
        self.max_content_bytes.saturating_mul(6).saturating_add(BESIDES)
    }

    /// No row may: a quote is doubled, and there are other columns.
    fn longest_row(&self) -> usize {
        self.max_content_bytes.saturating_mul(4).saturating_add(BESIDES)
    }
}

/// A line that no record can be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub line: u64,
    pub reason: String,
    /// What stands there, or its beginning.
    pub raw: Vec<u8>,
}

impl Unreadable {
    fn new(line: u64, reason: impl Into<String>, raw: &[u8]) -> Self {
        Self {
            line,
            reason: reason.into(),
            raw: raw[..raw.len().min(RAW_KEPT)].to_vec(),
        }
    }
}

/// Who takes what is read.
pub trait Taker {
    /// A record as one line of JSON, and where it stood: its line, or its place in an array.
    fn record(&mut self, line: u64, json: &[u8]) -> Result<(), Stopped>;
    /// The same before its fields are moved: for who tells people which there are.
    fn saw(&mut self, _record: &[u8]) {}
    fn unreadable(&mut self, unreadable: Unreadable) -> Result<(), Stopped>;
}

/// The taker takes no more, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Stopped(pub String);

/// Why reading ended before the end. What came before was taken.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It doesn't fit what was asked for.
    #[error("{0}")]
    Columns(String),
    #[error("it breaks off at line {line}: {cause}")]
    BreaksOff { line: u64, cause: io::Error },
    #[error("the JSON is broken: {0}")]
    Json(String),
    #[error("it is in UTF-16; save it as UTF-8")]
    Utf16,
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Reads all of a source and hands it on. Gives how many lines it has.
pub fn read(source: impl Read, rules: &Rules, taker: &mut impl Taker) -> Result<u64, ReadError> {
    let (head, source) = peek(source, 2).map_err(at_the_beginning)?;
    let source = BufReader::with_capacity(BUFFER, source);
    if head == [0x1f, 0x8b] {
        read_counting(MultiGzDecoder::new(source), rules, taker)
    } else {
        read_counting(source, rules, taker)
    }
}

fn read_counting(source: impl Read, rules: &Rules, taker: &mut impl Taker) -> Result<u64, ReadError> {
    let mut source = Counted::of(source);
    read_text(&mut source, rules, taker)?;
    Ok(source.lines())
}

fn read_text(source: impl Read, rules: &Rules, taker: &mut impl Taker) -> Result<(), ReadError> {
    let (head, source) = peek(source, 3).map_err(at_the_beginning)?;
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return Err(ReadError::Utf16);
    }
    let mut source = BufReader::with_capacity(BUFFER, source);
    // A byte order mark, as some spreadsheets write it.
    if head == b"\xef\xbb\xbf" {
        source.read_exact(&mut [0; 3]).map_err(at_the_beginning)?;
    }
    let format = match rules.format {
        Some(format) => format,
        None => by_looks(&mut source)?,
    };
    match format {
        Format::Ndjson => ndjson::read(source, rules, taker),
        Format::Json => json::read(source, rules, taker),
        Format::Csv { delimiter } => csv_rows::read(source, delimiter, rules, taker),
    }
}

/// The first bytes, and the source with these before the rest.
fn peek<R: Read>(mut source: R, bytes: u64) -> io::Result<(Vec<u8>, impl Read)> {
    let mut head = Vec::new();
    source.by_ref().take(bytes).read_to_end(&mut head)?;
    Ok((head.clone(), Cursor::new(head).chain(source)))
}

fn at_the_beginning(source: io::Error) -> ReadError {
    ReadError::BreaksOff { line: 1, cause: source }
}

fn by_looks(source: &mut impl BufRead) -> Result<Format, ReadError> {
    // White space at the beginning stays: it counts as lines.
    let seen = source.fill_buf().map_err(at_the_beginning)?;
    Ok(match seen.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => Format::Json,
        Some(b'{') | None => Format::Ndjson,
        Some(_) => Format::Csv { delimiter: b',' },
    })
}

#[cfg(test)]
mod tests;
