//! The operator's command line, as a library, so that tests can use its parts.

pub mod app;
mod args;
mod checks;
mod drain;
mod exit;
mod filters;
pub mod local;
mod operator;
mod output;
mod progress;
pub mod reading;
mod rejects;
mod sample;
pub mod shapes;
mod verbs;

use std::ffi::OsString;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use shared::telemetry;

use crate::args::Cli;
use crate::exit::Interrupt;
use crate::output::Output;

/// A worker that was told to end gets so long to part from its job.
const LAST_ACTS: Duration = Duration::from_secs(2);

/// What every verb is given besides its own arguments.
#[derive(Debug)]
pub(crate) struct Context {
    pub output: Output,
    /// `--yes`: don't ask.
    pub yes: bool,
    pub interrupt: Interrupt,
}

/// Runs one command line and says how it ended.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(answer) => {
            // Help and version are "errors" to clap, with code 0 and on standard output.
            let printed = answer.print();
            let code = if printed.is_ok() && !answer.use_stderr() {
                exit::DONE
            } else {
                exit::USAGE
            };
            return ExitCode::from(code);
        }
    };
    telemetry::init(telemetry::Format::from_env());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return ExitCode::from(exit::report(
                &anyhow::Error::new(error).context("cannot start the runtime"),
            ));
        }
    };
    let context = Context {
        output: Output { json: cli.json },
        yes: cli.yes,
        interrupt: Interrupt::default(),
    };
    let code = runtime.block_on(async {
        let mut verb = pin!(verbs::run(cli.verb, &context));
        tokio::select! {
            ended = &mut verb => return exit::code(ended),
            () = exit::interrupted() => {}
        }
        if context.interrupt.raise() {
            tokio::select! {
                _ = tokio::time::timeout(LAST_ACTS, verb) => {}
                // Who asks twice means it.
                () = exit::interrupted() => {}
            }
        }
        exit::INTERRUPTED
    });
    // A thread that waits for the keyboard must not keep us.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ExitCode::from(code)
}
