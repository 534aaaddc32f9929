//! Owns an invocation's time: what may still be begun, how long a lease lasts. Refuses to look at any other clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A lease outlives the invocation by this much at most.
const LEASE_GRACE: Duration = Duration::from_secs(5);
/// A longer invocation renews.
const LONGEST_LEASE: Duration = Duration::from_secs(60);
/// What a request is expected to take before one was measured.
const FIRST_REQUEST: Duration = Duration::from_millis(1500);
/// What ending an invocation takes: the last writes' tail, the job's end, the report.
const ENDING: Duration = Duration::from_millis(400);
/// What a write is expected to take before one was measured.
const FIRST_WRITE: Duration = Duration::from_millis(150);

/// Milliseconds of an operation: the largest of late, forgotten by an eighth with each one after it.
#[derive(Debug)]
struct Lately(AtomicU64);

impl Lately {
    fn new(first: Duration) -> Self {
        Self(AtomicU64::new(millis(first)))
    }

    fn note(&self, took: Duration) {
        let faded = self.0.load(Ordering::Relaxed) * 7 / 8;
        self.0.store(faded.max(millis(took)), Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// The time of one invocation.
#[derive(Debug)]
pub struct Clock {
    deadline: Instant,
    request: Lately,
    write: Lately,
}

impl Clock {
    pub fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            request: Lately::new(FIRST_REQUEST),
            write: Lately::new(FIRST_WRITE),
        }
    }

    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// How long a lease taken or renewed now lasts.
    pub fn lease(&self) -> Duration {
        self.remaining().min(LONGEST_LEASE) + LEASE_GRACE
    }

    /// The last moment at which anything of ours may still run.
    pub fn end_of_work(&self) -> Instant {
        self.deadline.checked_sub(ENDING / 2).unwrap_or(self.deadline)
    }

    /// How long a request that begins now may take; `None` when there isn't time enough for one and for writing what
    /// it brings.
    pub fn time_for_request(&self) -> Option<Duration> {
        let left = self.remaining().checked_sub(self.reserve())?;
        let expected = self.request.get();
        (left > expected + expected / 4).then_some(left)
    }

    /// Whether a write that begins now can end in time.
    pub fn has_time_to_write(&self) -> bool {
        self.remaining() > self.reserve()
    }

    pub fn note_request(&self, took: Duration) {
        self.request.note(took);
    }

    pub fn note_write(&self, took: Duration) {
        self.write.note(took);
    }

    fn reserve(&self) -> Duration {
        ENDING + self.write.get() * 2
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(seconds: u64) -> Clock {
        Clock::until(Instant::now() + Duration::from_secs(seconds))
    }

    #[test]
    fn a_request_that_lately_took_longer_than_is_left_is_not_begun() {
        let clock = clock(5);
        clock.note_request(Duration::from_millis(2000));
        assert!(clock.time_for_request().is_some());
        clock.note_request(Duration::from_millis(4500));
        assert!(clock.time_for_request().is_none());
    }

    #[test]
    fn a_slow_request_is_forgotten_by_fast_ones() {
        let clock = clock(5);
        clock.note_request(Duration::from_secs(8));
        assert!(clock.time_for_request().is_none());
        (0..20).for_each(|_| clock.note_request(Duration::from_millis(5)));
        assert!(clock.time_for_request().is_some());
    }

    #[test]
    fn a_lease_ends_with_the_invocation_and_is_never_longer_than_65_s() {
        assert!(clock(10).lease() <= Duration::from_secs(15));
        assert_eq!(clock(3600).lease(), Duration::from_secs(65));
    }
}
