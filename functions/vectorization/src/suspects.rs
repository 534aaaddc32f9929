//! The search for the record that kills its worker. A job that lost its worker is worked alone, in slices of half of
//! what is suspected, until the culprit stands alone or all suspects are through.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::job::ClaimedJob;

/// Slices that a worker may have had under way when it died: reading goes ahead of writing.
const SLICES_UNDER_WAY: u64 = 3;
/// Crashes of a slice of one record until that record is to blame.
const CRASHES_OF_ONE: u32 = 3;

/// Kept in the job's cursor, since whoever goes on is another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Suspects {
    /// Records at the head of the line, the culprit among them.
    size: u64,
    /// How many of them the next slice takes.
    pub step: u64,
    /// Crashes of a slice of one.
    alone: u32,
    /// The job's crashes when this was written: more of them mean that the slice of that time killed its worker.
    seen: i32,
}

impl Suspects {
    /// Whom a claimed job suspects; nobody, if its workers lived.
    pub fn of(job: &ClaimedJob, records_per_slice: usize) -> Option<Self> {
        let before = job.cursor.as_ref().and_then(|cursor| cursor.get("suspects"));
        let before: Option<Self> = before.and_then(|suspects| serde_json::from_value(suspects.clone()).ok());
        let seen = job.crashes;
        match before {
            None if seen == 0 => None,
            None => {
                let size = records_per_slice as u64 * SLICES_UNDER_WAY;
                Some(Self {
                    size,
                    step: half(size),
                    alone: 0,
                    seen,
                })
            }
            Some(before) if seen <= before.seen => Some(before),
            Some(before) if before.step <= 1 => Some(Self {
                size: 1,
                step: 1,
                alone: before.alone + 1,
                seen,
            }),
            Some(before) => Some(Self {
                size: before.step,
                step: half(before.step),
                alone: 0,
                seen,
            }),
        }
    }

    /// The first record in line has killed its worker often enough, with no other beside it.
    pub fn is_found(&self) -> bool {
        self.alone >= CRASHES_OF_ONE
    }

    /// The slice is through, and so are its records.
    pub fn passed(self) -> Option<Self> {
        let size = self.size.saturating_sub(self.step);
        (size > 0).then(|| Self {
            size,
            step: half(size),
            alone: 0,
            seen: 0,
        })
    }

    pub fn cursor(suspects: Option<Self>) -> Value {
        suspects.map_or(Value::Null, |suspects| json!({ "suspects": suspects }))
    }
}

fn half(size: u64) -> u64 {
    (size / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Crashes until the record at this place of the line is found.
    fn crashes_until_found(mut culprit: u64) -> u32 {
        let mut crashes = 1;
        let mut suspects = Suspects {
            size: 750,
            step: 375,
            alone: 0,
            seen: 0,
        };
        loop {
            if suspects.is_found() {
                assert_eq!(culprit, 0, "the first in line is the culprit");
                return crashes;
            }
            if culprit < suspects.step {
                crashes += 1;
                suspects = match suspects.step {
                    1 => Suspects {
                        size: 1,
                        alone: suspects.alone + 1,
                        ..suspects
                    },
                    step => Suspects {
                        size: step,
                        step: half(step),
                        ..suspects
                    },
                };
            } else {
                culprit -= suspects.step;
                suspects = suspects.passed().expect("the culprit is among them");
            }
        }
    }

    #[test]
    fn a_culprit_is_found_in_at_most_12_crashes_wherever_it_stands() {
        for culprit in 0..750 {
            assert!(crashes_until_found(culprit) <= 12, "at place {culprit}");
        }
    }

    #[test]
    fn a_false_alarm_is_over_when_all_are_through() {
        let mut suspects = Some(Suspects {
            size: 750,
            step: 375,
            alone: 0,
            seen: 0,
        });
        let mut slices = 0;
        while let Some(some) = suspects {
            suspects = some.passed();
            slices += 1;
        }
        assert!(slices <= 11);
    }
}
