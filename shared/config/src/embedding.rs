//! Owns the settings of embedding: the space of new projects, requests, attempts. Refuses to embed.

use std::time::Duration;

use super::reader::Reader;
use super::{AppEnv, Prices, Providers};
use cronvec_nouns::model::Model;
use cronvec_nouns::space::{ProviderKind, SpaceSpec};

/// No chunk is larger unless it is asked for: search finds a passage better than a whole document.
const DEFAULT_CHUNK_TOKENS: u32 = 512;
/// What a model may read whose window isn't known.
const WIDEST_WINDOW: u32 = 32_768;
/// pgvector's own limit of a `vector`.
const MOST_DIMENSIONS: u16 = 16_000;

/// How texts become vectors.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// `EMBEDDING_PROVIDER`, `EMBEDDING_MODEL`, `EMBEDDING_DIMENSIONS`, `EMBEDDING_…_PREFIX`, `EMBEDDING_CHUNK_…`:
    /// the space of new projects.
    pub new_space: SpaceSpec,
    pub providers: Providers,
    /// `EMBEDDING_QUEUE_ENABLED`
    pub queue_enabled: bool,
    /// `SEMANTIC_SEARCH_ENABLED`
    pub search_enabled: bool,
    /// `EMBEDDING_BATCH_SIZE`
    pub batch_size: usize,
    /// `EMBEDDING_CONCURRENT_REQUESTS`
    pub concurrent_requests: usize,
    /// `EMBEDDING_REQUEST_TIMEOUT`; none: the provider's own.
    pub request_timeout: Option<Duration>,
    /// `EMBEDDING_MAX_RETRIES`: attempts in all.
    pub max_attempts: i32,
    /// `EMBEDDING_RETRY_BACKOFF_BASE`
    pub backoff_base: Duration,
    /// `EMBEDDING_PRICES`
    pub prices: Prices,
}

impl Embedding {
    pub(super) fn read(reader: &mut Reader<'_>, app_env: AppEnv) -> Self {
        let provider = read_provider(reader, app_env);
        Self {
            new_space: read_space(reader, provider),
            providers: Providers::read(reader, provider),
            queue_enabled: reader.flag("EMBEDDING_QUEUE_ENABLED", true),
            search_enabled: reader.flag("SEMANTIC_SEARCH_ENABLED", true),
            batch_size: reader.number("EMBEDDING_BATCH_SIZE", 25, 1..=2_048),
            concurrent_requests: reader.number("EMBEDDING_CONCURRENT_REQUESTS", 4, 1..=64),
            request_timeout: reader
                .optional_number("EMBEDDING_REQUEST_TIMEOUT", 1_000..=3_600_000)
                .map(Duration::from_millis),
            max_attempts: reader.number("EMBEDDING_MAX_RETRIES", 3, 1..=100),
            backoff_base: Duration::from_millis(reader.number("EMBEDDING_RETRY_BACKOFF_BASE", 10_000, 1..=3_600_000)),
            prices: Prices::read(reader),
        }
    }

    pub(super) fn describe(&self, rows: &mut Vec<(&'static str, String)>) {
        let space = &self.new_space;
        rows.extend([
            ("EMBEDDING_PROVIDER", space.provider.to_string()),
            ("EMBEDDING_MODEL", space.model.clone()),
            ("EMBEDDING_DIMENSIONS", space.dimensions.to_string()),
            ("EMBEDDING_DOCUMENT_PREFIX", space.document_prefix.clone()),
            ("EMBEDDING_QUERY_PREFIX", space.query_prefix.clone()),
            ("EMBEDDING_CHUNK_TOKENS", space.chunk_tokens.to_string()),
            ("EMBEDDING_CHUNK_OVERLAP", space.chunk_overlap.to_string()),
        ]);
        self.providers.describe(rows);
        rows.extend([
            ("EMBEDDING_QUEUE_ENABLED", self.queue_enabled.to_string()),
            ("SEMANTIC_SEARCH_ENABLED", self.search_enabled.to_string()),
            ("EMBEDDING_BATCH_SIZE", self.batch_size.to_string()),
            ("EMBEDDING_CONCURRENT_REQUESTS", self.concurrent_requests.to_string()),
            (
                "EMBEDDING_REQUEST_TIMEOUT",
                self.request_timeout.map_or_else(
                    || "the provider's own".to_owned(),
                    |timeout| timeout.as_millis().to_string(),
                ),
            ),
            ("EMBEDDING_MAX_RETRIES", self.max_attempts.to_string()),
            (
                "EMBEDDING_RETRY_BACKOFF_BASE",
                self.backoff_base.as_millis().to_string(),
            ),
        ]);
        self.prices.describe(rows);
    }
}

fn read_provider(reader: &mut Reader<'_>, app_env: AppEnv) -> ProviderKind {
    let known = ProviderKind::ALL.map(ProviderKind::as_str).join(" or ");
    match reader.text("EMBEDDING_PROVIDER").map(|name| name.parse()) {
        Some(Ok(provider)) => provider,
        Some(Err(message)) => {
            reader.problem("EMBEDDING_PROVIDER", format!("is wrong: {message}"));
            ProviderKind::Static
        }
        None => {
            if app_env == AppEnv::Production {
                reader.problem(
                    "EMBEDDING_PROVIDER",
                    format!("is not set; production needs it: {known}"),
                );
            }
            ProviderKind::Static
        }
    }
}

fn read_space(reader: &mut Reader<'_>, provider: ProviderKind) -> SpaceSpec {
    let catalogue = &provider.definition().models;
    let named = reader.text("EMBEDDING_MODEL");
    let name = named.unwrap_or_else(|| catalogue.default.name.to_owned());
    let known = catalogue.find(&name);
    if known.is_none() && !catalogue.takes_any {
        let message = format!("is '{name}'; the provider {provider} has {}", catalogue.names());
        reader.problem("EMBEDDING_MODEL", message);
    }
    let dimensions = read_dimensions(reader, &name, known, catalogue.default.dimensions);
    let (chunk_tokens, chunk_overlap) = read_chunking(reader, &name, known.map(|model| model.window));
    let (document_prefix, query_prefix) = known.map_or(("", ""), |model| (model.document_prefix, model.query_prefix));
    SpaceSpec {
        provider,
        model: name,
        dimensions,
        chunk_tokens,
        chunk_overlap,
        document_prefix: reader
            .verbatim("EMBEDDING_DOCUMENT_PREFIX")
            .unwrap_or_else(|| document_prefix.to_owned()),
        query_prefix: reader
            .verbatim("EMBEDDING_QUERY_PREFIX")
            .unwrap_or_else(|| query_prefix.to_owned()),
    }
}

/// The model's width where it is known, else the provider's own; a wrong guess shows at the first answer, which is
/// checked against it.
fn read_dimensions(reader: &mut Reader<'_>, name: &str, known: Option<Model>, provider_default: u16) -> u16 {
    let default = known.map_or(provider_default, |model| model.dimensions);
    let dimensions = reader.number("EMBEDDING_DIMENSIONS", default, 1..=MOST_DIMENSIONS);
    match known {
        Some(model) if dimensions > model.dimensions || (dimensions < model.dimensions && !model.shortens) => {
            let upto = if model.shortens { "at most " } else { "" };
            let message = format!("is {dimensions}; the model {name} has {upto}{}", model.dimensions);
            reader.problem("EMBEDDING_DIMENSIONS", message);
            default
        }
        _ => dimensions,
    }
}

fn read_chunking(reader: &mut Reader<'_>, name: &str, window: Option<u32>) -> (u32, u32) {
    let default = window.unwrap_or(DEFAULT_CHUNK_TOKENS).min(DEFAULT_CHUNK_TOKENS);
    let tokens = reader.number("EMBEDDING_CHUNK_TOKENS", default, 1..=WIDEST_WINDOW);
    if let Some(window) = window.filter(|window| tokens > *window) {
        reader.problem(
            "EMBEDDING_CHUNK_TOKENS",
            format!("is {tokens}; the model {name} reads at most {window}"),
        );
    }
    let overlap = reader.number("EMBEDDING_CHUNK_OVERLAP", 0, 0..=WIDEST_WINDOW);
    if overlap >= tokens {
        let message = format!("is {overlap}; it must be less than EMBEDDING_CHUNK_TOKENS, {tokens}");
        reader.problem("EMBEDDING_CHUNK_OVERLAP", message);
    }
    (tokens, overlap)
}
