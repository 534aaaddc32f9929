//! Owns how inputs are put together into requests. Refuses to send them.

use super::texts::Asking;
use crate::provider::Limits;

/// Collects inputs until one more would not fit.
pub(super) struct Packer {
    limits: Limits,
    open: Vec<Asking>,
    tokens: usize,
    bytes: usize,
}

impl Packer {
    /// `batch_size` bounds the inputs beside the provider's own limits.
    pub fn new(mut limits: Limits, batch_size: usize) -> Self {
        limits.inputs = limits.inputs.min(batch_size).max(1);
        Self {
            limits,
            open: Vec::new(),
            tokens: 0,
            bytes: 0,
        }
    }

    /// Adds an input; returns the batch that is full by it, or that it didn't fit into.
    pub fn push(&mut self, input: Asking, tokens: usize) -> Option<Vec<Asking>> {
        let bytes = input.content().len();
        let fits = self.tokens + tokens <= self.limits.tokens && self.bytes + bytes <= self.limits.bytes;
        let before = if fits { None } else { self.flush() };
        self.open.push(input);
        self.tokens += tokens;
        self.bytes += bytes;
        if before.is_none() && self.open.len() >= self.limits.inputs {
            self.flush()
        } else {
            before
        }
    }

    /// What has been collected.
    pub fn flush(&mut self) -> Option<Vec<Asking>> {
        self.tokens = 0;
        self.bytes = 0;
        let batch = std::mem::take(&mut self.open);
        (!batch.is_empty()).then_some(batch)
    }
}
