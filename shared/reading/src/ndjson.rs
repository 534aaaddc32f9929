//! Owns NDJSON: an object a line. Refuses to look into the lines, unless their fields have other names.

use std::io::BufRead;

use super::lines::{self, Came, Lines};
use super::{ReadError, Rules, Taker, Unreadable};

pub(super) fn read(source: impl BufRead, rules: &Rules, taker: &mut impl Taker) -> Result<(), ReadError> {
    let mut source = Lines::of(source, rules.longest_record());
    let mut line = Vec::new();
    loop {
        lines::clear(&mut line);
        let read = source.next(&mut line);
        let number = source.number;
        match read {
            Ok(Came::End) => return Ok(()),
            Ok(Came::Line) => {
                let record = line.trim_ascii();
                if !record.is_empty() {
                    rules.fields.hand_on(number, record, taker)?;
                }
            }
            Ok(Came::TooLong) => taker.unreadable(Unreadable::new(number, source.too_long(), &line))?,
            Err(error) => {
                let (reason, error) = lines::breaks_off(number, error);
                taker.unreadable(Unreadable::new(number, reason, &line))?;
                return Err(error);
            }
        }
    }
}
