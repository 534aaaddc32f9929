//! Slows an address whose attempts to get in fail again and again. In this process alone: it guards the database and the
//! log, not the secrets, which nobody guesses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many are nobody's fault.
const FREE: u32 = 10;
/// After the first beyond them; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// An address that was quiet for so long begins anew.
const FORGOTTEN: Duration = Duration::from_secs(15 * 60);
/// Addresses that are remembered at most.
const REMEMBERED: usize = 10_000;

#[derive(Debug, Default)]
pub struct Slow {
    failed: Mutex<HashMap<IpAddr, Failures>>,
    /// Secrets, by their hashes, that were good a while ago: who bears one isn't slowed by others behind the same address.
    good: Mutex<HashMap<[u8; 32], Instant>>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    fn pause(&self) -> Duration {
        match self.count.checked_sub(FREE) {
            None | Some(0) => Duration::ZERO,
            Some(beyond) => FIRST_PAUSE.saturating_mul(1 << (beyond - 1).min(10)).min(LONGEST_PAUSE),
        }
    }
}

/// The part of an IPv6 address that one customer has counts as one.
fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & (u128::MAX << 64)).into()),
        address => address,
    }
}

impl Slow {
    /// The seconds that an address has to wait, if it does.
    pub fn seconds(&self, address: Option<IpAddr>) -> Option<u64> {
        let address = block(address?);
        let known = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = known.get(&address)?;
        let left = failures.pause().checked_sub(failures.last.elapsed())?;
        (!left.is_zero()).then(|| left.as_secs() + 1)
    }

    /// A secret got somebody in.
    pub fn note_good(&self, hash: [u8; 32]) {
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.len() >= REMEMBERED {
            good.retain(|_, at| at.elapsed() < FORGOTTEN);
        }
        if good.len() < REMEMBERED {
            good.insert(hash, Instant::now());
        }
    }

    pub fn was_good(&self, hash: &[u8; 32]) -> bool {
        let good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        good.get(hash).is_some_and(|at| at.elapsed() < FORGOTTEN)
    }

    /// An attempt failed.
    pub fn note(&self, address: Option<IpAddr>) {
        let Some(address) = address.map(block) else { return };
        let now = Instant::now();
        let mut known = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED && !known.contains_key(&address) {
            known.retain(|_, failures| failures.last.elapsed() < FORGOTTEN);
            if known.len() >= REMEMBERED {
                // Whoever has that many addresses isn't slowed by any of them; those that were slowed long ago go.
                let oldest = known
                    .iter()
                    .min_by_key(|(_, failures)| failures.last)
                    .map(|(address, _)| *address);
                oldest.map(|oldest| known.remove(&oldest));
            }
        }
        let failures = known.entry(address).or_insert(Failures { count: 0, last: now });
        if failures.last.elapsed() > FORGOTTEN {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_slowed_after_ten_failures_and_no_other_is() {
        let slow = Slow::default();
        let [one, other]: [IpAddr; 2] = ["2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap()];
        (0..FREE).for_each(|_| slow.note(Some(one)));
        assert_eq!(slow.seconds(Some(one)), None);
        slow.note(Some("2001:db8::2".parse().unwrap()));
        assert_eq!(slow.seconds(Some(one)), Some(1), "the same block");
        (0..20).for_each(|_| slow.note(Some(one)));
        assert!(
            slow.seconds(Some(one))
                .is_some_and(|seconds| (59..=60).contains(&seconds))
        );
        assert_eq!((slow.seconds(Some(other)), slow.seconds(None)), (None, None));
    }

    #[test]
    fn no_more_addresses_are_remembered_than_there_is_room_for() {
        let slow = Slow::default();
        for number in 0..20_000_u32 {
            if number < 300 || number % 100 == 0 {
                slow.note(Some(IpAddr::V4(number.into())));
            }
        }
        let mut known = slow.failed.lock().unwrap();
        for number in 0..20_000_u32 {
            known.insert(
                IpAddr::V4(number.into()),
                Failures {
                    count: 1,
                    last: Instant::now(),
                },
            );
        }
        known.retain(|address, _| matches!(address, IpAddr::V4(address) if address.to_bits() < 10_000));
        drop(known);
        slow.note(Some("192.0.2.1".parse().unwrap()));
        assert_eq!(slow.failed.lock().unwrap().len(), REMEMBERED);
    }
}
