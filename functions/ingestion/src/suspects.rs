//! The search for a line that kills its worker, as the job's cursor keeps it. How it narrows is `crash_search`'s.

use cronvec_invocation::crash_search::{CrashSearch, Narrowing};
use cronvec_store::ingest::{IngestCursor, Suspects};

const NARROWING: Narrowing = Narrowing {
    parts: 4,
    most: usize::MAX,
};

fn search(kept: Suspects) -> CrashSearch {
    CrashSearch {
        size: kept.lines,
        step: kept.trying,
        alone: kept.alone,
    }
}

fn kept(search: CrashSearch) -> Suspects {
    Suspects {
        lines: search.size,
        trying: search.step,
        alone: search.alone,
    }
}

/// What is known when a worker opens a job: `crashes` are those that the queue has counted.
pub(crate) fn reckon(cursor: &mut IngestCursor, crashes: i32, batch_size: usize) {
    let died = crashes > 0 && crashes != cursor.crashes;
    cursor.crashes = crashes;
    if !died {
        return;
    }
    cursor.suspects = Some(kept(match cursor.suspects {
        None => CrashSearch::among(batch_size),
        Some(suspects) => search(suspects).died(),
    }));
}

/// Takes those in hand that are tried next.
pub(crate) fn trying(suspects: Suspects) -> Suspects {
    kept(search(suspects).trying(NARROWING))
}

pub(crate) fn is_culprit(suspects: Suspects) -> bool {
    search(suspects).is_found()
}

/// What is left to suspect when the next `lines` are stored; `is_last`: of those that were tried.
pub(crate) fn cleared(suspects: Suspects, lines: usize, is_last: bool) -> Option<Suspects> {
    let left = search(suspects).passed(lines)?;
    let step = if is_last { 0 } else { left.step };
    Some(kept(CrashSearch { step, ..left }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Crashes until the line at `culprit` is named; the search moves on where it isn't in hand.
    fn crashes_until_found(batch_size: usize, culprit: usize) -> u32 {
        let mut cursor = IngestCursor::default();
        let (mut at, mut crashes) = (0, 0);
        loop {
            reckon(&mut cursor, crashes, batch_size);
            loop {
                let Some(mut suspects) = cursor.suspects else {
                    assert!(at + batch_size > culprit, "it is in the batch");
                    break;
                };
                if is_culprit(suspects) {
                    assert_eq!(at, culprit, "nobody else is blamed");
                    return crashes.unsigned_abs();
                }
                suspects = trying(suspects);
                cursor.suspects = Some(suspects);
                if (at..at + suspects.trying).contains(&culprit) {
                    break;
                }
                at += suspects.trying;
                cursor.suspects = cleared(suspects, suspects.trying, true);
            }
            crashes += 1;
        }
    }

    #[test]
    fn a_line_of_a_hundred_is_found_in_at_most_seven_crashes_wherever_it_stands() {
        for culprit in 0..100 {
            let crashes = crashes_until_found(100, culprit);
            assert!(crashes <= 7, "line {culprit} after {crashes}");
        }
        assert_eq!(crashes_until_found(1, 0), 4);
    }

    #[test]
    fn a_job_that_was_only_held_when_its_worker_died_is_not_suspected_further() {
        let suspects = Suspects {
            lines: 6,
            trying: 0,
            alone: 0,
        };
        let mut cursor = IngestCursor {
            crashes: 2,
            suspects: Some(suspects),
            ..IngestCursor::default()
        };
        reckon(&mut cursor, 3, 100);
        assert_eq!((cursor.suspects, cursor.crashes), (Some(suspects), 3));
    }
}
