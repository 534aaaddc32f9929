//! Owns vectors made from texts, and bodies made from vectors.

use std::fmt::Write;

use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The most inputs that OpenAI takes in one request.
pub const MOST_INPUTS: usize = 2048;

/// The vector of a text: the same each time, of unit length, unlike that of any other text.
pub fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let digest = Sha256::digest(text.as_bytes());
    let mut state = u64::from_le_bytes(digest[..8].try_into().expect("eight bytes")) | 1;
    let mut vector: Vec<f32> = (0..dimensions)
        .map(|_| {
            // xorshift64*: good enough to tell texts apart.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let bits = u16::try_from(state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 48).expect("sixteen bits");
            f32::from(bits) / 32768.0 - 1.0
        })
        .collect();
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= norm);
    vector
}

pub(super) fn body(vectors: &[(usize, Vec<f32>)], base64: bool, model: &str) -> String {
    let mut body = String::from(r#"{"object":"list","data":["#);
    for (place, (index, vector)) in vectors.iter().enumerate() {
        if place > 0 {
            body.push(',');
        }
        item(&mut body, *index, vector, base64);
    }
    let model = serde_json::to_string(model).expect("a string");
    let _ = write!(
        body,
        r#"],"model":{model},"usage":{{"prompt_tokens":1,"total_tokens":1}}}}"#
    );
    body
}

fn item(body: &mut String, index: usize, vector: &[f32], base64: bool) {
    let _ = write!(body, r#"{{"object":"embedding","index":{index},"embedding":"#);
    if base64 {
        let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        body.push('"');
        STANDARD.encode_string(bytes, body);
        body.push('"');
    } else {
        // Floats as text; a NaN is no JSON, which is what a careless provider sends.
        let floats: Vec<String> = vector.iter().map(f32::to_string).collect();
        let _ = write!(body, "[{}]", floats.join(","));
    }
    body.push('}');
}

/// A body for the most inputs at once, of which any shorter one is a beginning.
pub(super) struct Prepared {
    items: Bytes,
    /// Where the n-th item ends.
    ends: Vec<usize>,
}

impl Prepared {
    pub fn new(dimensions: usize) -> Self {
        let mut items = String::new();
        let mut ends = vec![0];
        for index in 0..MOST_INPUTS {
            if index > 0 {
                items.push(',');
            }
            item(&mut items, index, &vector(&index.to_string(), dimensions), true);
            ends.push(items.len());
        }
        Self {
            items: items.into(),
            ends,
        }
    }

    /// The body's pieces; none is copied.
    pub fn body(&self, inputs: usize) -> [Bytes; 3] {
        [
            Bytes::from_static(br#"{"object":"list","data":["#),
            self.items.slice(..self.ends[inputs.min(MOST_INPUTS)]),
            Bytes::from_static(br#"],"model":"instant","usage":{"prompt_tokens":1,"total_tokens":1}}"#),
        ]
    }
}
