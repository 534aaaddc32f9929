//! Owns the wish, told from outside, that a worker ends early. Refuses to end anything itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// A request that is in flight then may still bring what will be paid for anyway.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// The same where half a second is left in all: Lambda kills that long after SIGTERM.
const LAST_MOMENT: Duration = Duration::from_millis(200);

/// Raised once, by a signal as a rule, with how long requests in flight are still waited for. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<watch::Sender<Option<Duration>>>);

impl Stop {
    /// Nothing new is begun from now on.
    pub fn raise(&self) {
        self.0.send_replace(Some(LAST_ANSWERS));
    }

    /// The same, within half a second.
    pub fn raise_at_last(&self) {
        self.0.send_replace(Some(LAST_MOMENT));
    }

    pub fn is_raised(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits until requests in flight are given up, too: a moment after it was raised.
    pub async fn gives_up(&self) {
        // The sender is as old as we are: this ends with the value alone.
        let mut raised = self.0.subscribe();
        let waits = raised.wait_for(Option::is_some).await.ok().and_then(|waits| *waits);
        tokio::time::sleep(waits.unwrap_or(LAST_ANSWERS)).await;
    }
}
