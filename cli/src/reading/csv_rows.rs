//! A header line, then a record a row: id, text, an optional JSON column `metadata`, other columns as metadata.

use std::io::BufRead;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Fields, Sink};
use crate::exit::usage;

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    content: &'a str,
    metadata: Map<String, Value>,
}

pub(super) fn read(mut source: impl BufRead, fields: &Fields, sink: &mut Sink) -> Result<()> {
    // A row begins for the reader behind the carriage return of the one before it, on the line that the feed ends.
    let behind = u64::from(has_carriage_returns(source.fill_buf()?));
    let mut rows = csv::Reader::from_reader(source);
    let header = rows.headers().context("the header line can't be read")?.clone();
    let column = |name: &str, option: &str| {
        header.iter().position(|column| column.trim() == name).ok_or_else(|| {
            let columns = header.iter().collect::<Vec<_>>().join(", ");
            usage(format!(
                "there is no column '{name}' among: {columns}; name yours with {option}"
            ))
        })
    };
    let id = column(fields.id(), "--id")?;
    let text = column(fields.text(), "--text")?;
    let mut row = csv::StringRecord::new();
    while rows.read_record(&mut row)? {
        let line = row.position().map_or(0, csv::Position::line) + behind;
        let mut metadata = Map::new();
        for (at, (name, value)) in header.iter().zip(&row).enumerate() {
            if at == id || at == text {
                continue;
            }
            match (name, serde_json::from_str(value)) {
                ("metadata", _) if value.trim().is_empty() => {}
                ("metadata", Ok(Value::Object(given))) => metadata.extend(given),
                _ => drop(metadata.insert(name.to_owned(), value.into())),
            }
        }
        let record = Row {
            id: &row[id],
            content: &row[text],
            metadata,
        };
        sink.push(line, &serde_json::to_vec(&record)?)?;
    }
    Ok(())
}

fn has_carriage_returns(beginning: &[u8]) -> bool {
    let feed = beginning.iter().position(|byte| *byte == b'\n');
    feed.is_some_and(|feed| feed > 0 && beginning[feed - 1] == b'\r')
}
