//! What wasn't taken of a file: counted by reason, the first ones told, all of them in a file if one is wanted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use cronvec_nouns::record::{self, RAW_KEPT, Rejection};
use cronvec_reading::Unreadable;
use serde::Serialize;

use crate::output::brief;
use crate::reading::Piece;
use crate::shapes::{IngestResult, Rejected};

/// So many are kept to be told.
const KEPT: usize = 1000;
/// Reasons that are counted apart.
const REASONS: usize = 50;
const OTHERS: &str = "others";

#[derive(Debug, Default)]
pub(crate) struct Rejects {
    file: Option<BufWriter<File>>,
    count: u64,
    by_reason: BTreeMap<String, u64>,
    first: Vec<Rejected>,
    /// Of the first record that wasn't taken with all of its piece.
    fields: Vec<String>,
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    line: u64,
    id: Option<&'a str>,
    reason: &'a str,
    /// As it was handed in; bytes that are not UTF-8 can't be in it.
    raw: Option<&'a str>,
    /// It was longer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

impl Rejects {
    /// Keeps all of them in a new file.
    pub fn in_file(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            file: Some(BufWriter::new(file)),
            ..Self::default()
        })
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// What was read and is no record.
    pub fn unreadable(&mut self, unreadable: &Unreadable) -> Result<()> {
        self.take(unreadable.line, None, &unreadable.reason, Some(&unreadable.raw))
    }

    /// Takes a piece of which nothing would be stored, and gives whether it is such a one. What is too large is left to
    /// whoever stores: it may have another limit.
    pub fn whole(&mut self, piece: &Piece) -> Result<bool> {
        let lines = || piece.lines.iter().zip(piece.records());
        let judged = |(line, record): (&i32, &[u8])| record::parse(*line, record, usize::MAX).err();
        if lines().next().is_none() || lines().any(|record| judged(record).is_none()) {
            return Ok(false);
        }
        if self.fields.is_empty() {
            self.fields.clone_from(&piece.fields);
        }
        for (line, raw) in lines() {
            if let Some(rejection) = judged((line, raw)) {
                self.rejected(&rejection, Some(&raw[..raw.len().min(RAW_KEPT)]))?;
            }
        }
        Ok(true)
    }

    /// What to do about a file of which nothing was taken.
    pub fn mend(&self) -> String {
        match self.fields.as_slice() {
            [] => "no record was taken: say with --format what the file is".to_owned(),
            fields => format!(
                "no record was taken; the first one's fields are: {}. Say which of them is the text with --text FIELD, and \
                 which is the id with --id FIELD",
                brief(&fields.join(", "), 500)
            ),
        }
    }

    /// What a job set aside.
    pub fn rejected(&mut self, rejection: &Rejection, raw: Option<&[u8]>) -> Result<()> {
        let line = u64::try_from(rejection.line).unwrap_or_default();
        self.take(line, rejection.id.as_deref(), &rejection.reason, raw)
    }

    fn take(&mut self, line: u64, id: Option<&str>, reason: &str, raw: Option<&[u8]>) -> Result<()> {
        self.count += 1;
        let kind = kind(reason);
        let is_counted = self.by_reason.contains_key(&kind) || self.by_reason.len() < REASONS;
        let kind = if is_counted { kind } else { OTHERS.to_owned() };
        *self.by_reason.entry(kind).or_default() += 1;
        if self.first.len() < KEPT {
            self.first.push(Rejected {
                line,
                id: id.map(str::to_owned),
                reason: reason.to_owned(),
            });
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let text = raw.map(String::from_utf8_lossy);
        let kept = Line {
            line,
            id,
            reason,
            raw: text.as_deref(),
            cut: raw.is_some_and(|raw| raw.len() >= RAW_KEPT),
        };
        serde_json::to_writer(&mut *file, &kept)
            .map_err(Into::into)
            .and_then(|()| file.write_all(b"\n"))
            .context("cannot write the rejected records")
    }

    /// Everything is in the file.
    pub fn finish(&mut self) -> Result<()> {
        match &mut self.file {
            Some(file) => file.flush().context("cannot write the rejected records"),
            None => Ok(()),
        }
    }

    pub fn add_to(&self, result: &mut IngestResult) {
        result.rejected.clone_from(&self.first);
        result.rejected.sort();
        result.rejected_count = (self.count > 0).then_some(self.count);
        result.rejected_by_reason.clone_from(&self.by_reason);
    }
}

/// A reason without what differs from record to record: numbers, and what a parser has to say behind the colon.
fn kind(reason: &str) -> String {
    let mut kind = String::new();
    for c in reason.split(':').next().unwrap_or_default().chars() {
        match c {
            '0'..='9' if kind.ends_with('N') => {}
            '0'..='9' => kind.push('N'),
            other => kind.push(other),
        }
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_differ_in_numbers_alone_are_counted_as_one() {
        let mut rejects = Rejects::default();
        let reasons = [
            "the text has 2001 bytes, MAX_CONTENT_BYTES allows 2000",
            "the text has 999999 bytes, MAX_CONTENT_BYTES allows 2000",
            "not a JSON record: EOF while parsing at line 1 column 7",
        ];
        for (line, reason) in (1..).zip(reasons) {
            rejects.take(line, None, reason, None).unwrap();
        }
        let counts: Vec<(&str, u64)> = rejects
            .by_reason
            .iter()
            .map(|(kind, count)| (kind.as_str(), *count))
            .collect();
        let expected = [
            ("not a JSON record", 1),
            ("the text has N bytes, MAX_CONTENT_BYTES allows N", 2),
        ];
        assert_eq!(counts, expected);
    }
}
