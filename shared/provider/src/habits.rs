//! Owns what this process has learnt of an endpoint's habits, for as long as it lives. Refuses to know a wire format.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What is known of one endpoint. Shared by all that ask it: a worker makes its providers anew for each invocation.
#[derive(Debug, Default)]
pub(super) struct Habits {
    /// It answered something.
    has_answered: AtomicBool,
    /// It took a request that wasn't plain.
    takes_all: AtomicBool,
    /// It refused what only saves bytes, and answered without it.
    wants_plain: AtomicBool,
    /// A plain request was refused, too.
    tried_plain: AtomicBool,
    /// Requests that it refused without saying why, before it took any.
    unclear: AtomicU32,
}

impl Habits {
    pub fn of(endpoint: &str) -> Arc<Self> {
        static ALL: OnceLock<Mutex<HashMap<String, Arc<Habits>>>> = OnceLock::new();
        let mut all = ALL
            .get_or_init(Mutex::default)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(endpoint.to_owned()).or_default())
    }

    pub fn note_answer(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
    }

    pub fn has_answered(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed)
    }

    pub fn wants_plain(&self) -> bool {
        self.wants_plain.load(Ordering::Relaxed)
    }

    /// A request that wasn't plain was taken.
    pub fn took_all(&self) {
        self.takes_all.store(true, Ordering::Relaxed);
    }

    /// Whether to try a plain request because one was refused without a clear reason: the first may be a server's hiccup, or
    /// of a text; the second in a row of an endpoint that never took any, seldom.
    pub fn may_want_plain(&self) -> bool {
        let may = !self.takes_all.load(Ordering::Relaxed) && !self.tried_plain.load(Ordering::Relaxed);
        may && self.unclear.fetch_add(1, Ordering::Relaxed) > 0
    }

    /// What a plain request after a refusal brought.
    pub fn tried_plain(&self, was_taken: bool) {
        self.tried_plain.store(true, Ordering::Relaxed);
        self.wants_plain.store(was_taken, Ordering::Relaxed);
    }
}
