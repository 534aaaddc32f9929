//! When each worker was seen, and when it is expected next.

use cronvec_store::workers::WorkerStatus;
use serde::Serialize;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime, Time};
use utoipa::ToSchema;

use crate::Pace;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Seen {
    name: String,
    last_seen_at: String,
    last_duration_ms: Option<i64>,
    /// Not for tokens that are limited: it is of all projects.
    #[schema(value_type = Option<Object>)]
    last_result: Option<Value>,
    is_running: bool,
    /// As its schedule has it; one that is past is overdue.
    next_tick_at: String,
}

pub(super) fn seen(worker: WorkerStatus, pace: &Pace, with_result: bool) -> Seen {
    let took = Duration::milliseconds(worker.last_duration_ms.unwrap_or(0));
    // While it runs it was seen when it began, else when it ended.
    let began = if worker.is_running {
        worker.last_seen_at
    } else {
        worker.last_seen_at - took
    };
    let next = match (worker.name.as_str(), pace) {
        ("cleanup", Pace::Schedule) => next_at_two(began),
        (_, Pace::Schedule) => began + Duration::minutes(1),
        ("cleanup", Pace::Process { cleanup, .. }) => began + *cleanup,
        (_, Pace::Process { workers, .. }) => worker.last_seen_at + *workers,
    };
    let text = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
    Seen {
        name: worker.name,
        last_seen_at: text(worker.last_seen_at),
        last_duration_ms: worker.last_duration_ms,
        last_result: worker.last_result.filter(|_| with_result),
        is_running: worker.is_running,
        next_tick_at: text(next),
    }
}

/// Daily at 02:00 UTC.
fn next_at_two(after: OffsetDateTime) -> OffsetDateTime {
    let two = Time::MIDNIGHT + Duration::hours(2);
    let today = after.to_offset(time::UtcOffset::UTC).replace_time(two);
    if today > after {
        today
    } else {
        today + Duration::days(1)
    }
}
