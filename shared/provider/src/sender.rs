//! Owns a provider as the pipeline meets it: one endpoint and model of one space, its answers checked. Refuses to retry, pause or charge.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use url::Url;

use super::check::check;
use super::habits::Habits;
use super::in_process::{self, InProcess};
use super::registry::{self, Asked};
use super::wire::{Form, Parsed, Wire};
use super::{Answer, Failure, Limits, Purpose, http, rejection};
use cronvec_nouns::chunk::ChunkRules;
use cronvec_nouns::definition::Key;
use cronvec_nouns::space::{ProviderKind, SpaceSpec};

/// An answer is never refused for its size below this.
const ANSWER_BYTES_AT_LEAST: usize = 16 << 20;
/// A number of a vector written out in full, with its comma, and some white space.
const BYTES_PER_NUMBER: usize = 40;

/// How to reach a provider. Its `Debug` never shows the key.
#[derive(Clone, PartialEq, Eq)]
pub enum Connection {
    /// The model runs in this process.
    InProcess,
    Http {
        /// Up to where the wire format's own path begins: `https://api.openai.com/v1`. A query is kept.
        base_url: String,
        api_key: Option<String>,
    },
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InProcess => f.write_str("InProcess"),
            // A URL may hold a key, too; only its origin is shown.
            Self::Http { base_url, .. } => {
                let origin = Url::parse(base_url).map(|url| url.origin().ascii_serialization());
                f.debug_struct("Http")
                    .field("origin", &origin.as_deref().unwrap_or("?"))
                    .finish_non_exhaustive()
            }
        }
    }
}

/// How long a request may take, and whose limit that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    pub limit: Duration,
    /// True if the limit was cut to our own deadline: passing it is `Failure::OutOfTime` and says nothing about the
    /// provider. Otherwise it is `Failure::TimedOut`.
    pub ours: bool,
}

enum Means {
    InProcess(&'static dyn InProcess),
    Http(Server),
}

/// A server, and what is known of it.
struct Server {
    wire: &'static dyn Wire,
    base_url: Url,
    api_key: Option<String>,
    habits: Arc<Habits>,
}

/// One endpoint and model, for one space. Shared by reference among the requests of a process.
pub struct Provider {
    spec: SpaceSpec,
    endpoint: String,
    means: Means,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Provider {
    /// `Failure::Misconfigured` if space and connection don't go together, the base URL is none or holds a user and
    /// password, or a model in this process isn't what the space asks for or isn't compiled in. Sends nothing.
    pub fn new(spec: SpaceSpec, connection: Connection) -> Result<Self, Failure> {
        let endpoint = |base: &str, key: Option<&str>| {
            let (provider, model) = (spec.provider, &spec.model);
            format!("{provider}|{base}|{model}|{}", fingerprint(key))
        };
        let (means, endpoint) = match (registry::asked(spec.provider), connection) {
            (Asked::InProcess(model), Connection::InProcess) => (
                Means::InProcess(in_process(&spec, model)?),
                endpoint("in-process", None),
            ),
            (Asked::Http(wire), Connection::Http { base_url, api_key }) => {
                let url = parse_base(&base_url)?;
                let api_key = api_key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
                let mut shown = url.clone();
                shown.set_query(None);
                let endpoint = endpoint(shown.as_str().trim_end_matches('/'), api_key.as_deref());
                let habits = Habits::of(&endpoint);
                let server = Server {
                    wire,
                    base_url: url,
                    api_key,
                    habits,
                };
                (Means::Http(server), endpoint)
            }
            _ => {
                return Err(misconfigured(format!(
                    "a space of provider '{}' can't be reached this way",
                    spec.provider
                )));
            }
        };
        Ok(Self { spec, endpoint, means })
    }

    /// What pauses are keyed by: `provider|base URL|model|fingerprint`. The last is the first 8 hexadecimal digits
    /// of the key's SHA-256, or `-`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The space that it serves.
    pub fn spec(&self) -> &SpaceSpec {
        &self.spec
    }

    pub fn kind(&self) -> ProviderKind {
        self.spec.provider
    }

    /// How long a request may take where no setting says otherwise.
    pub fn request_timeout(&self) -> Duration {
        self.spec.provider.definition().request_timeout
    }

    pub fn limits(&self) -> Limits {
        match &self.means {
            Means::InProcess(model) => model.limits(),
            Means::Http(server) => server.wire.limits(&self.spec),
        }
    }

    /// Tokens of `text` without its prefix: exact for a model in this process, an estimate on the safe side for others.
    pub fn count_tokens(&self, text: &str) -> usize {
        match &self.means {
            Means::InProcess(model) => model.count_tokens(text),
            Means::Http(server) => server.wire.estimate_tokens(text),
        }
    }

    /// The same in no time, for putting requests together; for every provider an estimate.
    pub fn estimate_tokens(&self, text: &str) -> usize {
        match &self.means {
            Means::InProcess(_) => text.len().div_ceil(3),
            Means::Http(server) => server.wire.estimate_tokens(text),
        }
    }

    /// What a document is in a request, with its prefix: estimated tokens, and bytes.
    pub fn size_in_request(&self, text: &str) -> (usize, usize) {
        let prefix = &self.spec.document_prefix;
        let tokens = self.estimate_tokens(text) + self.estimate_tokens(prefix);
        (tokens, text.len() + prefix.len())
    }

    /// How a document is cut for this space: what the model's window and the space allow, less the prefix.
    pub fn chunk_rules(&self) -> ChunkRules {
        let allowed = (self.spec.chunk_tokens as usize).min(self.limits().window);
        let tokens = allowed
            .saturating_sub(self.count_tokens(&self.spec.document_prefix))
            .max(1);
        ChunkRules {
            tokens,
            overlap: self.spec.chunk_overlap as usize,
        }
    }

    /// Embeds `inputs` in one request, each with the space's prefix for `purpose` before it. Keeping to `limits` is
    /// the caller's part.
    ///
    /// One entry for each input comes back, in their order: a vector of the space's width, finite and not zero, or
    /// why that input alone has none (`no_known_words`, `unusable_answer`). Where no input of a request, even of a
    /// single one, has a usable vector, that is `Failure::BadAnswer`: it can't be told from a broken provider.
    pub async fn embed(&self, inputs: &[&str], purpose: Purpose, timeout: Timeout) -> Result<Answer, Failure> {
        if inputs.is_empty() {
            return Ok(Answer {
                vectors: Vec::new(),
                tokens: None,
            });
        }
        let prefix = match purpose {
            Purpose::Document => self.spec.document_prefix.as_str(),
            Purpose::Query => self.spec.query_prefix.as_str(),
        };
        let prefixed: Vec<String> = match prefix {
            "" => Vec::new(),
            prefix => inputs.iter().map(|input| [prefix, input].concat()).collect(),
        };
        let prefixed: Vec<&str> = prefixed.iter().map(String::as_str).collect();
        let texts = if prefix.is_empty() { inputs } else { &prefixed };

        let worked = tokio::time::timeout(timeout.limit, self.ask(texts, inputs, purpose)).await;
        let parsed = worked.unwrap_or_else(|_| match timeout.ours {
            true => Err(Failure::OutOfTime),
            false => Err(Failure::TimedOut {
                message: format!("no answer within {:?}", timeout.limit),
            }),
        })?;
        check(&self.spec, parsed, inputs.len())
    }

    async fn ask(&self, texts: &[&str], originals: &[&str], purpose: Purpose) -> Result<Parsed, Failure> {
        let server = match &self.means {
            Means::InProcess(model) => return in_process::embed(*model, self.spec.provider.as_str(), texts).await,
            Means::Http(server) => server,
        };
        let (wire, habits) = (server.wire, &server.habits);
        let is_plain = habits.wants_plain();
        let reply = self.post(server, texts, purpose, is_plain).await?;
        let mut outcome = self.read(wire, &reply, texts.len());
        if !is_plain {
            let is_tried = match &outcome {
                Ok(_) => {
                    habits.took_all();
                    false
                }
                Err(failure) => match wire.form(failure, reply.status, &reply.body) {
                    Form::Fine => false,
                    Form::Unclear => habits.may_want_plain(),
                    Form::Refused => true,
                },
            };
            if is_tried {
                let reply = self.post(server, texts, purpose, true).await?;
                outcome = self.read(wire, &reply, texts.len());
                habits.tried_plain(outcome.is_ok());
            }
        }
        outcome.map_err(|failure| clean(advise(failure, &server.base_url), server.api_key.as_deref(), originals))
    }

    fn read(&self, wire: &dyn Wire, reply: &http::Reply, expected: usize) -> Result<Parsed, Failure> {
        match reply.status {
            200..300 => wire.parse(&self.spec, &reply.body, expected),
            status => Err(wire.reject(status, &reply.headers, &reply.body)),
        }
    }

    async fn post(
        &self,
        server: &Server,
        texts: &[&str],
        purpose: Purpose,
        is_plain: bool,
    ) -> Result<http::Reply, Failure> {
        let call = server.wire.request(&self.spec, purpose, texts, is_plain);
        let mut headers: HeaderMap = call
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), HeaderValue::from_str(value).ok()?)))
            .collect();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let (Some(rule), Some(key)) = (key_of(&self.spec), &server.api_key) {
            let mut value = HeaderValue::from_str(&format!("{}{key}", rule.prefix))
                .map_err(|_| misconfigured("the API key has characters that no header can carry"))?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(rule.header), value);
        }
        let numbers = texts.len().saturating_mul(usize::from(self.spec.dimensions));
        let most_bytes = numbers.saturating_mul(BYTES_PER_NUMBER).max(ANSWER_BYTES_AT_LEAST);
        let url = join(&server.base_url, &call.path);
        let reply = http::post(
            &url,
            headers,
            call.body.into(),
            // Base64 has 16 characters for 3 numbers.
            numbers.saturating_mul(16) / 3 + 256 * texts.len(),
            most_bytes,
            server.habits.has_answered(),
        )
        .await?;
        server.habits.note_answer();
        Ok(reply)
    }
}

/// Azure's older addresses take no key as OpenAI's clients send it, and call models by their deployments' names.
fn advise(failure: Failure, base_url: &Url) -> Failure {
    let host = base_url.host_str().unwrap_or_default();
    let is_azure = host.contains(".azure.") && !base_url.path().trim_end_matches('/').ends_with("/openai/v1");
    match failure {
        Failure::Misconfigured { message } | Failure::Rejected { message } if is_azure => Failure::Misconfigured {
            message: format!(
                "{message} (Azure: set OPENAI_BASE_URL to https://{host}/openai/v1 and EMBEDDING_MODEL to the deployment's name)"
            ),
        },
        failure => failure,
    }
}

/// Takes the key and the texts out of whatever the provider said.
fn clean(failure: Failure, key: Option<&str>, inputs: &[&str]) -> Failure {
    failure.map_message(|message| rejection::redact(&message, key, inputs))
}

/// How its provider takes a key.
fn key_of(spec: &SpaceSpec) -> Option<&'static Key> {
    spec.provider.definition().server.as_ref()?.key.as_ref()
}

fn in_process(spec: &SpaceSpec, model: Option<&'static dyn InProcess>) -> Result<&'static dyn InProcess, Failure> {
    let (provider, own) = (spec.provider, &spec.provider.definition().models.default);
    match model {
        None => Err(misconfigured(format!(
            "the {provider} model isn't compiled in (Cargo feature `{provider}-model`)"
        ))),
        Some(_) if spec.model != own.name || spec.dimensions != own.dimensions => Err(misconfigured(format!(
            "the {provider} provider has the model '{}', {} wide, not '{}', {} wide",
            own.name, own.dimensions, spec.model, spec.dimensions
        ))),
        Some(model) => Ok(model),
    }
}

fn parse_base(base_url: &str) -> Result<Url, Failure> {
    let url = Url::parse(base_url.trim()).map_err(|error| misconfigured(format!("the base URL is none: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
        return Err(misconfigured("the base URL must begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(misconfigured(
            "the base URL holds a user or password; give the API key by its own setting",
        ));
    }
    Ok(url)
}

fn join(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}

fn fingerprint(key: Option<&str>) -> String {
    key.map_or_else(
        || "-".to_owned(),
        |key| {
            Sha256::digest(key.as_bytes())
                .iter()
                .take(4)
                .map(|byte| format!("{byte:02x}"))
                .collect()
        },
    )
}

fn misconfigured(message: impl Into<String>) -> Failure {
    Failure::Misconfigured {
        message: message.into(),
    }
}

#[cfg(test)]
mod tests;
