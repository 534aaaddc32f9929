//! Owns the way to a provider: wire formats, one sender, the checks of what comes back. Refuses to know the database.

mod check;
#[cfg(test)]
mod conformance;
mod failure;
mod habits;
mod http;
mod in_process;
mod open_models;
mod registry;
pub mod rejection;
mod sender;
pub mod wire;
#[cfg(feature = "static-model")]
mod word_pieces;

pub use failure::{Failure, InputFault};
pub use sender::{Connection, Provider, Timeout};

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

/// A good answer: one entry for each input, in their order.
#[derive(Debug)]
pub struct Answer {
    pub vectors: Vec<Result<Vec<f32>, InputFault>>,
    /// Tokens as the provider counted them, where it says so.
    pub tokens: Option<u64>,
}
