//! Owns the way to a provider: wire formats, one sender, the checks of what comes back. Refuses to know the database.

mod check;
#[cfg(test)]
mod conformance;
mod failure;
mod gemini;
mod habits;
mod http;
mod ollama;
mod open_models;
pub mod openai;
pub mod rejection;
mod sender;
#[cfg(feature = "static-model")]
pub mod static_model;
pub mod wire;
#[cfg(feature = "static-model")]
mod word_pieces;

pub use failure::{Failure, InputFault};
pub use sender::{Connection, Provider, Timeout};

use cronvec_nouns::space::ProviderKind;

/// The wire format of each kind; none where nothing is sent. A new provider is its file and its line here.
pub fn wire(kind: ProviderKind) -> Option<&'static dyn wire::Wire> {
    match kind {
        ProviderKind::Static => None,
        ProviderKind::OpenAi => Some(&openai::OpenAi),
        ProviderKind::Ollama => Some(&ollama::Ollama),
        ProviderKind::Gemini => Some(&gemini::Gemini),
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

/// A good answer: one entry for each input, in their order.
#[derive(Debug)]
pub struct Answer {
    pub vectors: Vec<Result<Vec<f32>, InputFault>>,
    /// Tokens as the provider counted them, where it says so.
    pub tokens: Option<u64>,
}
