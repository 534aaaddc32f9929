//! Owns the model that is compiled in: loading it, embedding with it, counting its tokens. Refuses to touch a network.

use std::sync::OnceLock;

use model2vec_rs::model::StaticModel;

use crate::in_process::InProcess;
use crate::word_pieces::WordPieces;
use crate::{Failure, Limits};

/// `minilm-static-256`.
pub struct MiniLm;

static TOKENIZER: &[u8] = include_bytes!("../../../models/minilm-static-256/tokenizer.json");
static TENSORS: &[u8] = include_bytes!("../../../models/minilm-static-256/model.safetensors");
static CONFIG: &[u8] = include_bytes!("../../../models/minilm-static-256/config.json");

impl InProcess for MiniLm {
    /// A mean of rows has no window; 512 is where its source was cut, and beyond it a mean says little.
    /// The others only bound a request's time: about 50 ms.
    fn limits(&self) -> Limits {
        Limits {
            inputs: 2_048,
            tokens: 300_000,
            bytes: 1 << 20,
            window: 512,
        }
    }

    fn count_tokens(&self, text: &str) -> usize {
        static PIECES: OnceLock<Result<WordPieces, String>> = OnceLock::new();
        match PIECES.get_or_init(|| WordPieces::load(TOKENIZER)) {
            Ok(pieces) => pieces.count(text),
            // Can't be with the files that are compiled in; a token for each byte is never too few.
            Err(_) => text.len(),
        }
    }

    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
        static LOADED: OnceLock<Result<StaticModel, String>> = OnceLock::new();
        let model = LOADED
            .get_or_init(|| {
                StaticModel::from_bytes(TOKENIZER, TENSORS, CONFIG, None).map_err(|error| format!("{error:#}"))
            })
            .as_ref()
            .map_err(|error| Failure::Misconfigured {
                message: format!("the static model can't be read: {error}"),
            })?;
        // Without a length of ours the model would cut at 512 tokens without a word. Chunks are bounded already.
        Ok(model.encode_with_args(texts, None, texts.len().max(1)))
    }
}

#[cfg(test)]
mod tests;
