//! The search for the record that kills its worker. A job that lost its worker is worked alone, a few records at a time,
//! until the culprit stands alone or all suspects are through.

use cronvec_nouns::job::ClaimedJob;
use cronvec_pipeline::{Named, Remembered};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Crashes of a slice of one record until that record is to blame.
const CRASHES_OF_ONE: u32 = 3;
/// A search that found nobody, and was followed by another crash, looks at so many times as many records; at most at so
/// many, which is more than any worker reads ahead.
const WIDER: u64 = 4;
const WIDEST: u64 = 4_000;
/// Records that one slice alone takes at most: a request's worth, so that each is soon through.
const MOST_AT_ONCE: u64 = 25;

/// Kept in the job's cursor, since whoever goes on is another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Suspects {
    /// Records at the head of the line, the culprit among them.
    size: u64,
    /// How many of them the next slice takes.
    pub step: u64,
    /// How many there were when the search began.
    #[serde(default)]
    window: u64,
    /// Crashes of a slice of one: of this very record and text, whoever heads the line by now.
    #[serde(default)]
    culprit: Option<Named>,
    alone: u32,
    /// The culprit is known but for one check: whether workers live that do anything else. Killed at that, too, they
    /// are not killed by it.
    #[serde(default)]
    is_checked: bool,
    /// The job's crashes when this was written: more of them mean that the slice of that time killed its worker.
    seen: i32,
}

impl Suspects {
    /// Whom a claimed job suspects; nobody, if its workers lived. At first these are the records that a worker may have had
    /// in its requests when it died: so many as `in_flight`.
    pub fn of(job: &ClaimedJob, in_flight: usize) -> Option<Self> {
        let kept = |name: &str| job.cursor.as_ref().and_then(|cursor| cursor.get(name));
        let before: Option<Self> = kept("suspects").and_then(|suspects| serde_json::from_value(suspects.clone()).ok());
        let seen = job.crashes;
        match before {
            None if seen == 0 => None,
            None => {
                let window = match kept("cleared").and_then(Value::as_u64) {
                    Some(cleared) => (cleared * WIDER).min(WIDEST),
                    None => in_flight as u64,
                };
                Some(Self::among(window.max(1), window.max(1), seen))
            }
            Some(before) if seen <= before.seen => Some(before),
            // Whatever it did beside the suspect's text killed it as well.
            Some(before) if before.is_checked => Some(Self {
                alone: 0,
                is_checked: false,
                seen,
                ..before
            }),
            Some(before) if before.step <= 1 => Some(Self {
                size: 1,
                alone: before.alone + 1,
                seen,
                ..before
            }),
            Some(before) => Some(Self::among(before.step, before.window, seen)),
        }
    }

    fn among(size: u64, window: u64, seen: i32) -> Self {
        Self {
            size,
            step: (size / 2).clamp(1, MOST_AT_ONCE),
            window,
            culprit: None,
            alone: 0,
            is_checked: false,
            seen,
        }
    }

    /// Says which record heads the line. What was held against another, or another text of it, isn't held against this.
    pub fn facing(mut self, first: Option<Named>) -> Self {
        if self.culprit != first {
            self.alone = 0;
        }
        self.is_checked = self.step <= 1 && first.is_some() && self.alone >= CRASHES_OF_ONE;
        self.culprit = first;
        self
    }

    /// A slice takes one record: it matters which.
    pub fn is_one(&self) -> bool {
        self.step <= 1
    }

    /// The record that has killed its worker often enough, with no other beside it.
    pub fn culprit(&self) -> Option<&Named> {
        self.culprit.as_ref().filter(|_| self.is_checked)
    }

    /// A slice of so many is through; the job's crashes begin anew.
    pub fn passed(self, records: u64) -> Remembered {
        self.without(records, 0)
    }

    /// The time of a slice was over when so many of it were settled; the job's crashes stay.
    pub fn settled(self, records: u64) -> Remembered {
        let seen = self.seen;
        match records {
            0 => self.remembered(),
            records => self.without(records, seen),
        }
    }

    fn without(self, records: u64, seen: i32) -> Remembered {
        match self.size.saturating_sub(records) {
            0 => self.cleared(),
            left => Self::among(left, self.window, seen).remembered(),
        }
    }

    /// All are through, or the one to blame is found.
    pub fn cleared(self) -> Remembered {
        Remembered {
            cursor: json!({ "cleared": self.window }),
            is_over: true,
        }
    }

    pub fn remembered(&self) -> Remembered {
        Remembered {
            cursor: json!({ "suspects": self }),
            is_over: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(crashes: i32, before: Option<Suspects>) -> ClaimedJob {
        remembering(crashes, before.map(|before| before.remembered().cursor))
    }

    fn remembering(crashes: i32, cursor: Option<Value>) -> ClaimedJob {
        ClaimedJob {
            lease: cronvec_nouns::job::Lease {
                job_id: 1,
                token: uuid(),
            },
            job_type: cronvec_nouns::job::JobType::Vectorize,
            project: "articles".into(),
            project_id: 1,
            space_id: 1,
            lane: 0,
            lanes: 1,
            priority: 0,
            attempts: 0,
            max_attempts: 3,
            backoff_ms: 10_000,
            crashes,
            payload: None,
            cursor,
            progress: None,
        }
    }

    fn uuid() -> uuid::Uuid {
        uuid::Uuid::nil()
    }

    fn record(n: u64) -> Option<Named> {
        Some(Named {
            id: format!("r{n}"),
            hash: "00".into(),
        })
    }

    /// Inputs in flight with the defaults.
    const IN_FLIGHT: usize = 200;

    /// Crashes until the record at this place of the line is found, by workers that each know only the job. Not searched
    /// for, it kills whoever comes within `reach` of it.
    fn crashes_until_found(culprit: u64, reach: u64) -> i32 {
        let (mut crashes, mut total, mut head) = (0, 0, 0);
        let mut cursor: Option<Value> = None;
        loop {
            let Some(mut suspects) = Suspects::of(&remembering(crashes, cursor.clone()), IN_FLIGHT) else {
                // Nobody is suspected: all that is read ahead of is embedded, and the worker dies.
                head = head.max((culprit + 1).saturating_sub(reach));
                (crashes, total) = (crashes + 1, total + 1);
                continue;
            };
            if suspects.is_one() {
                suspects = suspects.facing(record(head));
            }
            if let Some(found) = suspects.culprit() {
                assert_eq!(Some(found), record(culprit).as_ref());
                return total;
            }
            if (head..head + suspects.step).contains(&culprit) {
                (crashes, total, cursor) = (crashes + 1, total + 1, Some(suspects.remembered().cursor));
            } else {
                head += suspects.step;
                let step = suspects.step;
                (crashes, cursor) = (0, Some(suspects.passed(step).cursor));
            }
        }
    }

    #[test]
    fn a_culprit_is_found_in_at_most_12_crashes_wherever_it_stands() {
        for culprit in 0..1_700 {
            // In a request, or read ahead.
            for reach in [1, 100, 200, 750, 1_700] {
                let crashes = crashes_until_found(culprit, reach);
                assert!(crashes <= 12, "{crashes} at place {culprit}, read {reach} ahead");
            }
        }
    }

    #[test]
    fn a_false_alarm_is_over_when_all_are_through() {
        let mut suspects = Suspects::of(&job(1, None), IN_FLIGHT);
        let (mut slices, mut records) = (0, 0);
        while let Some(some) = suspects {
            let step = some.step;
            records += step;
            slices += 1;
            suspects = Suspects::of(&remembering(0, Some(some.passed(step).cursor)), IN_FLIGHT);
        }
        assert_eq!(records, IN_FLIGHT as u64);
        assert!(slices <= 14, "{slices}");
    }

    #[test]
    fn what_a_slice_settled_before_its_time_was_over_is_cleared() {
        let suspects = Suspects::of(&job(1, None), IN_FLIGHT).unwrap();
        let after = suspects.clone().settled(10);
        let left = Suspects::of(&remembering(1, Some(after.cursor)), IN_FLIGHT).unwrap();
        assert_eq!(left.size, IN_FLIGHT as u64 - 10);
        assert_eq!(
            Suspects::of(&remembering(1, Some(suspects.clone().settled(0).cursor)), IN_FLIGHT),
            Some(suspects)
        );
    }

    fn lone(crashes_of_it: u32) -> Suspects {
        Suspects {
            culprit: record(0),
            alone: crashes_of_it,
            ..Suspects::among(1, 1, 9)
        }
    }

    #[test]
    fn what_one_record_did_is_not_held_against_the_next() {
        let third = Suspects::of(&job(10, Some(lone(2))), IN_FLIGHT).unwrap();
        assert!(third.clone().facing(record(1)).culprit().is_none());
        assert!(third.clone().facing(None).culprit().is_none());
        let changed = Some(Named {
            hash: "01".into(),
            ..record(0).unwrap()
        });
        assert!(third.clone().facing(changed).culprit().is_none());
        assert_eq!(third.facing(record(0)).culprit(), record(0).as_ref());
    }

    #[test]
    fn who_is_killed_at_something_else_as_well_is_not_killed_by_the_record() {
        let checked = Suspects::of(&job(10, Some(lone(2))), IN_FLIGHT)
            .unwrap()
            .facing(record(0));
        let after = Suspects::of(&job(11, Some(checked.clone())), IN_FLIGHT)
            .unwrap()
            .facing(record(0));
        assert!(after.culprit().is_none());
        // One that only had no time left goes on where it was.
        let again = Suspects::of(&job(10, Some(checked)), IN_FLIGHT)
            .unwrap()
            .facing(record(0));
        assert_eq!(again.culprit(), record(0).as_ref());
    }
}
