//! What goes where: with `--json` objects and nothing else on standard output; messages on standard error.

use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::Context;
use crate::exit::usage;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub json: bool,
}

impl Output {
    /// The result: as an object with `--json`, else as `human` puts it.
    pub fn show(&self, value: &impl Serialize, human: impl FnOnce() -> String) -> Result<()> {
        if self.json {
            self.write(&serde_json::to_string(value).context("cannot write JSON")?)
        } else {
            self.write(human().trim_end())
        }
    }

    /// A list: a line for each with `--json`, else a table.
    pub fn list<T: Serialize>(&self, values: &[T], table: impl FnOnce(&[T]) -> Table) -> Result<()> {
        if self.json {
            values.iter().try_for_each(|value| self.show(value, String::new))
        } else {
            self.write(table(values).render().trim_end())
        }
    }

    /// A line for a person; nothing with `--json`.
    pub fn say(&self, text: impl Display) -> Result<()> {
        if self.json {
            Ok(())
        } else {
            self.write(&text.to_string())
        }
    }

    /// A message beside the result.
    pub fn note(&self, text: impl Display) {
        eprintln!("{text}");
    }

    fn write(&self, text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")
            .and_then(|()| out.flush())
            .context("cannot write to standard output")
    }
}

impl Context {
    /// Asks before something that can't be taken back or that costs.
    pub fn confirm(&self, question: &str) -> Result<bool> {
        if self.yes {
            return Ok(true);
        }
        if !io::stdin().is_terminal() {
            return Err(usage(format!(
                "{question} Nobody is there to ask: repeat it with --yes."
            )));
        }
        eprint!("{question} [y/N] ");
        io::stderr().flush().context("cannot ask")?;
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .context("cannot read the answer")?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }
}

/// Which way a column is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Aligned columns for a person to read.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
    empty: &'static str,
}

impl Table {
    /// `empty` is what stands there when no row does.
    pub fn new(columns: &[(&'static str, Align)], empty: &'static str) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
            empty,
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn render(&self) -> String {
        if self.rows.is_empty() {
            return self.empty.to_owned();
        }
        let head: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let lines = || std::iter::once(&head).chain(&self.rows);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| {
                lines()
                    .filter_map(|cells| cells.get(at))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for cells in lines() {
            let mut line = String::new();
            for ((cell, width), (_, align)) in cells.iter().zip(&widths).zip(&self.columns) {
                let room = " ".repeat(width.saturating_sub(cell.chars().count()));
                match align {
                    Align::Left => line.extend([cell.as_str(), &room, "  "]),
                    Align::Right => line.extend([&room, cell.as_str(), "  "]),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A number as people write it: `32,322`.
pub(crate) fn count(number: impl TryInto<u64>) -> String {
    let digits = number
        .try_into()
        .map_or_else(|_| "?".to_owned(), |number: u64| number.to_string());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// At most so many characters, on one line.
pub(crate) fn brief(text: &str, limit: usize) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() <= limit {
        return flat;
    }
    let cut: String = flat.chars().take(limit.saturating_sub(1)).collect();
    format!("{}…", cut.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_no_line_ends_in_spaces() {
        let mut table = Table::new(&[("project", Align::Left), ("total", Align::Right)], "none");
        table.row(["näh".to_owned(), "9".to_owned()]);
        table.row(["kitchen".to_owned(), "12,000".to_owned()]);
        assert_eq!(table.render(), "project   total\nnäh           9\nkitchen  12,000\n");
    }

    #[test]
    fn numbers_are_grouped_by_three() {
        assert_eq!(
            [count(0u64), count(999u64), count(1_000u64), count(1_234_567u64)],
            ["0", "999", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn a_long_text_is_cut_and_flattened() {
        assert_eq!(brief("one\n two  three", 9), "one two…");
        assert_eq!(brief("short", 9), "short");
    }
}
