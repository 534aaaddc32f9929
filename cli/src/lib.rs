//! The operator's command line, as a library, so that tests can use its parts.

mod adoption;
pub mod app;
mod args;
mod aws;
mod checks;
mod cost;
mod drain;
mod exit;
mod filters;
mod indexes;
pub mod local;
mod operator;
mod output;
mod progress;
pub mod reading;
mod rejects;
mod remote;
mod sample;
pub mod shapes;
mod verbs;

use std::ffi::OsString;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use cronvec_edges::telemetry;

use crate::args::Cli;
use crate::exit::Interrupt;
use crate::output::Output;
use crate::remote::Remote;

/// A worker that was told to end gets so long to part from its job.
const LAST_ACTS: Duration = Duration::from_secs(2);

/// And a service, with requests of others under way.
const LAST_ACTS_OF_SERVICE: Duration = Duration::from_secs(10);

/// What every verb is given besides its own arguments.
#[derive(Debug)]
pub(crate) struct Context {
    pub output: Output,
    /// `--yes`: don't ask.
    pub yes: bool,
    pub interrupt: Interrupt,
    /// `--url`: the deployment that is asked instead of the database.
    pub remote: Option<Remote>,
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
    // A service is in production unless it is told otherwise.
    let format = match cli.verb.is_service() && std::env::var_os("APP_ENV").is_none() {
        true => telemetry::Format::Json,
        false => telemetry::Format::from_env(),
    };
    telemetry::init(format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return ExitCode::from(exit::report(
                &anyhow::Error::new(error).context("cannot start the runtime"),
            ));
        }
    };
    let remote = match remote(&cli) {
        Ok(remote) => remote,
        Err(error) => return ExitCode::from(exit::report(&error)),
    };
    let context = Context {
        output: Output { json: cli.json },
        yes: cli.yes,
        interrupt: Interrupt::default(),
        remote,
    };
    let is_service = cli.verb.is_service();
    let code = runtime.block_on(async {
        let mut verb = pin!(verbs::run(cli.verb, &context));
        tokio::select! {
            ended = &mut verb => return exit::code(ended),
            () = exit::interrupted() => {}
        }
        if context.interrupt.raise() {
            eprintln!("stopping; interrupt again to leave at once");
            let patience = if is_service { LAST_ACTS_OF_SERVICE } else { LAST_ACTS };
            tokio::select! {
                ended = tokio::time::timeout(patience, verb) => match ended {
                    // A signal is how a service ends.
                    Ok(ended) if is_service => return exit::code(ended),
                    _ => {}
                },
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

/// The deployment that is meant; variables that are empty mean none.
fn remote(cli: &Cli) -> anyhow::Result<Option<Remote>> {
    let Some(url) = cli.url.as_deref().filter(|url| !url.is_empty()) else {
        return Ok(None);
    };
    if cli.verb.is_about_no_database() {
        return Ok(None);
    }
    match cli.verb.why_not_remote() {
        Some(why) => Err(exit::usage(format!(
            "this can't be asked of a deployment (--url or CRONVEC_URL is set); {why}"
        ))),
        None => Remote::new(url, cli.token.as_deref()).map(Some),
    }
}
