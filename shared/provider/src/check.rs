//! Owns the checks that every provider's answer passes: count, width, finite, not zero. Refuses to know a wire format.

use super::registry;
use super::wire::Parsed;
use super::{Answer, Failure, InputFault};
use cronvec_nouns::space::SpaceSpec;

/// The checks of every answer, whoever gave it.
pub fn check(spec: &SpaceSpec, parsed: Parsed, expected: usize) -> Result<Answer, Failure> {
    let Parsed { vectors, tokens } = parsed;
    if vectors.len() != expected {
        return Err(Failure::BadAnswer {
            message: format!("{} vectors for {expected} inputs", vectors.len()),
        });
    }
    let width = usize::from(spec.dimensions);
    if let Some(other) = vectors
        .iter()
        .find(|vector| !vector.is_empty() && vector.len() != width)
    {
        let answered = other.len();
        let known = registry::wire(spec.provider).map_or("", |wire| wire.about_width(spec));
        return Err(Failure::Misconfigured {
            message: format!(
                "the model answers {answered} wide, the space is {width} wide and stays so: make a new project with \
                 EMBEDDING_DIMENSIONS={answered}, or let the server answer with the model that the space was made for{known}"
            ),
        });
    }
    let is_in_process = spec.provider.definition().server.is_none();
    let vectors: Vec<_> = vectors
        .into_iter()
        .map(|vector| usable(vector, is_in_process))
        .collect();
    match vectors.iter().find_map(|vector| vector.as_ref().err()) {
        // What a model in this process knows is no matter of the provider's health.
        Some(fault) if fault.reason == UNUSABLE && vectors.iter().all(Result::is_err) => Err(Failure::BadAnswer {
            message: format!("no usable vector for any of {expected} inputs: {}", fault.message),
        }),
        _ => Ok(Answer { vectors, tokens }),
    }
}

const UNUSABLE: &str = "unusable_answer";

fn usable(vector: Vec<f32>, is_in_process: bool) -> Result<Vec<f32>, InputFault> {
    let fault = |reason, message: &str| {
        Err(InputFault {
            reason,
            message: message.to_owned(),
        })
    };
    let square = squared_length(&vector);
    match () {
        () if vector.is_empty() => fault(UNUSABLE, "an empty vector"),
        () if !square.is_finite() => fault(UNUSABLE, "a vector that isn't finite"),
        // Cosine needs a direction; squares too small for `f32` are zero to pgvector as well.
        () if square <= 0.0 && is_in_process => fault("no_known_words", "the model knows no word of this text"),
        () if square <= 0.0 => fault(UNUSABLE, "a vector of zeros"),
        () => Ok(vector),
    }
}

/// In eight sums, so that the compiler may use wide registers; NaN and infinity go through to the result.
fn squared_length(vector: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (eights, rest) = vector.as_chunks::<8>();
    for eight in eights {
        for (sum, value) in sums.iter_mut().zip(eight) {
            *sum += value * value;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|value| value * value).sum::<f32>()
}
