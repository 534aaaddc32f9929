//! How far a long piece of work is: one line that is written over on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::output::{Output, count};

/// Without a terminal there is a line so often.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// A moment in the work, as `--json` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Moment {
    pub done: u64,
    pub total: u64,
    pub percent: f64,
    pub per_second: f64,
    pub seconds_left: Option<u64>,
}

impl Moment {
    /// `begun` is what was done before `elapsed` started; the rate doesn't count it.
    fn at(begun: u64, done: u64, total: u64, elapsed: Duration) -> Self {
        let per_second = as_float(done.saturating_sub(begun)) / elapsed.as_secs_f64().max(0.001);
        let left = as_float(total.saturating_sub(done));
        let seconds_left = (per_second > 0.0)
            .then(|| Duration::try_from_secs_f64(left / per_second))
            .and_then(|left| Some(left.ok()?.as_secs()));
        let percent = if total == 0 {
            100.0
        } else {
            100.0 * as_float(done) / as_float(total)
        };
        Self {
            done,
            total,
            percent,
            per_second,
            seconds_left,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    output: Output,
    started: Instant,
    begun: Option<u64>,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    /// `what` is being counted, as in "embedded".
    pub fn new(what: &'static str, output: Output) -> Self {
        let terminal = io::stderr().is_terminal() && !output.json;
        Self {
            what,
            output,
            started: Instant::now(),
            begun: None,
            shown: None,
            terminal,
        }
    }

    /// Shows where things stand, unless it has just been shown.
    pub fn update(&mut self, done: u64, total: u64) {
        let begun = *self.begun.get_or_insert(done);
        let due = self
            .shown
            .is_none_or(|shown| self.terminal || shown.elapsed() >= PLAIN_EVERY);
        if !due {
            return;
        }
        self.shown = Some(Instant::now());
        let moment = Moment::at(begun, done, total, self.started.elapsed());
        if self.terminal {
            eprint!("\r\x1b[2K{}", line(self.what, &moment));
            // Progress that can't be shown is no reason to stop.
            let _ = io::stderr().flush();
        } else if !self.output.json {
            eprintln!("{}", line(self.what, &moment));
        }
    }

    /// Leaves the line, so that what follows has its own.
    pub fn end(&mut self) {
        if self.terminal && self.shown.take().is_some() {
            eprint!("\r\x1b[2K");
        }
    }
}

fn line(what: &str, moment: &Moment) -> String {
    const WIDTH: usize = 24;
    let filled = (0..WIDTH)
        .filter(|at| as_float(*at as u64) * 100.0 < moment.percent * as_float(WIDTH as u64))
        .count();
    let bar = format!("{}{}", "#".repeat(filled), ".".repeat(WIDTH - filled));
    let left = moment
        .seconds_left
        .map_or_else(String::new, |left| format!(", {} left", clock(left)));
    format!(
        "[{bar}] {} of {} {what} ({:.0} %), {:.0}/s{left}",
        count(moment.done),
        count(moment.total),
        moment.percent,
        moment.per_second
    )
}

fn clock(seconds: u64) -> String {
    match seconds {
        0..3600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

/// Counts of records stay far below 2^53.
fn as_float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_does_not_make_the_rate() {
        let moment = Moment::at(7_000, 8_000, 10_000, Duration::from_secs(10));
        assert_eq!(
            (moment.per_second, moment.seconds_left, moment.percent),
            (100.0, Some(20), 80.0)
        );
    }

    #[test]
    fn nothing_done_promises_no_end() {
        assert_eq!(Moment::at(5, 5, 10, Duration::from_secs(3)).seconds_left, None);
    }

    #[test]
    fn an_empty_piece_of_work_is_complete() {
        assert_eq!(Moment::at(0, 0, 0, Duration::ZERO).percent, 100.0);
    }

    #[test]
    fn the_line_has_bar_counts_rate_and_what_is_left() {
        let moment = Moment::at(0, 500, 1_000, Duration::from_secs(5));
        assert_eq!(
            line("embedded", &moment),
            "[############............] 500 of 1,000 embedded (50 %), 100/s, 0:05 left"
        );
    }
}
