//! How far a long piece of work is: a bar on a terminal, a line now and then elsewhere, nothing with `--json`.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use crate::output::Output;

/// Without a terminal there is a line so often.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Of lines without a terminal: when the last one was.
    shown: Option<Instant>,
    has_begun: bool,
    /// What is being counted.
    what: &'static str,
    /// Why nothing can move.
    blocked: Option<String>,
}

/// Slower than this nothing moves, and nobody knows when it ends.
const LEAST_RATE: f64 = 0.01;

impl Progress {
    /// `what` is being counted, as in "embedded".
    pub fn new(what: &'static str, output: Output) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let target = if is_terminal && !output.json {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template("[{bar:24}] {human_pos} of {human_len} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(None, target)
            .with_style(style)
            .with_finish(ProgressFinish::AndClear);
        Self {
            bar,
            shown: (!is_terminal && !output.json).then(Instant::now),
            has_begun: false,
            what,
            blocked: None,
        }
    }

    /// Nothing can move, for this reason; or it can.
    pub fn block(&mut self, why: Option<String>) {
        self.blocked = why;
    }

    /// Shows where things stand. What was done before the first call doesn't count for the rate.
    pub fn update(&mut self, done: u64, total: u64) {
        if !self.has_begun {
            self.has_begun = true;
            self.bar.set_length(total);
            self.bar.set_position(done);
            self.bar.reset_eta();
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        let pace = match done < total {
            true => pace(self.bar.per_sec(), self.bar.eta(), self.blocked.as_deref()),
            false => String::new(),
        };
        let percent = done.saturating_mul(100) / total.max(1);
        self.bar.set_message(format!("{} ({percent} %){pace}", self.what));
        if self.shown.is_some_and(|shown| shown.elapsed() >= PLAIN_EVERY) {
            self.shown = Some(Instant::now());
            eprintln!("{} of {} {}{pace}", HumanCount(done), HumanCount(total), self.what);
        }
    }

    /// Leaves the line, so that what follows has its own.
    pub fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// How fast it moves and when it ends; where it doesn't move, that, and why.
fn pace(per_second: f64, left: Duration, blocked: Option<&str>) -> String {
    match blocked {
        Some(why) => format!(", nothing moves: {why}"),
        None if per_second < LEAST_RATE => ", nothing moves yet".to_owned(),
        None => {
            let digits = if per_second < 10.0 { 1 } else { 0 };
            format!(", {per_second:.digits$}/s, {} left", HumanDuration(left))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_only_of_what_moves() {
        let two_hours = Duration::from_secs(7200);
        assert_eq!(pace(12.4, two_hours, None), ", 12/s, 2 hours left");
        assert_eq!(pace(0.25, two_hours, None), ", 0.2/s, 2 hours left");
        assert_eq!(pace(0.0, Duration::ZERO, None), ", nothing moves yet");
        assert_eq!(
            pace(12.4, two_hours, Some("the project is stopped")),
            ", nothing moves: the project is stopped"
        );
    }
}
