//! Owns what a provider remembers of its requests.

use std::collections::HashMap;

/// All that a provider was asked, whatever it answered.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The inputs of each request, in the order of arrival.
    pub requests: Vec<Vec<String>>,
    /// How often each text was sent.
    pub counts: HashMap<String, usize>,
    /// The most requests that were ever open at once.
    pub most_open: usize,
    /// The bearer keys that were sent, one a request.
    pub keys: Vec<Option<String>>,
}

impl Log {
    /// How often this text was sent.
    pub fn count(&self, text: &str) -> usize {
        self.counts.get(text).copied().unwrap_or(0)
    }

    /// All inputs of all requests.
    pub fn inputs(&self) -> usize {
        self.requests.iter().map(Vec::len).sum()
    }

    pub(super) fn note(&mut self, inputs: &[String], key: Option<String>) {
        for input in inputs {
            *self.counts.entry(input.clone()).or_default() += 1;
        }
        self.requests.push(inputs.to_vec());
        self.keys.push(key);
    }
}
