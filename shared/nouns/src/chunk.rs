//! Owns how a text is cut into chunks and how a text is named by its hash. Refuses to know whose tokens it counts.

use sha2::{Digest, Sha256};
use text_splitter::{ChunkConfig, ChunkSizer, TextSplitter};

/// The splitter sorts what is left of its text for every chunk, so its time is quadratic in what it is given. It
/// therefore gets windows of this many bytes for each token of a chunk: 30 chunks of English prose, which has 4
/// bytes a token. The last chunk of a window is cut twice.
const WINDOW_BYTES_PER_TOKEN: usize = 128;

/// However small the chunks, a window is no smaller.
const WINDOW_BYTES_AT_LEAST: usize = 1024;

/// How long a chunk may be, in tokens of whoever counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRules {
    /// A chunk has at most this many tokens; 0 is taken as 1.
    pub tokens: usize,
    /// Tokens that a chunk may repeat of the one before it; cut to less than `tokens`.
    pub overlap: usize,
}

impl ChunkRules {
    /// The same for smaller chunks: they repeat as large a part of each other.
    pub fn at_most(self, tokens: usize) -> Self {
        let tokens = tokens.clamp(1, self.tokens.max(1));
        Self {
            tokens,
            overlap: self.overlap.saturating_mul(tokens) / self.tokens.max(1),
        }
    }
}

/// Cuts `text` into chunks of at most `rules.tokens`, at the best boundaries that are near: paragraphs, lines,
/// sentences, words, characters.
///
/// Chunks are slices of `text` in its order, trimmed, and none is blank; a blank text has none. Without overlap
/// they cover everything but white space. A text that fits comes back as one chunk. Time is linear in the text.
///
/// `count` must never exceed a text's length in bytes (no tokenizer's does: a token has a byte at least). Only a single character that alone counts more than `rules.tokens` stands over it.
/// Where tokens are few and long (unbroken noise is one unknown token in an exact WordPiece count), a chunk ends
/// after 128 bytes for each of `rules.tokens`.
pub fn split<'a>(text: &'a str, rules: ChunkRules, count: &dyn Fn(&str) -> usize) -> Vec<&'a str> {
    let trimmed = text.trim();
    let tokens = rules.tokens.max(1);
    if trimmed.is_empty() {
        return Vec::new();
    }
    let counter = Counter { count, tokens };
    if fits(trimmed, rules, count) {
        return vec![trimmed];
    }
    let window_bytes = window_bytes(tokens);

    let config = ChunkConfig::new(tokens)
        .with_sizer(&counter)
        .with_overlap(rules.overlap.min(tokens - 1))
        .unwrap_or_else(|_| ChunkConfig::new(tokens).with_sizer(&counter));
    let splitter = TextSplitter::new(config);
    let mut chunks = Vec::new();
    let mut start = 0;
    loop {
        let end = window_end(trimmed, start, window_bytes);
        let window = &trimmed[start..end];
        let mut pieces: Vec<(usize, &str)> = splitter
            .chunk_indices(window)
            .filter(|(_, piece)| !piece.trim().is_empty())
            .collect();
        if end == trimmed.len() {
            push_all(&mut chunks, &pieces, &counter);
            return chunks;
        }
        // The last piece ends where the window does, not where the text would have it end: the next window cuts
        // it again, from its own start, which also keeps the overlap.
        let next = match pieces.len() {
            0 | 1 => end,
            _ => start + pieces.pop().map_or(window.len(), |(offset, _)| offset),
        };
        push_all(&mut chunks, &pieces, &counter);
        start = next;
    }
}

/// Whether a text is one chunk.
pub fn fits(text: &str, rules: ChunkRules, count: &dyn Fn(&str) -> usize) -> bool {
    let (trimmed, tokens) = (text.trim(), rules.tokens.max(1));
    trimmed.len() <= window_bytes(tokens) && Counter { count, tokens }.fits(trimmed)
}

fn window_bytes(tokens: usize) -> usize {
    tokens.saturating_mul(WINDOW_BYTES_PER_TOKEN).max(WINDOW_BYTES_AT_LEAST)
}

/// The SHA-256 of a text's UTF-8 bytes: what a text is known by.
pub fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

struct Counter<'c> {
    count: &'c dyn Fn(&str) -> usize,
    tokens: usize,
}

impl Counter<'_> {
    /// Counts only where the length in bytes doesn't settle it.
    fn fits(&self, text: &str) -> bool {
        text.len() <= self.tokens || (self.count)(text) <= self.tokens
    }
}

impl ChunkSizer for &Counter<'_> {
    fn size(&self, chunk: &str) -> usize {
        (self.count)(chunk)
    }
}

/// Where the window that begins at `start` ends: at white space in its last quarter, or else at a character.
fn window_end(text: &str, start: usize, window_bytes: usize) -> usize {
    let limit = start.saturating_add(window_bytes);
    if limit >= text.len() {
        return text.len();
    }
    let end = floor_boundary(text, limit);
    let from = floor_boundary(text, start + window_bytes / 4 * 3);
    match text[from..end].rfind(char::is_whitespace) {
        Some(offset) if from + offset > start => from + offset,
        _ => end,
    }
}

fn floor_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Keeps the promise about length whatever the splitter and the counter make of each other: a count need not grow
/// with the text (in WordPiece, a word that grows beyond 100 characters falls to one token).
fn push_all<'a>(chunks: &mut Vec<&'a str>, pieces: &[(usize, &'a str)], counter: &Counter<'_>) {
    for (_, piece) in pieces {
        let mut left = vec![*piece];
        while let Some(piece) = left.pop() {
            let piece = piece.trim();
            let middle = (1..=piece.len() / 2)
                .rev()
                .find(|at| piece.is_char_boundary(*at))
                .or_else(|| second(piece));
            match middle {
                _ if piece.is_empty() => {}
                Some(at) if !counter.fits(piece) => left.extend([&piece[at..], &piece[..at]]),
                _ => chunks.push(piece),
            }
        }
    }
}

/// Where the second character begins.
fn second(text: &str) -> Option<usize> {
    text.char_indices().nth(1).map(|(at, _)| at)
}

#[cfg(test)]
mod tests;
