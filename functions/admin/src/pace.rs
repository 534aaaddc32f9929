//! How often the workers are called, as far as is known here.

use std::time::Duration;

/// Who calls the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// A schedule elsewhere: every minute, and cleanup daily at 02:00 UTC.
    Schedule,
    /// This process, so long after each pass.
    Process { workers: Duration, cleanup: Duration },
}
