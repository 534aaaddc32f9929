//! Owns the model that is compiled in: loading it, embedding with it, counting its tokens. Refuses to touch a network.

use std::sync::OnceLock;

use model2vec_rs::model::StaticModel;

use super::wire::Parsed;
use super::word_pieces::WordPieces;
use super::{Failure, Limits};

/// The model's name, and the only one that the `static` provider has.
pub const MODEL: &str = "minilm-static-256";
/// Its width.
pub const DIMENSIONS: u16 = 256;

static TOKENIZER: &[u8] = include_bytes!("../models/minilm-static-256/tokenizer.json");
static TENSORS: &[u8] = include_bytes!("../models/minilm-static-256/model.safetensors");
static CONFIG: &[u8] = include_bytes!("../models/minilm-static-256/config.json");

/// A mean of rows has no window; 512 is where its source was cut, and beyond it a mean says little.
/// The others only bound a request's time: about 50 ms.
pub const LIMITS: Limits = Limits {
    inputs: 2_048,
    tokens: 300_000,
    bytes: 1 << 20,
    window: 512,
};

/// Below this many bytes of text (a millisecond or so) a request is worked where it stands.
const INLINE_BYTES: usize = 16 * 1024;

/// Embeds `inputs`; one without any known word gets zeros. A large request moves to a blocking thread.
pub async fn embed(inputs: &[&str]) -> Result<Parsed, Failure> {
    let texts: Vec<String> = inputs.iter().map(|input| (*input).to_owned()).collect();
    let vectors = if texts.iter().map(String::len).sum::<usize>() <= INLINE_BYTES {
        encode(&texts)
    } else {
        let worked = tokio::task::spawn_blocking(move || encode(&texts)).await;
        worked.map_err(|error| Failure::Unavailable {
            retry_after: None,
            message: format!("the static model's thread ended: {error}"),
        })?
    }?;
    Ok(Parsed { vectors, tokens: None })
}

/// Tokens of `text`, exactly as the model cuts it.
pub fn count_tokens(text: &str) -> usize {
    static PIECES: OnceLock<Result<WordPieces, String>> = OnceLock::new();
    match PIECES.get_or_init(|| WordPieces::load(TOKENIZER)) {
        Ok(pieces) => pieces.count(text),
        // Can't be with the files that are compiled in; a token for each byte is never too few.
        Err(_) => text.len(),
    }
}

fn encode(texts: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
    static LOADED: OnceLock<Result<StaticModel, String>> = OnceLock::new();
    let model = LOADED
        .get_or_init(|| StaticModel::from_bytes(TOKENIZER, TENSORS, CONFIG, None).map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| Failure::Misconfigured {
            message: format!("the static model can't be read: {error}"),
        })?;
    // Without a length of ours the model would cut at 512 tokens without a word. Chunks are bounded already.
    Ok(model.encode_with_args(texts, None, texts.len().max(1)))
}

#[cfg(test)]
mod tests;
