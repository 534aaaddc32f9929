//! Owns an invocation's time: what may still be begun, how long a lease lasts. Refuses to look at any other clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A lease outlives the invocation by this much at most.
const LEASE_GRACE: Duration = Duration::from_secs(5);
/// A longer invocation renews.
const LONGEST_LEASE: Duration = Duration::from_secs(60);
/// What a request is expected to take before one was measured. Where there is little time in all, these are shares of it:
/// a pass of a second does what it can, and one that is expected to do nothing would report success.
const FIRST_REQUEST: Duration = Duration::from_millis(1500);
/// What ending an invocation takes: the last writes' tail, the job's end, the report.
const ENDING: Duration = Duration::from_millis(400);
/// The server takes no shorter time for one.
const LEAST_PATIENCE: Duration = Duration::from_millis(10);
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
    total: Duration,
    ending: Duration,
    request: Lately,
    write: Lately,
}

impl Clock {
    pub fn until(deadline: Instant) -> Self {
        let total = deadline.saturating_duration_since(Instant::now());
        Self {
            deadline,
            total,
            ending: ENDING.min(total / 8),
            request: Lately::new(FIRST_REQUEST.min(total / 4)),
            write: Lately::new(FIRST_WRITE.min(total / 20)),
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
        self.deadline.checked_sub(self.ending / 2).unwrap_or(self.deadline)
    }

    /// When the invocation ends.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The time that there was at its beginning.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// Whether so much time is most of what the invocation had: what takes longer will never be through in one.
    pub fn is_most(&self, time: Duration) -> bool {
        time >= self.total / 2
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

    /// How long somebody else's lock may be waited for, so that what comes after it is still done in time.
    pub fn patience(&self, most: Duration) -> Duration {
        self.remaining()
            .saturating_sub(self.reserve())
            .clamp(LEAST_PATIENCE, most)
    }

    pub fn note_request(&self, took: Duration) {
        self.request.note(took);
    }

    pub fn note_write(&self, took: Duration) {
        self.write.note(took);
    }

    fn reserve(&self) -> Duration {
        self.ending + self.write.get() * 2
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
    fn a_pass_of_a_second_has_time_for_a_request() {
        let clock = clock(1);
        assert!(clock.time_for_request().is_some() && clock.has_time_to_write());
    }

    #[test]
    fn a_lease_ends_with_the_invocation_and_is_never_longer_than_65_s() {
        assert!(clock(10).lease() <= Duration::from_secs(15));
        assert_eq!(clock(3600).lease(), Duration::from_secs(65));
    }
}
