//! How a command ends: 0 done, 1 failed or unhealthy, 2 wrong usage or settings, 130 interrupted.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;

use anyhow::{Result, bail};
use cronvec_edges::cause::chain;
use tokio::sync::watch;

use crate::remote::Refused;

pub(crate) const DONE: u8 = 0;
pub(crate) const FAILED: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const INTERRUPTED: u8 = 130;

/// How a verb that ran to its end found things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Well,
    /// It did what was asked, and what it saw isn't right.
    Unhealthy,
}

/// The person at the keyboard can mend this: wrong usage or settings.
#[derive(Debug)]
pub(crate) struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A [`Usage`] as an error to return.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage(message.into()))
}

/// The exit code of a verb's result; an error is told on standard error.
pub(crate) fn code(ended: Result<Ended>) -> u8 {
    match ended {
        Ok(Ended::Well) => DONE,
        Ok(Ended::Unhealthy) => FAILED,
        // Whoever read our output has seen enough, as in `cronvec coverage | head -1`.
        Err(error) if is_broken_pipe(&error) => DONE,
        Err(error) => report(&error),
    }
}

/// Tells an error and gives its exit code.
pub(crate) fn report(error: &anyhow::Error) -> u8 {
    eprintln!("error: {}", chain(error.as_ref()));
    let is_usage = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<Usage>() || cause.downcast_ref().is_some_and(Refused::is_usage)
    };
    if error.chain().any(is_usage) { USAGE } else { FAILED }
}

/// Ends with the first SIGINT or SIGTERM.
pub(crate) async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    // No handler can be had: never, then, and the signal's own default ends us.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Where a signal reaches what mustn't be dropped in the middle: a worker's pass, which would leave its job to a lease.
#[derive(Debug, Default)]
pub(crate) struct Interrupt(watch::Sender<bool>);

impl Interrupt {
    /// Tells who is in the middle of something; false when nobody is.
    pub fn raise(&self) -> bool {
        self.0.send_replace(true);
        self.0.receiver_count() > 0
    }

    pub fn is_raised(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends with a signal. As long as it is held somebody is in the middle of something.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }

    /// Waits for `work`; after a signal `stop` asks it to end, and it is waited for all the same. After a signal nothing
    /// is begun.
    pub async fn or_end<T>(&self, work: impl Future<Output = T>, stop: impl FnOnce()) -> Result<T> {
        let mut raised = self.0.subscribe();
        if *raised.borrow() {
            bail!("interrupted");
        }
        let mut work = pin!(work);
        tokio::select! {
            done = &mut work => return Ok(done),
            _ = raised.wait_for(|raised| *raised) => stop(),
        }
        Ok(work.await)
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_usage_error_ends_with_2_however_deep_it_lies() {
        let error = Err::<(), _>(usage("no such project"))
            .context("cannot ingest")
            .unwrap_err();
        assert_eq!(report(&error), USAGE);
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("cannot write");
        assert_eq!(code(Err(error)), DONE);
    }
}
