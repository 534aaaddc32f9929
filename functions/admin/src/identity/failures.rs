//! Owns how often an address may fail to get in. Refuses to know who gets in. It counts in this process alone: it guards the
//! database and the log, not the secrets, which nobody guesses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

/// So many at once are nobody's fault. Each is forgiven after a tenth of a minute.
const FREE_IN_A_MINUTE: NonZeroU32 = NonZeroU32::new(10).expect("ten isn't zero");
/// A secret that was good so long ago still gets past those who fail behind the same address.
const GOOD_FOR: Duration = Duration::from_secs(15 * 60);
/// Addresses, and good secrets, that are remembered at most.
const REMEMBERED: usize = 10_000;

#[derive(Debug)]
pub struct Failures<C: Clock = DefaultClock> {
    failed: RateLimiter<Attempt, Addresses, C, NoOpMiddleware<C::Instant>>,
    /// By their hashes, when they were good last.
    good: Mutex<HashMap<[u8; 32], Instant>>,
}

/// An attempt to get in. Only one that has failed is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Attempt {
    address: IpAddr,
    has_failed: bool,
}

/// For each address what governor remembers: the time at which all its failures are forgiven. governor's own stores can
/// neither look without counting nor let go of the oldest.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<IpAddr, Nanos>>);

impl StateStore for Addresses {
    type Key = Attempt;

    fn measure_and_replace<T, F, E>(&self, attempt: &Attempt, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (decision, forgiven_at) = decide(known.get(&attempt.address).copied())?;
        if attempt.has_failed {
            if known.len() >= REMEMBERED && !known.contains_key(&attempt.address) {
                // Whoever has that many addresses isn't slowed by any of them.
                let first_forgiven = known.iter().min_by_key(|(_, at)| **at).map(|(address, _)| *address);
                first_forgiven.map(|address| known.remove(&address));
            }
            known.insert(attempt.address, forgiven_at);
        }
        Ok(decision)
    }
}

/// The part of an IPv6 address that one customer has counts as one.
fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & (u128::MAX << 64)).into()),
        address => address,
    }
}

impl Default for Failures {
    fn default() -> Self {
        Self::with_clock(DefaultClock::default())
    }
}

impl<C: Clock> Failures<C> {
    fn with_clock(clock: C) -> Self {
        let quota = Quota::per_minute(FREE_IN_A_MINUTE);
        Self {
            failed: RateLimiter::new(quota, Addresses::default(), clock),
            good: Mutex::default(),
        }
    }

    /// How long an address has to wait, if it does.
    pub fn wait(&self, address: Option<IpAddr>) -> Option<Duration> {
        let attempt = Attempt {
            address: block(address?),
            has_failed: false,
        };
        let refused = self.failed.check_key(&attempt).err()?;
        Some(refused.wait_time_from(self.failed.clock().now()))
    }

    /// An attempt failed.
    pub fn note(&self, address: Option<IpAddr>) {
        let Some(address) = address.map(block) else { return };
        // An error says what the next attempt is told: the address has to wait.
        let _ = self.failed.check_key(&Attempt {
            address,
            has_failed: true,
        });
    }

    /// A secret got somebody in.
    pub fn note_good(&self, hash: [u8; 32]) {
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.len() >= REMEMBERED {
            good.retain(|_, at| at.elapsed() < GOOD_FOR);
        }
        if good.len() < REMEMBERED {
            good.insert(hash, Instant::now());
        }
    }

    pub fn was_good(&self, hash: &[u8; 32]) -> bool {
        let good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        good.get(hash).is_some_and(|at| at.elapsed() < GOOD_FOR)
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn addresses() -> [Option<IpAddr>; 2] {
        ["2001:db8::1", "192.0.2.1"].map(|address| Some(address.parse().unwrap()))
    }

    #[test]
    fn an_address_is_slowed_after_ten_failures_and_no_other_is() {
        let failures = Failures::with_clock(FakeRelativeClock::default());
        let [one, other] = addresses();
        (0..9).for_each(|_| failures.note(one));
        assert_eq!(failures.wait(one), None);
        failures.note(Some("2001:db8::2".parse().unwrap()));
        assert_eq!(failures.wait(one), Some(Duration::from_secs(6)), "the same block");
        assert_eq!((failures.wait(other), failures.wait(None)), (None, None));
    }

    #[test]
    fn who_waited_may_fail_once_and_ten_times_after_a_minute() {
        let clock = FakeRelativeClock::default();
        let failures = Failures::with_clock(clock.clone());
        let [one, _] = addresses();
        // More of them at once, none of which knew of the others, lengthen nothing.
        (0..20).for_each(|_| failures.note(one));
        for _ in 0..3 {
            clock.advance(failures.wait(one).unwrap());
            assert_eq!(failures.wait(one), None);
            failures.note(one);
            assert!(failures.wait(one).is_some());
        }
        clock.advance(Duration::from_secs(60));
        for _ in 0..10 {
            assert_eq!(failures.wait(one), None);
            failures.note(one);
        }
        assert!(failures.wait(one).is_some());
    }

    #[test]
    fn no_more_addresses_are_remembered_than_there_is_room_for_and_the_slowed_ones_stay() {
        let failures = Failures::with_clock(FakeRelativeClock::default());
        let [slowed, _] = addresses();
        (0..10).for_each(|_| failures.note(slowed));
        for number in 0..10_100_u32 {
            failures.note(Some(IpAddr::V4(number.into())));
        }
        assert!(failures.wait(slowed).is_some());
        assert_eq!(failures.failed.into_state_store().0.lock().unwrap().len(), REMEMBERED);
    }
}
