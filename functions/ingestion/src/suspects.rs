//! The search for a line that kills its worker: lines are tried in fewer and fewer, alone, and the job remembers which.

use cronvec_store::ingest::{IngestCursor, Suspects};

/// So many workers that died with one line in hand, and nothing beside it, are enough.
const DEATHS_ALONE: u32 = 3;

/// What is known when a worker opens a job: `crashes` are those that the queue has counted.
pub(crate) fn reckon(cursor: &mut IngestCursor, crashes: i32, batch_size: usize) {
    let died = crashes > 0 && crashes != cursor.crashes;
    cursor.crashes = crashes;
    if !died {
        return;
    }
    cursor.suspects = Some(match cursor.suspects {
        None => Suspects {
            lines: batch_size,
            ..Suspects::default()
        },
        Some(suspects) => match suspects.trying {
            // It only held the job.
            0 => suspects,
            1 => Suspects {
                lines: 1,
                trying: 0,
                alone: suspects.alone + 1,
            },
            more => Suspects {
                lines: more,
                ..Suspects::default()
            },
        },
    });
}

/// How many are tried next.
pub(crate) fn slice(suspects: Suspects) -> usize {
    (suspects.lines / 4).max(1)
}

pub(crate) fn is_culprit(suspects: Suspects) -> bool {
    suspects.alone >= DEATHS_ALONE
}

/// What is left to suspect when the next `lines` are stored; `is_last`: of those that were tried.
pub(crate) fn cleared(suspects: Suspects, lines: usize, is_last: bool) -> Option<Suspects> {
    let left = suspects.lines.saturating_sub(lines);
    (left > 0).then_some(Suspects {
        lines: left,
        trying: if is_last {
            0
        } else {
            suspects.trying.saturating_sub(lines)
        },
        alone: if lines > 0 { 0 } else { suspects.alone },
    })
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
                suspects.trying = slice(suspects);
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
