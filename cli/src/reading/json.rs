//! An array of objects, or objects one after the other; however they are spread over lines.

use std::fmt;
use std::io::{BufRead, Write};

use anyhow::{Context, Result};
use serde::Deserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Fields, Sink};

pub(super) fn read(mut source: impl BufRead, fields: &Fields, sink: &mut Sink) -> Result<()> {
    if first_byte(&mut source)? == Some(b'[') {
        let mut json = serde_json::Deserializer::from_reader(source);
        json.deserialize_seq(Elements { fields, sink })
            .and_then(|()| json.end())
            .context("the JSON is broken")
    } else {
        let objects = serde_json::Deserializer::from_reader(source).into_iter::<Box<RawValue>>();
        for (number, object) in (1..).zip(objects) {
            take(number, &object.context("the JSON is broken")?, fields, sink)?;
        }
        Ok(())
    }
}

/// Hands an array's elements on one by one, so that it is never in memory as a whole.
struct Elements<'a> {
    fields: &'a Fields,
    sink: &'a mut Sink,
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(element) = elements.next_element::<Box<RawValue>>()? {
            number += 1;
            take(number, &element, self.fields, self.sink).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

fn take(number: u64, record: &RawValue, fields: &Fields, sink: &mut Sink) -> Result<()> {
    let text = record.get().as_bytes();
    if let Some(moved) = move_fields(text, fields) {
        return sink.push(number, &moved);
    }
    // Outside of strings a line break is a space, and inside there is none.
    let line: Vec<u8> = text
        .iter()
        .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte })
        .collect();
    sink.push(number, &line)
}

/// The record with its id and text under their own names; everything else is metadata.
/// None: nothing is to be moved, or it isn't an object, which ingestion will say.
pub(super) fn move_fields(record: &[u8], fields: &Fields) -> Option<Vec<u8>> {
    if fields.is_plain() {
        return None;
    }
    let mut rest: Map<String, Value> = serde_json::from_slice(record).ok()?;
    let mut moved = Vec::new();
    let id = rest
        .remove(fields.id())
        .map(|id| if id.is_number() { json!(id.to_string()) } else { id });
    let text = rest.remove(fields.text());
    let metadata = match rest.remove("metadata") {
        Some(Value::Object(given)) => given.into_iter().chain(rest).collect(),
        Some(other) => rest.into_iter().chain([("metadata".to_owned(), other)]).collect(),
        None => rest,
    };
    write!(
        moved,
        r#"{{"id":{},"content":{},"metadata":{}}}"#,
        id.unwrap_or_default(),
        text.unwrap_or_default(),
        Value::Object(metadata)
    )
    .ok()?;
    Some(moved)
}

fn first_byte(source: &mut impl BufRead) -> Result<Option<u8>> {
    loop {
        let first = source.fill_buf()?.first().copied();
        match first {
            Some(b' ' | b'\t' | b'\r' | b'\n') => source.consume(1),
            other => return Ok(other),
        }
    }
}
