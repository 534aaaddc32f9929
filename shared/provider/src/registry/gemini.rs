//! Owns the wire format of the Gemini API's `batchEmbedContents`. Refuses to send it.

use reqwest::header::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::registry::Asked;
use crate::rejection::{self, Complaint};
use crate::wire::{Call, Parsed, Wire, embeddings, unreadable};
use crate::{Failure, Limits, Purpose};
use cronvec_nouns::space::SpaceSpec;

pub(super) const ASKED: Asked = Asked::Http(&Gemini);

/// Google's Gemini API, with a key of AI Studio.
#[derive(Clone, Copy, Debug)]
pub struct Gemini;

/// Requests in a batch (weaviate#11275, langchainjs#4491); more are refused with 400.
const INPUTS: usize = 100;
/// Ours: 100 inputs of 2,048 tokens each. What counts there is a minute's quota.
const TOKENS: usize = 204_800;
/// Ours, for memory: more than so many estimated tokens have.
const BYTES: usize = 1 << 20;
/// `gemini-embedding-001` reads so many tokens of an input, `gemini-embedding-2` 8,192 (their pages of Google's).
const WINDOW: usize = 2_048;
const WINDOW_OF_2: usize = 8_192;
/// Vectors of this width come normalised; narrower ones of `gemini-embedding-001` don't (Google's embedding guide).
const FULL_WIDTH: u16 = 3_072;

#[derive(Serialize)]
struct Request<'a> {
    requests: Vec<Part<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    model: &'a str,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_type: Option<&'static str>,
    output_dimensionality: u16,
}

/// One a text: of several parts of a content `gemini-embedding-2` makes one vector (python-genai#2523).
#[derive(Serialize)]
struct Content<'a> {
    parts: [Text<'a>; 1],
}

#[derive(Serialize)]
struct Text<'a> {
    text: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    embeddings: Option<Vec<Embedding>>,
    usage_metadata: Option<Usage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Embedding {
    /// `null` is how JSON writers spell NaN.
    #[serde(default)]
    values: Vec<Option<f32>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    prompt_token_count: Option<u64>,
}

impl Wire for Gemini {
    fn limits(&self, spec: &SpaceSpec) -> Limits {
        Limits {
            inputs: INPUTS,
            tokens: TOKENS,
            bytes: BYTES,
            window: if takes_prefixes(spec) { WINDOW_OF_2 } else { WINDOW },
        }
    }

    fn request(&self, spec: &SpaceSpec, purpose: Purpose, inputs: &[&str], _plain: bool) -> Call {
        let name = bare_name(spec);
        let model = format!("models/{name}");
        let task_type = match purpose {
            _ if takes_prefixes(spec) => None,
            Purpose::Document => Some("RETRIEVAL_DOCUMENT"),
            Purpose::Query => Some("RETRIEVAL_QUERY"),
        };
        let requests = inputs.iter().map(|text| Part {
            model: &model,
            content: Content { parts: [Text { text }] },
            task_type,
            output_dimensionality: spec.dimensions,
        });
        Call::json(
            &format!("v1beta/{model}:batchEmbedContents"),
            &Request {
                requests: requests.collect(),
            },
        )
    }

    fn parse(&self, spec: &SpaceSpec, body: &[u8], expected: usize) -> Result<Parsed, Failure> {
        let answer: Body = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
        let embeddings = embeddings(answer.embeddings, answer.error.is_some(), body, expected)?;
        let vectors = embeddings.into_iter().map(|embedding| {
            let mut vector: Vec<f32> = embedding
                .values
                .into_iter()
                .map(|number| number.unwrap_or(f32::NAN))
                .collect();
            if spec.dimensions < FULL_WIDTH {
                normalise(&mut vector);
            }
            vector
        });
        Ok(Parsed {
            vectors: vectors.collect(),
            tokens: answer.usage_metadata.and_then(|usage| usage.prompt_token_count),
        })
    }

    fn reject(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Failure {
        let complaint = Complaint::read(body);
        let details = Details::read(body);
        match rejection::failure(status, headers, &complaint) {
            // A bad key is a 400 here, as is a country that isn't served.
            Failure::Rejected { message } if details.key_is_bad || complaint.has_code(&["FAILED_PRECONDITION"]) => {
                Failure::Misconfigured { message }
            }
            // Until midnight in California, or until somebody pays.
            Failure::RateLimited { message, .. } if details.day_is_spent => Failure::Misconfigured { message },
            Failure::RateLimited {
                retry_after: None,
                message,
            } => Failure::RateLimited {
                retry_after: details.retry_delay.as_deref().and_then(rejection::span),
                message,
            },
            failure => failure,
        }
    }

    #[cfg(test)]
    fn recorded(&self) -> &'static str {
        include_str!("gemini/answers.json")
    }
}

/// What stands in an error's `details`, each entry of another type.
#[derive(Default)]
struct Details {
    /// `ErrorInfo`.
    key_is_bad: bool,
    /// `QuotaFailure`: its `quotaId` is like `EmbedContentRequestsPerDayPerProjectPerModel-FreeTier`.
    day_is_spent: bool,
    /// `RetryInfo`: `59s`.
    retry_delay: Option<String>,
}

impl Details {
    fn read(body: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            return Self::default();
        };
        let value = value.get(0).unwrap_or(&value);
        let entries = value.pointer("/error/details").and_then(Value::as_array);
        let mut found = Self::default();
        for entry in entries.into_iter().flatten() {
            found.key_is_bad |= entry["reason"] == "API_KEY_INVALID";
            let violations = entry["violations"].as_array().into_iter().flatten();
            found.day_is_spent |= violations
                .filter_map(|violation| violation["quotaId"].as_str())
                .any(|quota| quota.contains("PerDay"));
            if let Some(delay) = entry["retryDelay"].as_str() {
                found.retry_delay = Some(delay.to_owned());
            }
        }
        found
    }
}

/// `gemini-embedding-2` is told its task in the text, the ones before it by `taskType`.
fn takes_prefixes(spec: &SpaceSpec) -> bool {
    bare_name(spec).starts_with("gemini-embedding-2")
}

fn bare_name(spec: &SpaceSpec) -> &str {
    spec.model.strip_prefix("models/").unwrap_or(&spec.model)
}

/// Leaves alone what has no length: the sender's checks tell.
fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length.is_finite() && length > 0.0 {
        vector.iter_mut().for_each(|value| *value /= length);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use cronvec_nouns::space::ProviderKind;

    fn spec(model: &str, dimensions: u16) -> SpaceSpec {
        SpaceSpec {
            provider: ProviderKind::Gemini,
            model: model.to_owned(),
            dimensions,
            chunk_tokens: 512,
            chunk_overlap: 0,
            document_prefix: String::new(),
            query_prefix: String::new(),
        }
    }

    #[test]
    fn a_request_has_a_part_for_each_text_with_its_task_and_width() {
        let call = Gemini.request(
            &spec("models/gemini-embedding-001", 768),
            Purpose::Query,
            &["a", "b"],
            false,
        );
        assert_eq!(call.path, "v1beta/models/gemini-embedding-001:batchEmbedContents");
        let body: Value = serde_json::from_slice(&call.body).unwrap();
        let part = |text| {
            json!({"model": "models/gemini-embedding-001", "content": {"parts": [{"text": text}]},
                "taskType": "RETRIEVAL_QUERY", "outputDimensionality": 768})
        };
        assert_eq!(body, json!({"requests": [part("a"), part("b")]}));
    }

    #[test]
    fn the_second_generation_gets_no_task_type() {
        let spec = spec("gemini-embedding-2", 3072);
        let call = Gemini.request(&spec, Purpose::Document, &["a"], false);
        let body: Value = serde_json::from_slice(&call.body).unwrap();
        assert!(body["requests"][0].get("taskType").is_none());
        assert_eq!(Gemini.limits(&spec).window, 8_192);
    }

    #[test]
    fn narrow_vectors_are_given_unit_length_and_full_ones_are_left() {
        let body = br#"{"embeddings":[{"values":[3,4]}],"usageMetadata":{"promptTokenCount":9}}"#;
        let parsed = |width| Gemini.parse(&spec("gemini-embedding-001", width), body, 1).unwrap();
        assert_eq!(parsed(2).vectors, [[0.6, 0.8]]);
        assert_eq!(parsed(3072).vectors, [[3.0, 4.0]]);
        assert_eq!(parsed(2).tokens, Some(9));
    }
}
