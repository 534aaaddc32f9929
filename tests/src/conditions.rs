//! Owns waiting: until something is so, never for a fixed time.

use std::future::Future;
use std::time::{Duration, Instant};

/// Long enough for a busy machine; a test that passes never waits for it.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Waits until the check is true; panics with `what` if it doesn't become so.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    eventually_some(what, || {
        let checked = check();
        async { checked.await.then_some(()) }
    })
    .await;
}

/// Waits until there is something, and returns it.
pub async fn eventually_some<T, F: Future<Output = Option<T>>>(what: &str, check: impl FnMut() -> F) -> T {
    within(LIMIT, what, check).await
}

/// The same with a limit of one's own.
pub async fn within<T, F: Future<Output = Option<T>>>(limit: Duration, what: &str, mut check: impl FnMut() -> F) -> T {
    let begun = Instant::now();
    loop {
        // A check that hangs is as bad as one that says no.
        let left = limit.saturating_sub(begun.elapsed());
        if let Ok(Some(found)) = tokio::time::timeout(left, check()).await {
            return found;
        }
        assert!(begun.elapsed() < limit, "waited {limit:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How much longer than promised something may take where other tests, or other people's programs, have the processors, too.
/// What isn't bounded at all takes longer than that, or for ever. A run of the full sizes is alone, and exact.
const ON_A_BUSY_MACHINE: u32 = 5;

/// That something which began then has kept the time that is promised for it.
#[track_caller]
pub fn assert_in_time(began: Instant, promised: Duration) {
    let took = began.elapsed();
    let most = if crate::full_size() {
        promised
    } else {
        promised * ON_A_BUSY_MACHINE
    };
    assert!(took < most, "it took {took:?}, and {promised:?} is promised");
}
