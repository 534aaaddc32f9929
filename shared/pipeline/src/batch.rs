//! Owns how inputs are put together into requests. Refuses to send them.

use cronvec_provider::Limits;

/// Collects inputs until one more would not fit.
pub(super) struct Packer<T> {
    limits: Limits,
    open: Vec<T>,
    tokens: usize,
    bytes: usize,
}

impl<T> Packer<T> {
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
    pub fn push(&mut self, input: T, (tokens, bytes): (usize, usize)) -> Option<Vec<T>> {
        let fits = self.tokens + tokens <= self.limits.tokens && self.bytes + bytes <= self.limits.bytes;
        // The sums begin anew with a flush.
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
    pub fn flush(&mut self) -> Option<Vec<T>> {
        self.tokens = 0;
        self.bytes = 0;
        let batch = std::mem::take(&mut self.open);
        (!batch.is_empty()).then_some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches of inputs that are each so large, in tokens and bytes.
    fn batches(limits: Limits, sizes: &[(usize, usize)]) -> Vec<usize> {
        let mut packer = Packer::new(limits, 25);
        let mut batches: Vec<usize> = Vec::new();
        for size in sizes {
            batches.extend(packer.push((), *size).map(|batch| batch.len()));
        }
        batches.extend(packer.flush().map(|batch| batch.len()));
        batches
    }

    const WIDE: Limits = Limits {
        inputs: 1_000,
        tokens: 1_000,
        bytes: 1_000,
        window: 1_000,
    };

    #[test]
    fn a_batch_ends_before_the_input_that_would_be_too_many_tokens_or_bytes() {
        assert_eq!(batches(WIDE, &[(400, 1), (400, 1), (400, 1)]), [2, 1]);
        assert_eq!(batches(WIDE, &[(1, 400), (1, 400), (1, 400)]), [2, 1]);
        assert_eq!(batches(WIDE, &[(500, 500), (500, 500)]), [2], "all of it may be used");
    }

    #[test]
    fn a_batch_has_no_more_inputs_than_the_setting_and_the_provider_allow() {
        assert_eq!(batches(WIDE, &[(1, 1); 60]), [25, 25, 10]);
        let few = Limits { inputs: 10, ..WIDE };
        assert_eq!(batches(few, &[(1, 1); 25]), [10, 10, 5]);
    }

    #[test]
    fn an_input_that_is_too_large_by_itself_goes_alone() {
        assert_eq!(batches(WIDE, &[(1, 1), (5_000, 1), (1, 1)]), [1, 1, 1]);
    }
}
