//! Owns what a wire format is: the seam that adding a provider fills in. Refuses to do any I/O.

use reqwest::header::{HeaderMap, HeaderName};
use serde::Serialize;

use super::rejection::Complaint;
use super::{Failure, Limits, Purpose};
use cronvec_nouns::space::SpaceSpec;

/// Whether a request was refused for what a plain one doesn't have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// No, or there is nothing to leave out.
    Fine,
    /// It may be.
    Unclear,
    /// It says so.
    Refused,
}

/// A provider's wire format, pure: tested from recorded and provoked bodies without a server.
///
/// Time-outs, connections, size limits and the checks of vectors are the sender's, the same for all formats.
pub trait Wire: Send + Sync {
    /// What one request may carry for this model.
    fn limits(&self, spec: &SpaceSpec) -> Limits;

    /// The request for `inputs`, which have their prefixes already. A `plain` one has nothing that only saves bytes.
    fn request(&self, spec: &SpaceSpec, purpose: Purpose, inputs: &[&str], plain: bool) -> Call;

    /// What a request that wasn't plain failed of, as far as its answer tells.
    fn form(&self, _failure: &Failure, _status: u16, _body: &[u8]) -> Form {
        Form::Fine
    }

    /// What to know where a model of this space answers in another width.
    fn about_width(&self, _spec: &SpaceSpec) -> &'static str {
        ""
    }

    /// Reads the body of an answer with a 2xx status to `expected` inputs. Width and values are the sender's to
    /// check; count and order are this format's.
    fn parse(&self, spec: &SpaceSpec, body: &[u8], expected: usize) -> Result<Parsed, Failure>;

    /// What an answer with any other status means. `body` may be cut short.
    fn reject(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Failure;

    /// Tokens that `text` has at most, most likely: there is no tokenizer on board for models served elsewhere.
    ///
    /// A token for every 3 bytes. OpenAI's documentation puts English at about 4 characters a token, so this leaves
    /// a quarter to spare; a CJK character has 3 bytes and about one token. Digits, hashes and rare scripts may have
    /// more tokens than this, so an input can still prove too long.
    fn estimate_tokens(&self, text: &str) -> usize {
        text.len().div_ceil(3)
    }

    /// What it answers, right and wrong, as `conformance` wants to know it: JSON.
    #[cfg(test)]
    fn recorded(&self) -> &'static str;
}

/// A `POST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Added to the base URL, without a leading slash.
    pub path: String,
    /// Beyond content type and authorisation, which the sender adds.
    pub headers: Vec<(HeaderName, String)>,
    /// JSON.
    pub body: Vec<u8>,
}

impl Call {
    /// With a body of its own making, and no headers but the sender's.
    pub(super) fn json(path: &str, body: &impl Serialize) -> Self {
        // Strings and numbers into memory: neither the format nor the target can fail.
        let body = serde_json::to_vec(body);
        debug_assert!(body.is_ok());
        Self {
            path: path.to_owned(),
            headers: Vec::new(),
            body: body.unwrap_or_default(),
        }
    }
}

/// What an answer says, unchecked but for count and order.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// One for each input, in their order.
    pub vectors: Vec<Vec<f32>>,
    /// As the provider counted them, where it says so.
    pub tokens: Option<u64>,
}

/// Says where, not what: the error's own text may quote the body.
pub(super) fn unreadable(error: &serde_json::Error) -> Failure {
    match error.is_eof() {
        true => bad("the body ends in the middle"),
        false => bad(format!(
            "no JSON of this shape (line {}, column {})",
            error.line(),
            error.column()
        )),
    }
}

/// The field `embeddings` of an answer that numbers nothing: one for each input. What stands there instead of it may be
/// an error, with status 200.
pub(super) fn embeddings<T>(
    found: Option<Vec<T>>,
    has_error: bool,
    body: &[u8],
    expected: usize,
) -> Result<Vec<T>, Failure> {
    match found {
        None if has_error => Err(bad(format!(
            "an error with status 200: {}",
            Complaint::read(body).message
        ))),
        None => Err(bad("no `embeddings`")),
        Some(found) if found.len() != expected => Err(bad(format!("{} vectors for {expected} inputs", found.len()))),
        Some(found) => Ok(found),
    }
}

pub(super) fn bad(message: impl Into<String>) -> Failure {
    Failure::BadAnswer {
        message: message.into(),
    }
}
