//! Owns a histogram of durations: how many fell into each bucket, and their sum. Refuses to know what they are of.

use std::collections::BTreeMap;
use std::time::Duration;

/// The upper bound, in ms, of the bucket that a duration falls into: the next power of √2.
pub fn bucket_of(ms: f64) -> f64 {
    let step = (ms.max(1.0).log2() * 2.0).ceil();
    (step / 2.0).exp2().round()
}

/// Durations by bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Upper bounds in ms, and how many lie up to each and above the one before.
    pub buckets: BTreeMap<u64, u64>,
    pub sum: Duration,
}

impl Histogram {
    pub fn note(&mut self, duration: Duration) {
        let bound = bucket_of(duration.as_secs_f64() * 1000.0);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number of at least 1"
        )]
        let bound = bound as u64;
        *self.buckets.entry(bound).or_default() += 1;
        self.sum += duration;
    }

    pub fn add(&mut self, other: &Self) {
        for (bound, count) in &other.buckets {
            *self.buckets.entry(*bound).or_default() += count;
        }
        self.sum += other.sum;
    }

    pub fn count(&self) -> u64 {
        self.buckets.values().sum()
    }

    /// How many took at most so long. Exact where that is a power of two.
    pub fn up_to(&self, ms: u64) -> u64 {
        self.buckets.range(..=ms).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_bucket_that_holds_it() {
        for ms in [0.2, 1.0, 7.0, 100.0, 4096.0, 30_000.0] {
            let bound = bucket_of(ms);
            assert!(
                bound >= ms.max(1.0).floor() && bound <= ms.max(1.0) * 1.5 + 1.0,
                "{ms}: {bound}"
            );
        }
    }

    #[test]
    fn what_took_at_most_a_power_of_two_is_counted_exactly() {
        let mut histogram = Histogram::default();
        for ms in [3, 4, 5, 8, 9, 100, 128, 129] {
            histogram.note(Duration::from_millis(ms));
        }
        let counted: Vec<u64> = [2, 4, 8, 16, 128, 256].map(|ms| histogram.up_to(ms)).to_vec();
        assert_eq!(counted, [0, 2, 4, 5, 7, 8]);
        assert_eq!((histogram.count(), histogram.sum), (8, Duration::from_millis(386)));
        let mut twice = histogram.clone();
        twice.add(&histogram);
        assert_eq!((twice.up_to(8), twice.count()), (8, 16));
    }
}
