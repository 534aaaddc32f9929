//! Owns what a model in this process is: the seam that adding one fills in. Refuses to know which there are.

use super::wire::Parsed;
use super::{Failure, Limits};

/// Below this many bytes of text (a millisecond or so) a request is worked where it stands.
const INLINE_BYTES: usize = 16 * 1024;

/// A model that runs in this process. It has one name and one width, those of its definition.
pub trait InProcess: Send + Sync {
    /// What one request may carry.
    fn limits(&self) -> Limits;

    /// Tokens of `text`, exactly as the model cuts it.
    fn count_tokens(&self, text: &str) -> usize;

    /// A vector for each text, in their order; one of which the model knows nothing gets zeros.
    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Failure>;
}

/// Embeds `inputs`. A large request moves to a blocking thread.
pub async fn embed(model: &'static dyn InProcess, name: &str, inputs: &[&str]) -> Result<Parsed, Failure> {
    let texts: Vec<String> = inputs.iter().map(|input| (*input).to_owned()).collect();
    let vectors = if texts.iter().map(String::len).sum::<usize>() <= INLINE_BYTES {
        model.embed(&texts)
    } else {
        let worked = tokio::task::spawn_blocking(move || model.embed(&texts)).await;
        worked.map_err(|error| Failure::Unavailable {
            retry_after: None,
            message: format!("the {name} model's thread ended: {error}"),
        })?
    }?;
    Ok(Parsed { vectors, tokens: None })
}
