//! Owns texts to measure with: seeded, of lengths like those of real descriptions.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SYLLABLES: [&str; 24] = [
    "ta", "ri", "mo", "lek", "sun", "par", "vi", "don", "el", "ka", "bri", "no", "fal", "tem", "qu", "ish", "or",
    "gan", "pel", "zu", "wer", "cho", "lin", "ab",
];

/// Texts of 60 to 2,500 characters, half of them below 220.
pub fn texts(count: usize, seed: u64) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(seed);
    let words: Vec<String> = (0..4_000)
        .map(|_| {
            let syllables = random.random_range(1..=4);
            (0..syllables)
                .map(|_| SYLLABLES[random.random_range(0..SYLLABLES.len())])
                .collect()
        })
        .collect();
    (0..count)
        .map(|number| {
            let length = 60 + random.random_range(0..100_usize).pow(4) / 40_000;
            let mut text = format!("{number}");
            while text.len() < length {
                text.push(' ');
                text.push_str(&words[random.random_range(0..words.len())]);
            }
            text
        })
        .collect()
}
