//! Owns how each provider is reached: addresses and keys. Refuses to know what they are asked.

use url::{Host, Url};

use super::reader::Reader;
use super::{SecretSource, secret};

const OPENAI_PUBLIC: &str = "https://api.openai.com/v1";

/// How to reach a server of OpenAI's shape.
#[derive(Clone, Debug)]
pub struct OpenAi {
    /// `OPENAI_API_KEY`; a server on loopback may need none.
    pub api_key: Option<SecretSource>,
    /// `OPENAI_BASE_URL`, without a slash at its end.
    pub base_url: String,
}

impl OpenAi {
    pub(super) fn read(reader: &mut Reader<'_>, is_chosen: bool) -> Self {
        let openai = Self {
            api_key: reader.secret("OPENAI_API_KEY"),
            base_url: reader.base_url("OPENAI_BASE_URL", OPENAI_PUBLIC),
        };
        if is_chosen && openai.api_key.is_none() && openai.is_public() {
            let message = "is not set; the provider openai needs it, unless OPENAI_BASE_URL is a server without keys";
            reader.problem("OPENAI_API_KEY", message);
        }
        openai
    }

    /// OpenAI itself, which answers nobody without a key; a server of the same shape may.
    fn is_public(&self) -> bool {
        let url = Url::parse(&self.base_url);
        matches!(url.as_ref().ok().and_then(Url::host), Some(Host::Domain(name)) if name.ends_with("api.openai.com"))
    }

    pub(super) fn describe(&self, rows: &mut Vec<(&'static str, String)>) {
        rows.push(secret::row(
            "OPENAI_API_KEY",
            "OPENAI_API_KEY_ARN",
            self.api_key.as_ref(),
        ));
        rows.push(("OPENAI_BASE_URL", self.base_url.clone()));
    }
}

const OLLAMA_LOCAL: &str = "http://localhost:11434";

/// How to reach a server of Ollama's.
#[derive(Clone, Debug)]
pub struct Ollama {
    /// `OLLAMA_BASE_URL`, without a slash at its end.
    pub base_url: String,
    /// It was set, so that spaces of it are served here though new ones are another provider's.
    pub is_set: bool,
}

impl Ollama {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            is_set: reader.text("OLLAMA_BASE_URL").is_some(),
            base_url: reader.base_url("OLLAMA_BASE_URL", OLLAMA_LOCAL),
        }
    }

    pub(super) fn describe(&self, rows: &mut Vec<(&'static str, String)>) {
        rows.push(("OLLAMA_BASE_URL", self.base_url.clone()));
    }
}

const GEMINI_PUBLIC: &str = "https://generativelanguage.googleapis.com";

/// How to reach the Gemini API.
#[derive(Clone, Debug)]
pub struct Gemini {
    /// `GEMINI_API_KEY`
    pub api_key: Option<SecretSource>,
    /// `GEMINI_BASE_URL`, without a slash at its end.
    pub base_url: String,
}

impl Gemini {
    pub(super) fn read(reader: &mut Reader<'_>, is_chosen: bool) -> Self {
        let gemini = Self {
            api_key: reader.secret("GEMINI_API_KEY"),
            base_url: reader.base_url("GEMINI_BASE_URL", GEMINI_PUBLIC),
        };
        if is_chosen && gemini.api_key.is_none() && gemini.base_url == GEMINI_PUBLIC {
            reader.problem("GEMINI_API_KEY", "is not set; the provider gemini needs it");
        }
        gemini
    }

    pub(super) fn describe(&self, rows: &mut Vec<(&'static str, String)>) {
        rows.push(secret::row(
            "GEMINI_API_KEY",
            "GEMINI_API_KEY_ARN",
            self.api_key.as_ref(),
        ));
        rows.push(("GEMINI_BASE_URL", self.base_url.clone()));
    }
}
