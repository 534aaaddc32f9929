//! Owns JSON: an array of objects, or objects one after the other, however they are spread over lines. Refuses to look
//! into them: it finds where each ends.

use std::io::{self, BufRead};

use super::lines;
use super::{ReadError, Rules, Taker, Unreadable};

pub(super) fn read(source: impl BufRead, rules: &Rules, taker: &mut impl Taker) -> Result<(), ReadError> {
    let mut values = Values {
        source,
        longest: rules.longest_record(),
        number: 0,
        value: Vec::new(),
    };
    let is_array = values.skip(b"")? == Some(b'[');
    if is_array {
        values.source.consume(1);
    }
    loop {
        match values.skip(b",")? {
            None if is_array => return Err(ReadError::Json("its array doesn't end".into())),
            None => return Ok(()),
            Some(b']') if is_array => break,
            Some(first) => values.take(first, rules, taker)?,
        }
    }
    values.source.consume(1);
    match values.skip(b"")? {
        None => Ok(()),
        Some(_) => Err(ReadError::Json("something stands behind its array".into())),
    }
}

struct Values<R> {
    source: R,
    longest: usize,
    /// Of the value that was begun last; the first is 1.
    number: u64,
    value: Vec<u8>,
}

/// Where in a value a byte stands.
#[derive(Default)]
struct Scan {
    depth: usize,
    is_string: bool,
    is_escaped: bool,
    /// A string has a line break in it, which JSON forbids.
    is_broken: bool,
}

impl<R: BufRead> Values<R> {
    /// The next byte that is neither white space nor one of these.
    fn skip(&mut self, also: &[u8]) -> Result<Option<u8>, ReadError> {
        loop {
            let seen = self.source.fill_buf();
            let seen = seen.map_err(|error| lines::breaks_off(self.number + 1, error).1)?;
            if seen.is_empty() {
                return Ok(None);
            }
            let found = seen
                .iter()
                .position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') && !also.contains(byte));
            let (first, skipped) = (found.map(|at| seen[at]), found.unwrap_or(seen.len()));
            self.source.consume(skipped);
            if first.is_some() {
                return Ok(first);
            }
        }
    }

    /// Reads one value to its end and hands it on.
    fn take(&mut self, first: u8, rules: &Rules, taker: &mut impl Taker) -> Result<(), ReadError> {
        self.number += 1;
        lines::clear(&mut self.value);
        let is_bare = !matches!(first, b'{' | b'[' | b'"');
        let (mut scan, mut has_ended, mut is_too_long) = (Scan::default(), false, false);
        while !has_ended {
            let seen = match self.source.fill_buf() {
                Ok(seen) => seen,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let (reason, error) = lines::breaks_off(self.number, error);
                    taker.unreadable(Unreadable::new(self.number, reason, &self.value))?;
                    return Err(error);
                }
            };
            if seen.is_empty() {
                if is_bare {
                    break;
                }
                let cut = Unreadable::new(self.number, "the file ends inside of this record", &self.value);
                taker.unreadable(cut)?;
                return Err(ReadError::Json(format!("it ends inside of record {}", self.number)));
            }
            let mut used = 0;
            for byte in seen {
                if is_bare && used + self.value.len() > 0 && matches!(byte, b' ' | b'\t'..=b'\r' | b',' | b']' | b'}') {
                    has_ended = true;
                    break;
                }
                used += 1;
                if !is_bare && scan.ends_value(*byte) {
                    has_ended = true;
                    break;
                }
            }
            // Outside of strings a line break is a space, and inside there is none.
            let room = self.longest.saturating_sub(self.value.len());
            is_too_long |= used > room;
            let kept = seen[..used.min(room)].iter();
            self.value
                .extend(kept.map(|byte| if *byte == b'\n' || *byte == b'\r' { b' ' } else { *byte }));
            self.source.consume(used);
        }
        if is_too_long {
            let reason = format!("longer than {} bytes", self.longest);
            taker.unreadable(Unreadable::new(self.number, reason, &self.value))?;
        } else if scan.is_broken {
            let reason = "not a JSON record: a line break inside of a text";
            taker.unreadable(Unreadable::new(self.number, reason, &self.value))?;
        } else {
            rules.fields.hand_on(self.number, &self.value, taker)?;
        }
        Ok(())
    }
}

impl Scan {
    /// Whether an object, array or string ends with this byte.
    fn ends_value(&mut self, byte: u8) -> bool {
        if self.is_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => {
                    self.is_string = false;
                    return self.depth == 0;
                }
                b'\n' | b'\r' => self.is_broken = true,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.is_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        matches!(byte, b'}' | b']') && self.depth == 0
    }
}
