//! Owns how an invocation's deadline becomes a moment of our own clock. Refuses to enforce it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The moment that Lambda gives as milliseconds since 1970; one that is past is now.
///
/// The wall clock is read once, here: from then on the monotonic one counts.
pub fn from_epoch_ms(epoch_ms: u64) -> Instant {
    let left = UNIX_EPOCH
        .checked_add(Duration::from_millis(epoch_ms))
        .and_then(|at| at.duration_since(SystemTime::now()).ok())
        .unwrap_or_default();
    let now = Instant::now();
    now.checked_add(left).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_in_a_minute_is_a_minute_away_and_one_that_is_past_is_now() {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let left = from_epoch_ms(u64::try_from(now_ms).unwrap() + 60_000) - Instant::now();
        assert!(
            left > Duration::from_secs(58) && left <= Duration::from_secs(60),
            "{left:?}"
        );
        assert!(from_epoch_ms(0) <= Instant::now());
    }
}
