//! Owns the way to a provider: wire formats, one sender, the checks of what comes back. Refuses to know the database.

mod check;
mod http;
pub mod openai;
pub mod rejection;
mod sender;
#[cfg(feature = "static-model")]
pub mod static_model;
pub mod wire;
#[cfg(feature = "static-model")]
mod word_pieces;

use std::time::Duration;

pub use sender::{Connection, Provider, Timeout};

use crate::space::ProviderKind;

/// The wire format of each kind; none where nothing is sent. A new provider is its file and its line here.
pub fn wire(kind: ProviderKind) -> Option<&'static dyn wire::Wire> {
    match kind {
        ProviderKind::Static => None,
        ProviderKind::OpenAi => Some(&openai::OpenAi),
    }
}

/// What the texts are for; some models tell the two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Document,
    Query,
}

/// What a provider takes in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Inputs in a request.
    pub inputs: usize,
    /// Estimated tokens in a request.
    pub tokens: usize,
    /// Bytes of text in a request.
    pub bytes: usize,
    /// Tokens in one input: the model's window.
    pub window: usize,
}

/// Why a whole request brought nothing. Who is charged follows from it, see `pipeline`.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Failure {
    /// 429: this endpoint wants a rest.
    #[error("rate limited: {message}")]
    RateLimited {
        retry_after: Option<Duration>,
        message: String,
    },
    /// 5xx, 408, a refused or broken connection, a time-out of the request's own.
    #[error("unavailable: {message}")]
    Unavailable { message: String },
    /// 400, 413 or 422: something in the batch isn't taken.
    #[error("rejected: {message}")]
    Rejected { message: String },
    /// 401, 402, 403, 404, spent quota, vectors of another width: only a person can mend it.
    #[error("misconfigured: {message}")]
    Misconfigured { message: String },
    /// The answer breaks the contract: count, order, encoding.
    #[error("unusable answer: {message}")]
    BadAnswer { message: String },
    /// Cut short for our own deadline; says nothing about the provider.
    #[error("out of time")]
    OutOfTime,
}

/// Why one input of an otherwise good answer has no vector. `reason` is what quarantine shows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct InputFault {
    pub reason: &'static str,
    pub message: String,
}

/// A good answer: one entry for each input, in their order.
#[derive(Debug)]
pub struct Answer {
    pub vectors: Vec<Result<Vec<f32>, InputFault>>,
    /// Tokens as the provider counted them, where it says so.
    pub tokens: Option<u64>,
}
