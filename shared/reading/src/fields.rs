//! Owns which fields or columns become a record's id, text and metadata. Refuses to judge their values.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Stopped, Taker};

const METADATA: &str = "metadata";
/// Between the texts of several fields.
const BETWEEN: &str = "\n\n";

/// Which fields are a record's parts, where they have other names than `id` and `content`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    pub id: Option<String>,
    /// Several are one text, an empty line between them.
    pub texts: Vec<String>,
    /// Only these become metadata; none: all others do.
    pub metadata: Vec<String>,
}

/// Values as they were written, so that no number changes.
#[derive(Serialize)]
struct Moved<'a> {
    id: &'a RawValue,
    content: &'a RawValue,
    metadata: &'a BTreeMap<&'a str, &'a RawValue>,
}

impl Fields {
    pub(super) fn id(&self) -> &str {
        self.id.as_deref().unwrap_or("id")
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let default = self.texts.is_empty().then_some("content");
        self.texts.iter().map(String::as_str).chain(default)
    }

    /// Whether a field that is neither id nor text becomes metadata.
    pub(super) fn is_metadata(&self, name: &str) -> bool {
        self.metadata.is_empty() || self.metadata.iter().any(|wanted| wanted == name)
    }

    fn is_plain(&self) -> bool {
        self.id() == "id" && self.texts().eq(["content"]) && self.metadata.is_empty()
    }

    /// Hands a record on with its id and text under their own names. What isn't an object goes on as it is, which
    /// ingestion will say.
    pub(super) fn hand_on(&self, line: u64, record: &[u8], taker: &mut impl Taker) -> Result<(), Stopped> {
        taker.saw(record);
        let moved = if self.is_plain() { None } else { self.moved(record) };
        taker.record(line, moved.as_deref().unwrap_or(record))
    }

    fn moved(&self, record: &[u8]) -> Option<Vec<u8>> {
        let values: BTreeMap<String, &RawValue> = serde_json::from_slice(record).ok()?;
        let id = values.get(self.id()).copied().unwrap_or(RawValue::NULL);
        // A number is an id as it is written.
        let is_number = id
            .get()
            .starts_with(|first: char| first == '-' || first.is_ascii_digit());
        let id = if is_number {
            serde_json::value::to_raw_value(id.get()).ok()?
        } else {
            id.to_owned()
        };
        let content = self.content(&values)?;
        let given: Option<BTreeMap<String, &RawValue>> = values
            .get(METADATA)
            .and_then(|given| serde_json::from_str(given.get()).ok());
        let mut metadata: BTreeMap<&str, &RawValue> = BTreeMap::new();
        for (name, value) in &values {
            let is_other = name != self.id() && !self.texts().any(|text| text == name) && self.is_metadata(name);
            match (name.as_str(), &given) {
                _ if !is_other => {}
                (METADATA, Some(given)) => metadata.extend(given.iter().map(|(name, value)| (name.as_str(), *value))),
                (name, _) => drop(metadata.insert(name, value)),
            }
        }
        let moved = Moved {
            id: &id,
            content: &content,
            metadata: &metadata,
        };
        serde_json::to_vec(&moved).ok()
    }

    /// One field's value as it is; several texts as one. Where one of these isn't text that one is it.
    fn content(&self, values: &BTreeMap<String, &RawValue>) -> Option<Box<RawValue>> {
        let mut found = self.texts().filter_map(|name| values.get(name).copied());
        if self.texts().nth(1).is_none() {
            return Some(found.next().unwrap_or(RawValue::NULL).to_owned());
        }
        let mut texts = Vec::new();
        for value in found {
            match serde_json::from_str::<Option<String>>(value.get()) {
                Ok(text) => texts.extend(text),
                Err(_) => return Some(value.to_owned()),
            }
        }
        serde_json::value::to_raw_value(&joined(texts.iter().map(String::as_str))).ok()
    }
}

/// The names of a record's fields; none where it is no object.
pub fn names(record: &[u8]) -> Vec<String> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(record).unwrap_or_default();
    fields.into_keys().collect()
}

pub(super) fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts
        .filter(|text| !text.trim().is_empty())
        .collect::<Vec<_>>()
        .join(BETWEEN)
}
