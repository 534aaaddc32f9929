//! Owns the exact and fast count of a WordPiece tokenizer's tokens. Refuses to produce them.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tokenizers::Tokenizer;

/// Counts as BERT's tokenizer does: ASCII by a loop of our own, anything else by the `tokenizers` crate, one stretch
/// without white space at a time, which is where BERT always cuts.
pub struct WordPieces {
    /// The tokenizer's file; the crate's own form of it is built when the first text that isn't ASCII comes.
    file: &'static [u8],
    /// Pieces that may begin a word.
    first: HashSet<String>,
    /// Pieces that may continue one, without `##`.
    later: HashSet<String>,
    /// Bytes of the longest piece.
    longest: usize,
    crate_form: OnceLock<Option<Tokenizer>>,
}

/// BERT's: a word of more characters is one unknown token.
const LONGEST_WORD: usize = 100;

#[derive(Deserialize)]
struct File {
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    /// The pieces; their numbers don't matter here.
    vocab: HashMap<String, IgnoredAny>,
}

impl WordPieces {
    /// Reads `tokenizer.json` of a BERT normalizer, BERT pre-tokenizer and WordPiece model.
    pub fn load(file: &'static [u8]) -> Result<Self, String> {
        let parsed: File = serde_json::from_slice(file).map_err(|error| error.to_string())?;
        let (mut first, mut later, mut longest) = (HashSet::new(), HashSet::new(), 0);
        for piece in parsed.model.vocab.into_keys() {
            longest = longest.max(piece.len());
            match piece.strip_prefix("##") {
                Some(rest) => later.insert(rest.to_owned()),
                None => first.insert(piece),
            };
        }
        Ok(Self {
            file,
            first,
            later,
            longest,
            crate_form: OnceLock::new(),
        })
    }

    /// Tokens of `text`, unknown words counting as one each.
    pub fn count(&self, text: &str) -> usize {
        let stretches = text.split(|c: char| c.is_ascii_whitespace());
        stretches
            .map(|stretch| {
                if plain(stretch) {
                    self.ascii(stretch)
                } else {
                    self.other(stretch)
                }
            })
            .sum()
    }

    fn ascii(&self, stretch: &str) -> usize {
        let mut lower = [0; LONGEST_WORD];
        let mut tokens = 0;
        let mut rest = stretch.as_bytes();
        while let Some(byte) = rest.first() {
            let letters = rest.iter().take_while(|byte| !byte.is_ascii_punctuation()).count();
            if letters == 0 {
                // Punctuation stands alone, known or not.
                debug_assert!(byte.is_ascii_punctuation());
                tokens += 1;
                rest = &rest[1..];
                continue;
            }
            let (word, after) = rest.split_at(letters);
            rest = after;
            tokens += match lower.get_mut(..word.len()) {
                Some(lower) => {
                    lower.copy_from_slice(word);
                    lower.make_ascii_lowercase();
                    std::str::from_utf8(lower).map_or(1, |word| self.pieces(word))
                }
                None => 1,
            };
        }
        tokens
    }

    /// Longest match first; a rest that nothing matches makes the whole word one unknown token.
    fn pieces(&self, word: &str) -> usize {
        let (mut start, mut tokens) = (0, 0);
        while start < word.len() {
            let known = if start == 0 { &self.first } else { &self.later };
            let longest = word.len().min(start + self.longest);
            match (start + 1..=longest)
                .rev()
                .find(|end| known.contains(&word[start..*end]))
            {
                Some(end) => start = end,
                None => return 1,
            }
            tokens += 1;
        }
        tokens
    }

    fn other(&self, stretch: &str) -> usize {
        let form = self.crate_form.get_or_init(|| Tokenizer::from_bytes(self.file).ok());
        // Without it, a token for each byte: never too few.
        let encoding = form.as_ref().and_then(|form| form.encode_fast(stretch, false).ok());
        encoding.map_or(stretch.len(), |encoding| encoding.len())
    }
}

/// ASCII that the normalizer only lowers: no control characters, which it drops, and no name of a special token.
fn plain(stretch: &str) -> bool {
    stretch.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'[')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_tokenizers_crate() {
        static FILE: &[u8] = include_bytes!("../models/minilm-static-256/tokenizer.json");
        let ours = WordPieces::load(FILE).unwrap();
        let theirs = Tokenizer::from_bytes(FILE).unwrap();
        let long = "antidisestablishmentarianism".repeat(4);
        for text in [
            "",
            " \t\r\n ",
            "The quick brown fox jumps over the lazy dog.",
            "libfoo-dev (>= 1.2.3~rc1), http://example.org/~x?y=z&w=[UNK] [PAD]",
            "Ünïcödé naïve café e\u{301} STRASSE straße ﬁn",
            "漢字 仮名交じり文。한국어 ไทย निर्देश",
            "👩‍👩‍👧‍👦 🇩🇪 \u{200b} \u{a0}x\u{a0}y \u{7}bell del\u{7f}ete",
            "xqzjkvwpy zzzzzzzzzzzzzzzzzzz 0x7fffffffffffffff",
            &long,
            &"a".repeat(100),
            &"a".repeat(101),
            "a\u{b}b\u{c}c\u{85}d\u{2028}e",
        ] {
            assert_eq!(
                ours.count(text),
                theirs.encode_fast(text, false).unwrap().len(),
                "{text:?}"
            );
        }
    }
}
