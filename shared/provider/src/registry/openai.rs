//! Owns the wire format of OpenAI's `/embeddings`, which many servers speak. Refuses to send it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use reqwest::header::HeaderMap;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::open_models;
use crate::registry::Asked;
use crate::rejection::{self, Complaint};
use crate::wire::{Call, Form, Parsed, Wire, bad, unreadable};
use crate::{Failure, Limits, Purpose};
use cronvec_nouns::space::SpaceSpec;

pub(super) const ASKED: Asked = Asked::Http(&OpenAi);

/// OpenAI itself, and OpenRouter, LM Studio, vLLM and others of its shape.
#[derive(Clone, Copy, Debug)]
pub struct OpenAi;

/// OpenAI's API reference: an array of inputs has at most 2,048.
const INPUTS: usize = 2_048;
/// OpenAI's API reference: the inputs of a request have at most 300,000 tokens; beyond, it answers 400 with
/// `max_tokens_per_request`. It counts by an estimate of a token for 4 bytes, which ours never falls below.
const TOKENS: usize = 300_000;
/// Mistral's models, of OpenAI's shape: inputs and tokens of a request as clients keep to them; Mistral states neither.
const MISTRAL: (usize, usize) = (128, 16_000);
/// Voyage's: 1,000 inputs, and 120,000 tokens for the models that take least.
const VOYAGE: (usize, usize) = (1_000, 120_000);
/// Ours, for memory: more than 300,000 estimated tokens have.
const BYTES: usize = 1 << 20;
/// OpenAI's embedding guide: 8,192 tokens for each of its models.
const WINDOW: usize = 8_192;
/// Models of others: the window of BERT's descendants, unless the space says more.
const WINDOW_ELSEWHERE: usize = 512;

/// Refusals that only a person can mend, whatever their status: `insufficient_quota` comes as a 429, and waiting
/// doesn't bring the money.
const FOR_A_PERSON: [&str; 6] = [
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "invalid_api_key",
    "account_deactivated",
    "model_not_found",
];

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    input: &'a [&'a str],
    /// Base64 has a third of the bytes of floats as text; servers that don't know it answer with floats, or refuse it.
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding_format: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u16>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    data: Option<Vec<Item<'a>>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(default, deserialize_with = "number")]
    index: Option<usize>,
    /// Left as it stands: it is nearly all of the body, and is looked at once.
    #[serde(borrow)]
    embedding: &'a RawValue,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    total_tokens: Option<u64>,
}

impl Wire for OpenAi {
    fn limits(&self, spec: &SpaceSpec) -> Limits {
        let model = open_models::base_name(&spec.model);
        let (inputs, tokens) = match model.as_str() {
            model if model.starts_with("mistral-embed") => MISTRAL,
            model if model.starts_with("voyage-") => VOYAGE,
            _ => (INPUTS, TOKENS),
        };
        let window = match model.as_str() {
            model if model.starts_with("text-embedding-") => WINDOW,
            _ => WINDOW_ELSEWHERE.max(spec.chunk_tokens as usize),
        };
        Limits {
            inputs,
            tokens,
            bytes: BYTES,
            window,
        }
    }

    fn request(&self, spec: &SpaceSpec, _purpose: Purpose, inputs: &[&str], plain: bool) -> Call {
        let request = Request {
            model: &spec.model,
            input: inputs,
            encoding_format: (!plain).then_some("base64"),
            dimensions: takes_dimensions(spec).then_some(spec.dimensions),
        };
        Call::json("embeddings", &request)
    }

    /// LiteLLM in front of Bedrock, with 400 or 500 (litellm#38661); FastAPI's names the field in `loc` alone.
    fn form(&self, failure: &Failure, status: u16, body: &[u8]) -> Form {
        let said = || String::from_utf8_lossy(body).to_ascii_lowercase();
        match failure {
            Failure::Rejected { .. }
            | Failure::Unavailable { .. }
            | Failure::Misconfigured { .. }
            | Failure::BadAnswer { .. }
                if ["encoding_format", "encoding format", "base64"]
                    .iter()
                    .any(|word| said().contains(word)) =>
            {
                Form::Refused
            }
            Failure::Rejected { .. } => Form::Unclear,
            Failure::Unavailable { .. } if matches!(status, 500 | 501) => Form::Unclear,
            _ => Form::Fine,
        }
    }

    fn parse(&self, spec: &SpaceSpec, body: &[u8], expected: usize) -> Result<Parsed, Failure> {
        let answer: Body<'_> = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
        let Some(data) = answer.data else {
            return Err(without_data(answer.error, body));
        };
        if data.len() != expected {
            return Err(bad(format!("{} vectors for {expected} inputs", data.len())));
        }
        let unnumbered = data.iter().all(|item| item.index.is_none());
        // Protocol buffers leave a 0 out when they are written as JSON: Google's endpoint of this shape (spring-ai#7020).
        let first = (data.iter().filter(|item| item.index.is_none()).count() == 1).then_some(0);
        // Others count from 1.
        let least = usize::from(data.iter().all(|item| item.index >= Some(1)));
        let mut vectors: Vec<Option<Vec<f32>>> = vec![None; expected];
        let mut bytes = Vec::new();
        for (position, item) in data.iter().enumerate() {
            // Servers that number nothing answer in order.
            let index = if unnumbered {
                Some(position)
            } else {
                item.index.or(first).map(|index| index - least)
            };
            let slot = index
                .and_then(|index| vectors.get_mut(index))
                .ok_or_else(|| bad("a vector without an index that belongs to an input"))?;
            let vector = decode(item.embedding, usize::from(spec.dimensions), &mut bytes)?;
            if slot.replace(vector).is_some() {
                return Err(bad("two vectors with the same index"));
            }
        }
        let usage = answer
            .usage
            .and_then(|raw| serde_json::from_str::<Usage>(raw.get()).ok());
        Ok(Parsed {
            // As many as there are inputs, and no index twice: all are filled.
            vectors: vectors.into_iter().flatten().collect(),
            tokens: usage.and_then(|usage| usage.prompt_tokens.or(usage.total_tokens)),
        })
    }

    fn reject(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Failure {
        judge(status, headers, &Complaint::read(body))
    }

    fn about_width(&self, spec: &SpaceSpec) -> &'static str {
        match takes_dimensions(spec) {
            true => "",
            false => "; another width is asked only of models whose names are known",
        }
    }

    #[cfg(test)]
    fn recorded(&self) -> &'static str {
        include_str!("openai/answers.json")
    }
}

/// An index, also one that is written as text.
fn number<'de, D: Deserializer<'de>>(value: D) -> Result<Option<usize>, D::Error> {
    let written = Option::<&RawValue>::deserialize(value)?;
    Ok(written.and_then(|written| written.get().trim_matches('"').parse().ok()))
}

/// What works today where a server wants what no request of ours has, or not what it has.
const ADVICE: [(&str, &str); 2] = [
    (
        "input_type",
        "cronvec sends none: put a gateway between that adds it, as LiteLLM does, or take a model that needs none",
    ),
    (
        "matryoshka",
        "make the project with EMBEDDING_DIMENSIONS as the model's own width",
    ),
];

fn advise(message: String) -> String {
    let said = message.to_ascii_lowercase();
    match ADVICE.iter().find(|(word, _)| said.contains(word)) {
        Some((_, advice)) => format!("{message} ({advice})"),
        None => message,
    }
}

fn judge(status: u16, headers: &HeaderMap, complaint: &Complaint) -> Failure {
    match rejection::failure(status, headers, complaint) {
        Failure::RateLimited { message, .. } | Failure::Rejected { message } if complaint.has_code(&FOR_A_PERSON) => {
            Failure::Misconfigured { message }
        }
        Failure::Rejected { message } => Failure::Rejected {
            message: advise(message),
        },
        failure => failure,
    }
}

/// A 200 whose body is an error: OpenRouter's way of passing on what a server behind it said.
fn without_data(error: Option<&RawValue>, body: &[u8]) -> Failure {
    if error.is_none() {
        return bad("no `data`");
    }
    let complaint = Complaint::read(body);
    let status = complaint
        .codes
        .iter()
        .find_map(|code| code.parse().ok().filter(|status| (300..600).contains(status)));
    match status {
        Some(status) => judge(status, &HeaderMap::new(), &complaint),
        None => bad(format!("an error with status 200: {}", complaint.message)),
    }
}

/// One vector, as base64 of little-endian `f32` or as an array of numbers. `bytes` is reused from one to the next.
fn decode(raw: &RawValue, dimensions: usize, bytes: &mut Vec<u8>) -> Result<Vec<f32>, Failure> {
    let text = raw.get();
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let Some(quoted) = quoted else {
        // `null` is how JSON writers spell NaN.
        let numbers: Vec<Option<f32>> = serde_json::from_str(text).map_err(|_| bad("an embedding is no vector"))?;
        return Ok(numbers.into_iter().map(|number| number.unwrap_or(f32::NAN)).collect());
    };
    // Some JSON writers escape every slash.
    let encoded: Cow<'_, str> = match quoted.contains('\\') {
        true => Cow::Owned(serde_json::from_str(text).map_err(|_| bad("an embedding is no vector"))?),
        false => Cow::Borrowed(quoted),
    };
    let room = base64::decoded_len_estimate(encoded.len());
    if bytes.len() < room {
        bytes.resize(room.max(dimensions * 4), 0);
    }
    let length = BASE64
        .decode_slice(encoded.as_bytes(), bytes)
        .map_err(|_| bad("an embedding is no base64 of a vector"))?;
    let (floats, rest) = bytes[..length].as_chunks::<4>();
    if !rest.is_empty() {
        return Err(bad(format!(
            "an embedding of {length} bytes, which is no number of floats"
        )));
    }
    Ok(floats.iter().map(|float| f32::from_le_bytes(*float)).collect())
}

/// Whether to send `dimensions`: servers refuse it for models of one width.
///
/// OpenAI's reference: `text-embedding-3` and later take it, so they always get it. A model of others gets it when
/// the space is narrower than the model's own width *and* its card says that its vectors may be cut. Any other
/// model answers as wide as it is, and the sender's check of the width tells.
fn takes_dimensions(spec: &SpaceSpec) -> bool {
    let model = open_models::base_name(&spec.model);
    model.starts_with("text-embedding-3-")
        || open_models::own_width(&model).is_some_and(|width| spec.dimensions < width)
}

#[cfg(test)]
mod tests;
