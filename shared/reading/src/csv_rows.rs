//! Owns CSV: a header line, then a record a row. Refuses to let a broken row take others with it.

use std::collections::BTreeMap;
use std::io::BufRead;

use csv_core::ReadRecordResult;
use serde::Serialize;
use serde_json::value::RawValue;

use super::csv_window::{Row, Window};
use super::fields::joined;
use super::{ReadError, Rules, Taker, Unreadable};

#[derive(Serialize)]
struct Record<'a> {
    id: &'a str,
    content: &'a str,
    metadata: BTreeMap<&'a str, Box<RawValue>>,
}

pub(super) fn read(
    source: impl BufRead,
    delimiter: u8,
    rules: &Rules,
    taker: &mut impl Taker,
) -> Result<(), ReadError> {
    let mut window = Window::over(source, delimiter, rules.longest_row());
    let mut cells = Cells::parted_by(delimiter);
    let mut columns: Option<Columns> = None;
    loop {
        match window.next_row()? {
            Row::End => return Ok(()),
            Row::Whole(line, row) => {
                cells.split(row);
                match &columns {
                    None => columns = Some(Columns::of(&cells, rules, delimiter)?),
                    Some(columns) => match columns.record(&cells) {
                        Ok(json) => taker.record(line, &json)?,
                        Err(reason) => taker.unreadable(Unreadable::new(line, reason, row))?,
                    },
                }
            }
            Row::Broken(line, row, reason) => {
                if columns.is_none() {
                    return Err(ReadError::Columns(format!("the header line can't be read: {reason}")));
                }
                taker.unreadable(Unreadable::new(line, reason, row))?;
            }
        }
    }
}

/// Where in a row the parts of a record stand.
struct Columns {
    names: Vec<String>,
    id: usize,
    texts: Vec<usize>,
    metadata: Vec<usize>,
}

impl Columns {
    fn of(header: &Cells, rules: &Rules, delimiter: u8) -> Result<Self, ReadError> {
        let names = header
            .texts()
            .map(|name| name.map(|name| name.trim().to_owned()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| ReadError::Columns("the header line is not UTF-8".into()))?;
        let column = |name: &str, option: &str| {
            names.iter().position(|column| column == name).ok_or_else(|| {
                let columns = names.join(", ");
                let mend = match other_delimiter(&names, delimiter) {
                    Some(other) => format!("give what parts your columns with --delimiter {other}"),
                    None => format!("name yours with {option}"),
                };
                ReadError::Columns(format!("there is no column '{name}' among: {columns}; {mend}"))
            })
        };
        let fields = &rules.fields;
        let id = column(fields.id(), "--id")?;
        let texts = fields
            .texts()
            .map(|name| column(name, "--text"))
            .collect::<Result<Vec<_>, _>>()?;
        for name in &fields.metadata {
            column(name, "--metadata")?;
        }
        let others = names.iter().enumerate();
        let metadata = others
            .filter(|(at, name)| *at != id && !texts.contains(at) && fields.is_metadata(name))
            .map(|(at, _)| at)
            .collect::<Vec<_>>();
        let twice = |at: &usize| names.iter().filter(|name| **name == names[*at]).count() > 1;
        if let Some(at) = std::iter::once(&id).chain(&texts).chain(&metadata).find(|at| twice(at)) {
            return Err(ReadError::Columns(format!(
                "more than one column is named '{}': give each a name of its own in the header line, or name the columns \
                 that you want with --id, --text and --metadata",
                names[*at]
            )));
        }
        Ok(Self {
            names,
            id,
            texts,
            metadata,
        })
    }

    /// The record as JSON, or what is wrong with the row.
    fn record(&self, cells: &Cells) -> Result<Vec<u8>, String> {
        let texts = cells.texts().collect::<Result<Vec<_>, _>>().map_err(|_| "not UTF-8")?;
        if texts.len() != self.names.len() {
            return Err(format!(
                "{} columns, where the header has {}",
                texts.len(),
                self.names.len()
            ));
        }
        let content = match self.texts.as_slice() {
            [only] => texts[*only].to_owned(),
            several => joined(several.iter().map(|at| texts[*at])),
        };
        let mut metadata = BTreeMap::new();
        for at in &self.metadata {
            let (name, value) = (self.names[*at].as_str(), texts[*at]);
            let given = (name == "metadata").then(|| serde_json::from_str::<BTreeMap<&str, Box<RawValue>>>(value).ok());
            match given.flatten() {
                Some(given) => metadata.extend(given),
                None if name == "metadata" && value.trim().is_empty() => {}
                None => {
                    let value = serde_json::value::to_raw_value(value).map_err(|error| error.to_string())?;
                    metadata.insert(name, value);
                }
            }
        }
        let record = Record {
            id: texts[self.id],
            content: &content,
            metadata,
        };
        serde_json::to_vec(&record).map_err(|error| error.to_string())
    }
}

/// What parts the columns of a header that is all one column, as `--delimiter` wants it.
fn other_delimiter(names: &[String], delimiter: u8) -> Option<&'static str> {
    let [only] = names else { return None };
    let others = [(';', "';'"), ('\t', "tab"), ('|', "'|'"), (',', "','")];
    let found = others
        .iter()
        .find(|(other, _)| !other.eq(&char::from(delimiter)) && only.contains(*other));
    found.map(|(_, told)| *told)
}

/// A row, cut into its columns; quotes are taken off.
struct Cells {
    parser: csv_core::Reader,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    count: usize,
}

impl Cells {
    fn parted_by(delimiter: u8) -> Self {
        let mut parser = csv_core::ReaderBuilder::new();
        parser.delimiter(delimiter).terminator(csv_core::Terminator::Any(b'\n'));
        Self {
            parser: parser.build(),
            bytes: Vec::new(),
            ends: vec![0; 64],
            count: 0,
        }
    }

    fn split(&mut self, row: &[u8]) {
        self.parser.reset();
        if self.bytes.len() < row.len() {
            self.bytes.resize(row.len(), 0);
        }
        let (mut rest, mut written) = (row, 0);
        self.count = 0;
        loop {
            let (result, read, wrote, ended) =
                self.parser
                    .read_record(rest, &mut self.bytes[written..], &mut self.ends[self.count..]);
            rest = &rest[read..];
            written += wrote;
            self.count += ended;
            match result {
                // Nothing more comes: the next call ends the row.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.bytes.resize(self.bytes.len() * 2 + 64, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record | ReadRecordResult::End => return,
            }
        }
    }

    fn texts(&self) -> impl Iterator<Item = Result<&str, std::str::Utf8Error>> {
        let ends = &self.ends[..self.count];
        let starts = std::iter::once(&0).chain(ends);
        starts
            .zip(ends)
            .map(|(start, end)| std::str::from_utf8(&self.bytes[*start..*end]))
    }
}
