//! Owns the decision what a provider's failure means: who is charged, and what happens next. Refuses to carry it out.

use std::time::Duration;

use cronvec_provider::Failure;

/// A 429 that doesn't say for how long.
const REST: Duration = Duration::from_secs(20);
/// A provider that is down, and doesn't say for how long, is asked again after this.
const OUTAGE: Duration = Duration::from_secs(30);
/// An open circuit gets its first canary after this, each further one after twice as long as the one before, up to an hour.
pub(super) const FIRST_CANARY: Duration = Duration::from_secs(60);
pub(super) const LONGEST_CANARY: Duration = Duration::from_secs(3600);

/// What follows from a failure.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody's fault: the endpoint rests, the records wait.
    Pause { rest: Duration, message: String },
    /// Only a person can fix it: the endpoint rests until a canary lives.
    OpenCircuit { rest: Duration, message: String },
    /// Worth one more try at once; it may have been chance.
    RetryOnce { message: String, reason: &'static str },
    /// The input is suspected: asked again by halves, and a canary before it is charged.
    Suspect { message: String, reason: &'static str },
    /// The answer took too long: asked again by halves. Nobody is charged.
    TooSlow { message: String },
    /// Our own time is over: everything waits.
    OutOfTime,
}

/// Quarantine's reasons, beside those that a provider gives for one input.
pub(super) const REJECTED: &str = "rejected";
pub(super) const TOO_LONG: &str = "too_long";
pub(super) const PROVIDER_ERROR: &str = "provider_error";
pub(super) const UNUSABLE_ANSWER: &str = "unusable_answer";
/// Never a reason for quarantine: it says why a record waits.
pub(super) const TIMED_OUT: &str = "timed_out";

/// One exhaustive match, so that a new kind of failure has its consequence decided here.
pub(super) fn verdict(failure: Failure) -> Verdict {
    match failure {
        Failure::RateLimited { retry_after, message } => Verdict::Pause {
            rest: retry_after.unwrap_or(REST),
            message,
        },
        // It may be a firewall's or a gateway's mood, while requests beside it succeed: asked again, and a canary after that.
        Failure::Misconfigured { message } => Verdict::RetryOnce {
            message,
            reason: PROVIDER_ERROR,
        },
        Failure::TimedOut { message } => Verdict::TooSlow { message },
        Failure::Rejected { message } => Verdict::Suspect {
            message,
            reason: REJECTED,
        },
        Failure::TooLong { message } => Verdict::Suspect {
            message,
            reason: TOO_LONG,
        },
        Failure::Unavailable { message, .. } => Verdict::RetryOnce {
            message,
            reason: PROVIDER_ERROR,
        },
        Failure::BadAnswer { message } => Verdict::RetryOnce {
            message,
            reason: UNUSABLE_ANSWER,
        },
        Failure::OutOfTime => Verdict::OutOfTime,
    }
}

/// What a canary that failed says: the fault is the provider's, whatever the input was suspected of.
pub(super) fn after_canary(failure: Failure) -> Verdict {
    match failure {
        Failure::RateLimited { .. } | Failure::OutOfTime => verdict(failure),
        // It refuses what nobody can object to: the key, the model or the request itself is wrong.
        Failure::Misconfigured { message } | Failure::Rejected { message } | Failure::TooLong { message } => {
            Verdict::OpenCircuit {
                rest: FIRST_CANARY,
                message,
            }
        }
        Failure::Unavailable { retry_after, message } => Verdict::Pause {
            rest: retry_after.unwrap_or(OUTAGE),
            message,
        },
        Failure::BadAnswer { message } | Failure::TimedOut { message } => Verdict::Pause { rest: OUTAGE, message },
    }
}

/// Rejected input stays rejected; an error or an unusable answer may pass.
pub(super) fn is_permanent(reason: &str) -> bool {
    reason != PROVIDER_ERROR && reason != UNUSABLE_ANSWER
}
