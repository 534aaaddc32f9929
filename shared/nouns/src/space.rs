//! Owns what a space is: one way to turn text into vectors. Refuses to know where spaces are kept.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which wire format a space's provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// The model that is compiled in; no key, no network.
    Static,
    /// Any server of OpenAI's shape.
    OpenAi,
    /// A server of Ollama's own API.
    Ollama,
    /// Google's Gemini API.
    Gemini,
}

impl ProviderKind {
    pub const ALL: [Self; 4] = [Self::Static, Self::OpenAi, Self::Ollama, Self::Gemini];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::OpenAi => "openai",
            Self::Ollama => "ollama",
            Self::Gemini => "gemini",
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ProviderKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
            format!(
                "unknown provider '{name}'; known are {}",
                Self::ALL.map(Self::as_str).join(", ")
            )
        })
    }
}

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
