//! Owns what can go wrong with a request, and what a person is told to do about it. Refuses to decide who is charged.

use std::time::Duration;

/// Why a whole request brought nothing. Who is charged follows from it, see `pipeline`.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Failure {
    /// 429: this endpoint wants a rest.
    #[error("rate limited: {message}")]
    RateLimited {
        retry_after: Option<Duration>,
        message: String,
    },
    /// 5xx, 408, a refused or broken connection.
    #[error("unavailable: {message}")]
    Unavailable {
        /// Where it says when to come back.
        retry_after: Option<Duration>,
        message: String,
    },
    /// The request's own timeout passed. It says that the answer took too long, not whose fault that is.
    #[error("timed out: {message}")]
    TimedOut { message: String },
    /// 400, 413 or 422: something in the batch isn't taken.
    #[error("rejected: {message}")]
    Rejected { message: String },
    /// An input is longer than the model reads.
    #[error("too long: {message}")]
    TooLong { message: String },
    /// 401, 402, 403, 404, 424 and other 4xx, spent quota, vectors of another width: if it lasts, only a person can fix it.
    #[error("misconfigured: {message}")]
    Misconfigured { message: String },
    /// The answer breaks the contract: count, order, encoding.
    #[error("unusable answer: {message}")]
    BadAnswer { message: String },
    /// Cut short for our own deadline; says nothing about the provider.
    #[error("out of time")]
    OutOfTime,
}

impl Failure {
    /// A word for scripts.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable { .. } => "unavailable",
            Self::TimedOut { .. } => "timed_out",
            Self::Rejected { .. } => "rejected",
            Self::TooLong { .. } => "too_long",
            Self::Misconfigured { .. } => "misconfigured",
            Self::BadAnswer { .. } => "unusable_answer",
            Self::OutOfTime => "out_of_time",
        }
    }

    /// What was said, without the kind.
    pub fn message(&self) -> &str {
        match self {
            Self::RateLimited { message, .. }
            | Self::Unavailable { message, .. }
            | Self::TimedOut { message }
            | Self::Rejected { message }
            | Self::TooLong { message }
            | Self::Misconfigured { message }
            | Self::BadAnswer { message } => message,
            Self::OutOfTime => "no answer in the time there was",
        }
    }

    /// What a person can do when even a short, harmless text fails so.
    pub fn mend(&self) -> &'static str {
        match self {
            Self::RateLimited { .. } => "wait, or ask the provider for a higher limit; work goes on by itself",
            Self::TimedOut { .. } => "see that the server isn't overloaded, or raise EMBEDDING_REQUEST_TIMEOUT",
            Self::Unavailable { .. } | Self::OutOfTime => {
                "see that the address is right and the server is up; work goes on by itself when it is"
            }
            Self::Rejected { .. } | Self::TooLong { .. } => {
                "the request itself isn't taken: compare EMBEDDING_MODEL and EMBEDDING_DIMENSIONS with what the model has"
            }
            Self::Misconfigured { .. } => {
                "mend the key, the model's name, its width or the account, as the message says, then run this again"
            }
            Self::BadAnswer { .. } => {
                "see that the address is a provider's own and not something that answers in its place"
            }
        }
    }

    /// The same with another message.
    pub(super) fn map_message(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::RateLimited { retry_after, message } => Self::RateLimited {
                retry_after,
                message: change(message),
            },
            Self::Unavailable { retry_after, message } => Self::Unavailable {
                retry_after,
                message: change(message),
            },
            Self::TimedOut { message } => Self::TimedOut {
                message: change(message),
            },
            Self::Rejected { message } => Self::Rejected {
                message: change(message),
            },
            Self::TooLong { message } => Self::TooLong {
                message: change(message),
            },
            Self::Misconfigured { message } => Self::Misconfigured {
                message: change(message),
            },
            Self::BadAnswer { message } => Self::BadAnswer {
                message: change(message),
            },
            Self::OutOfTime => Self::OutOfTime,
        }
    }
}

/// Why one input of an otherwise good answer has no vector. `reason` is what quarantine shows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct InputFault {
    pub reason: &'static str,
    pub message: String,
}
