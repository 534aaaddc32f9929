//! An object a line.

use std::io::{BufRead, Read};

use anyhow::{Result, ensure};

use super::json::move_fields;
use super::{Fields, Sink};

/// No line may make us hold more than this. The largest text that is taken is far smaller.
const MAX_LINE: u64 = 64 * 1024 * 1024;

pub(super) fn read(mut source: impl BufRead, fields: &Fields, sink: &mut Sink) -> Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let length = source.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        ensure!(
            length as u64 <= MAX_LINE,
            "line {number} is longer than {} MB",
            MAX_LINE / 1024 / 1024
        );
        let record = line.trim_ascii();
        if record.is_empty() {
            continue;
        }
        match move_fields(record, fields) {
            Some(moved) => sink.push(number, &moved)?,
            None => sink.push(number, record)?,
        }
    }
    Ok(())
}
