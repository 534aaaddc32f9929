//! Owns how often a token may call. Refuses to know what is called. It counts in this process alone.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// So many are counted before those whose calls are long past are let go.
const COUNTED: usize = 10_000;

/// Whose calls are counted together. The page goes on while a program uses up the token that its session began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// Those that bear this token.
    Bearer(i32),
    /// Those of all sessions that began with this token.
    Sessions(i32),
}

/// Without a limit nothing is counted.
#[derive(Debug)]
pub struct Rate(Option<DefaultKeyedRateLimiter<Whose>>);

impl Rate {
    /// So many at once, and so many a minute; 0 is no limit.
    pub fn new(per_minute: u32) -> Self {
        Self(NonZeroU32::new(per_minute).map(|limit| RateLimiter::keyed(Quota::per_minute(limit))))
    }

    /// Counts a call, or says how long to wait before it.
    pub fn wait(&self, whose: Whose) -> Option<Duration> {
        let calls = self.0.as_ref()?;
        if calls.len() >= COUNTED {
            calls.retain_recent();
        }
        let refused = calls.check_key(&whose).err()?;
        Some(refused.wait_time_from(calls.clock().now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_no_longer_call_take_no_room() {
        // Each call is forgotten after 60 µs.
        let rate = Rate::new(1_000_000);
        let most = i32::try_from(COUNTED).unwrap();
        for token in 0..2 * most {
            assert_eq!(rate.wait(Whose::Bearer(token)), None);
        }
        assert!(rate.0.unwrap().len() <= COUNTED);
    }
}
