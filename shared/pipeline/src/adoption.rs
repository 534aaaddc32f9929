//! Owns the judgement whether vectors that a table has already are its model's: some of their texts are embedded, and the
//! vectors compared. Refuses to read the table and to store anything.

use serde::Serialize;

use super::batch::Packer;
use cronvec_nouns::chunk;
use cronvec_provider::{Failure, Provider, Purpose, Timeout};
use cronvec_store::sources::Sampled;

/// Vectors that are compared.
pub const COMPARED: usize = 20;
/// The same model gives the same text nearly the same vector: 0.999 and more, also in half precision. Another one, another
/// prefix or half of the text is far below.
pub const ALIKE: f64 = 0.98;
/// Texts change, and some vectors are of former ones. With more than every fourth unlike, it is no accident any more.
const UNLIKE_ONE_IN: usize = 4;

/// What the comparison came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdoptionCheck {
    /// Vectors that were compared with what the provider makes of their texts now.
    pub compared: usize,
    /// Those among them whose cosine is below [`ALIKE`].
    pub unlike: usize,
    pub median_cosine: f64,
    pub lowest_cosine: f64,
    /// Texts that were looked at.
    pub texts: usize,
    /// Those among them that are longer than a chunk: their one vector stands where several would be made.
    pub longer_than_a_chunk: usize,
    /// Of a chunk.
    pub chunk_tokens: usize,
}

impl AdoptionCheck {
    /// They are another model's, or made of other texts.
    pub fn is_refused(&self) -> bool {
        self.unlike * UNLIKE_ONE_IN > self.compared
    }
}

/// Embeds the first texts of a sample and compares. `Err`: the provider gave no vector, so nobody knows.
///
/// Each text is sent whole, as whoever made the vectors has most likely done; those that the model can't read are left out.
pub async fn check_adoption(
    provider: &Provider,
    sample: &[Sampled],
    batch_size: usize,
) -> Result<AdoptionCheck, Failure> {
    let rules = provider.chunk_rules();
    let count = |text: &str| provider.count_tokens(text);
    let fits = |sampled: &&Sampled| {
        sampled
            .text
            .as_ref()
            .is_some_and(|text| chunk::fits(text, rules, &count))
    };
    let short = sample.iter().filter(fits).count();
    let readable = sample.iter().filter_map(|sampled| {
        let text = sampled.text.as_deref()?.trim();
        let (tokens, _) = provider.size_in_request(text);
        (tokens <= provider.limits().window).then_some((text, sampled.vector.as_slice()))
    });
    let mut packer = Packer::new(provider.limits(), batch_size);
    let mut batches = Vec::new();
    for (text, vector) in readable.take(COMPARED) {
        batches.extend(packer.push((text, vector), provider.size_in_request(text)));
    }
    batches.extend(packer.flush());
    let mut cosines = Vec::new();
    let mut refused = None;
    for batch in batches {
        match embed(provider, &batch).await {
            Ok(some) => cosines.extend(some),
            // One text may be at fault.
            Err(Failure::Rejected { .. } | Failure::TooLong { .. }) if batch.len() > 1 => {
                for one in batch.chunks(1) {
                    match embed(provider, one).await {
                        Ok(some) => cosines.extend(some),
                        Err(failure @ (Failure::Rejected { .. } | Failure::TooLong { .. })) => refused = Some(failure),
                        Err(failure) => return Err(failure),
                    }
                }
            }
            Err(failure) => return Err(failure),
        }
    }
    match refused {
        Some(failure) if cosines.is_empty() => Err(failure),
        _ => Ok(AdoptionCheck {
            texts: sample.len(),
            longer_than_a_chunk: sample.len() - short,
            chunk_tokens: rules.tokens,
            ..of_cosines(cosines)
        }),
    }
}

fn of_cosines(mut cosines: Vec<f64>) -> AdoptionCheck {
    cosines.sort_by(f64::total_cmp);
    let middle = cosines.len() / 2;
    let at = |place: usize| cosines.get(place).copied().unwrap_or_default();
    let median = match cosines.len() % 2 {
        0 if middle > 0 => f64::midpoint(at(middle - 1), at(middle)),
        _ => at(middle),
    };
    AdoptionCheck {
        compared: cosines.len(),
        unlike: cosines.iter().filter(|cosine| **cosine < ALIKE).count(),
        median_cosine: rounded(median),
        lowest_cosine: rounded(at(0)),
        texts: 0,
        longer_than_a_chunk: 0,
        chunk_tokens: 0,
    }
}

/// Of the texts that the provider has a vector for.
async fn embed(provider: &Provider, batch: &[(&str, &[f32])]) -> Result<Vec<f64>, Failure> {
    let texts: Vec<&str> = batch.iter().map(|(text, _)| *text).collect();
    let timeout = Timeout {
        limit: provider.request_timeout(),
        ours: false,
    };
    let answer = provider.embed(&texts, Purpose::Document, timeout).await?;
    let pairs = answer.vectors.into_iter().zip(batch);
    Ok(pairs
        .filter_map(|(made, (_, there))| Some(cosine(&made.ok()?, there)))
        .collect())
}

/// Vectors of two widths have nothing in common.
fn cosine(one: &[f32], other: &[f32]) -> f64 {
    if one.len() != other.len() {
        return 0.0;
    }
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = (dot(one, one) * dot(other, other)).sqrt();
    if lengths > 0.0 { dot(one, other) / lengths } else { 0.0 }
}

fn rounded(cosine: f64) -> f64 {
    (cosine * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_vectors_may_be_of_former_texts_and_no_more() {
        let check = |right: usize, wrong: usize| {
            let cosines = [vec![1.0; right], vec![0.3; wrong]].concat();
            of_cosines(cosines).is_refused()
        };
        assert!(!check(20, 0) && !check(15, 5) && !check(3, 1) && !check(1, 0));
        assert!(check(14, 6) && check(2, 1) && check(0, 1) && check(0, 20));
        assert!(!check(0, 0), "where there is nothing nothing is wrong");
    }

    #[test]
    fn the_median_and_the_lowest_are_told() {
        let check = of_cosines(vec![0.5, 1.0, 0.99, 0.98]);
        assert_eq!(
            (check.median_cosine, check.lowest_cosine, check.unlike),
            (0.985, 0.5, 1)
        );
        assert!((of_cosines(vec![0.1, 0.9, 0.2]).median_cosine - 0.2).abs() < 1e-9);
    }

    #[test]
    fn a_cosine_is_of_directions_and_of_one_width() {
        assert!((cosine(&[3.0, 4.0], &[6.0, 8.0]) - 1.0).abs() < 1e-9);
        assert!(cosine(&[1.0, 0.0], &[0.0, 2.0]).abs() < 1e-9);
        assert!(cosine(&[1.0], &[1.0, 0.0]).abs() < 1e-9);
        assert!(cosine(&[0.0], &[1.0]).abs() < 1e-9);
    }
}
