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
}

impl Progress {
    /// `what` is being counted, as in "embedded".
    pub fn new(what: &'static str, output: Output) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let target = if is_terminal && !output.json {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template(
            "[{bar:24}] {human_pos} of {human_len} {msg} ({percent} %), {per_sec}, {eta} left",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(None, target)
            .with_style(style)
            .with_message(what)
            .with_finish(ProgressFinish::AndClear);
        Self {
            bar,
            shown: (!is_terminal && !output.json).then(Instant::now),
            has_begun: false,
        }
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
        if self.shown.is_some_and(|shown| shown.elapsed() >= PLAIN_EVERY) {
            self.shown = Some(Instant::now());
            eprintln!(
                "{} of {} {}, {:.0}/s, {} left",
                HumanCount(done),
                HumanCount(total),
                self.bar.message(),
                self.bar.per_sec(),
                HumanDuration(self.bar.eta())
            );
        }
    }

    /// Leaves the line, so that what follows has its own.
    pub fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}
