//! Owns the wish, told from outside, that a worker ends early. Refuses to end anything itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// A request that is in flight then may still bring what will be paid for anyway.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Raised once, by a signal as a rule. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Stop {
    /// Nothing new is begun from now on.
    pub fn raise(&self) {
        self.0.send_replace(true);
    }

    pub fn is_raised(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until requests in flight are given up, too: a moment after it was raised.
    pub(super) async fn gives_up(&self) {
        // The sender is as old as we are: this ends with the value alone.
        let _ = self.0.subscribe().wait_for(|raised| *raised).await;
        tokio::time::sleep(LAST_ANSWERS).await;
    }
}
