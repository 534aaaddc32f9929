//! Owns the shapes of requests and answers that providers have, by the path that is asked.

use serde::Deserialize;
use serde_json::json;

use super::vectors;

/// Whose shape a request has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dialect {
    OpenAi,
    Ollama,
    Gemini,
}

/// What is asked for, whatever the shape.
pub(super) struct Asked {
    pub model: String,
    pub inputs: Vec<String>,
    pub base64: bool,
    pub dimensions: Option<usize>,
}

/// OpenAI's, and Ollama's.
#[derive(Deserialize)]
struct Flat {
    #[serde(default)]
    model: String,
    input: Input,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Batch {
    requests: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    model: String,
    content: Content,
    output_dimensionality: Option<usize>,
}

#[derive(Deserialize)]
struct Content {
    parts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

impl Dialect {
    /// `None` for what the provider wouldn't understand.
    pub fn read(self, body: &[u8]) -> Option<Asked> {
        match self {
            Self::OpenAi | Self::Ollama => {
                let flat: Flat = serde_json::from_slice(body).ok()?;
                Some(Asked {
                    model: flat.model,
                    inputs: match flat.input {
                        Input::One(text) => vec![text],
                        Input::Many(texts) => texts,
                    },
                    base64: flat.encoding_format.as_deref() == Some("base64"),
                    dimensions: flat.dimensions,
                })
            }
            Self::Gemini => {
                let batch: Batch = serde_json::from_slice(body).ok()?;
                let first = batch.requests.first()?;
                Some(Asked {
                    model: first.model.clone(),
                    base64: false,
                    dimensions: first.output_dimensionality,
                    inputs: batch
                        .requests
                        .into_iter()
                        .map(|part| part.content.parts.into_iter().map(|part| part.text).collect())
                        .collect(),
                })
            }
        }
    }

    pub fn write(self, vectors: &[(usize, Vec<f32>)], base64: bool, model: &str) -> String {
        let in_order = vectors.iter().map(|(_, vector)| vector);
        match self {
            Self::OpenAi => vectors::body(vectors, base64, model),
            // A NaN becomes a null.
            Self::Ollama => {
                json!({"model": model, "embeddings": in_order.collect::<Vec<_>>(), "prompt_eval_count": 1}).to_string()
            }
            Self::Gemini => {
                let embeddings: Vec<_> = in_order.map(|vector| json!({ "values": vector })).collect();
                json!({ "embeddings": embeddings }).to_string()
            }
        }
    }
}
