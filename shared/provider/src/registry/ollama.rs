//! Owns the wire format of Ollama's `/api/embed`. Refuses to send it.

use reqwest::header::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::open_models;
use crate::registry::Asked;
use crate::rejection::{self, Complaint};
use crate::wire::{Call, Parsed, Wire, embeddings, unreadable};
use crate::{Failure, Limits, Purpose};
use cronvec_nouns::space::SpaceSpec;

pub(super) const ASKED: Asked = Asked::Http(&Ollama);

/// A server of Ollama's own API.
#[derive(Clone, Copy, Debug)]
pub struct Ollama;

/// Ours: Ollama states no bound, and works on the inputs of a request one after the other within our time-out.
const INPUTS: usize = 2_048;
/// Ours, as above.
const TOKENS: usize = 100_000;
/// Ours, for memory.
const BYTES: usize = 1 << 20;
/// The window of BERT's descendants, unless the space says more.
const WINDOW: usize = 512;

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    input: &'a [&'a str],
    /// A text that is cut without a word has a vector of its beginning alone; rather an error, which is split and sent
    /// again. Versions from 0.13.5 on refuse either way (ollama#14186).
    truncate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u16>,
}

#[derive(Deserialize)]
struct Body {
    /// `null` is how JSON writers spell NaN.
    embeddings: Option<Vec<Vec<Option<f32>>>>,
    prompt_eval_count: Option<u64>,
    error: Option<serde_json::Value>,
}

impl Wire for Ollama {
    fn limits(&self, spec: &SpaceSpec) -> Limits {
        Limits {
            inputs: INPUTS,
            tokens: TOKENS,
            bytes: BYTES,
            window: WINDOW.max(spec.chunk_tokens as usize),
        }
    }

    fn request(&self, spec: &SpaceSpec, _purpose: Purpose, inputs: &[&str], _plain: bool) -> Call {
        let model = open_models::base_name(&spec.model);
        let shorter = open_models::own_width(&model).is_some_and(|width| spec.dimensions < width);
        Call::json(
            "api/embed",
            &Request {
                model: &spec.model,
                input: inputs,
                truncate: false,
                dimensions: shorter.then_some(spec.dimensions),
            },
        )
    }

    fn parse(&self, _spec: &SpaceSpec, body: &[u8], expected: usize) -> Result<Parsed, Failure> {
        let answer: Body = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
        let embeddings = embeddings(answer.embeddings, answer.error.is_some(), body, expected)?;
        let vectors = embeddings.into_iter().map(|vector| {
            let numbers = vector.into_iter().map(|number| number.unwrap_or(f32::NAN));
            numbers.collect()
        });
        Ok(Parsed {
            vectors: vectors.collect(),
            tokens: answer.prompt_eval_count,
        })
    }

    fn reject(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Failure {
        let complaint = Complaint::read(body);
        match rejection::failure(status, headers, &complaint) {
            // A chat model, with 500 or 501.
            Failure::Unavailable { message, .. } if message.contains("does not support embeddings") => {
                Failure::Misconfigured { message }
            }
            failure => failure,
        }
    }

    #[cfg(test)]
    fn recorded(&self) -> &'static str {
        include_str!("ollama/answers.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cronvec_nouns::space::ProviderKind;

    fn spec(model: &str, dimensions: u16) -> SpaceSpec {
        SpaceSpec {
            provider: ProviderKind::Ollama,
            model: model.to_owned(),
            dimensions,
            chunk_tokens: 512,
            chunk_overlap: 0,
            document_prefix: String::new(),
            query_prefix: String::new(),
        }
    }

    fn sent(model: &str, dimensions: u16) -> serde_json::Value {
        let call = Ollama.request(&spec(model, dimensions), Purpose::Document, &["a \"b\"", "c"], false);
        assert_eq!(call.path, "api/embed");
        serde_json::from_slice(&call.body).unwrap()
    }

    #[test]
    fn a_request_carries_the_texts_and_forbids_cutting_them() {
        assert_eq!(
            sent("nomic-embed-text", 768),
            serde_json::json!({"model": "nomic-embed-text", "input": ["a \"b\"", "c"], "truncate": false})
        );
    }

    #[test]
    fn a_width_is_asked_for_where_it_is_shorter_than_the_models_own_and_the_model_allows_it() {
        assert_eq!(sent("nomic-embed-text:latest", 256)["dimensions"], 256);
        assert_eq!(sent("qwen3-embedding:0.6b", 512)["dimensions"], 512);
        assert!(sent("all-minilm", 128).get("dimensions").is_none());
        assert!(sent("embeddinggemma", 768).get("dimensions").is_none());
    }

    #[test]
    fn a_model_that_embeds_nothing_is_for_a_person_to_mend() {
        let body = br#"{"error":"this model does not support embeddings"}"#;
        assert!(matches!(
            Ollama.reject(501, &HeaderMap::new(), body),
            Failure::Misconfigured { .. }
        ));
    }

    #[test]
    fn tokens_are_read_where_they_are_said() {
        let body = br#"{"model":"m","embeddings":[[1,2.5]],"prompt_eval_count":7}"#;
        let parsed = Ollama.parse(&spec("m", 2), body, 1).unwrap();
        assert_eq!((parsed.vectors, parsed.tokens), (vec![vec![1.0, 2.5]], Some(7)));
    }
}
