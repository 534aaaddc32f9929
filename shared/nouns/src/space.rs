//! Owns what a space is: one way to turn text into vectors. Refuses to know where spaces are kept.

use serde::{Deserialize, Serialize};

pub use crate::registry::ProviderKind;

/// A way to embed, without its identity in the database. Two equal ones are one space.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpaceSpec {
    pub provider: ProviderKind,
    pub model: String,
    /// Width of its vectors.
    pub dimensions: u16,
    /// A chunk has at most this many tokens.
    pub chunk_tokens: u32,
    /// Tokens that a chunk repeats of the one before it.
    pub chunk_overlap: u32,
    /// Put before a text that is stored.
    pub document_prefix: String,
    /// Put before a text that is searched for.
    pub query_prefix: String,
}

/// A space as it stands in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    pub id: i32,
    pub spec: SpaceSpec,
}
