//! Owns what an invocation knows of endpoints that rest, by its own doing or by another worker's. Refuses to decide
//! that one should.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use cronvec_store::Store;

/// A pause that another worker wrote is seen after so long at most; asking before each request would cost a round trip.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One entry an endpoint: when its row was looked at, and until when it rests. That is never later than the row has it,
/// so that a job which a claim gives out may be asked for.
#[derive(Default)]
pub(super) struct Rests(Mutex<HashMap<String, (Instant, Option<Instant>)>>);

impl Rests {
    /// It was told to rest.
    pub async fn begin(&self, endpoint: &str, rest: Duration) {
        let now = Instant::now();
        let until = now.checked_add(rest);
        self.0.lock().await.insert(endpoint.to_owned(), (now, until));
    }

    /// Whether nobody should ask it now.
    pub async fn holds(&self, store: &Store, endpoint: &str) -> bool {
        let now = Instant::now();
        let mut known = self.0.lock().await;
        match known.get(endpoint) {
            Some((_, Some(until))) if *until > now => return true,
            Some((looked_at, _)) if now.duration_since(*looked_at) < LOOK_EVERY => return false,
            _ => {}
        }
        let until = match store.pauses(Some(&[endpoint])).await {
            Ok(pauses) => pauses.first().and_then(|pause| {
                let left = Duration::try_from_secs_f64(pause.seconds_left).ok()?;
                // A circuit whose time is over waits for its canary.
                now.checked_add(if pause.circuit { left.max(LOOK_EVERY) } else { left })
            }),
            // The writer meets the same trouble, and says so.
            Err(_) => None,
        };
        known.insert(endpoint.to_owned(), (now, until));
        until.is_some()
    }
}
