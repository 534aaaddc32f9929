//! The search for the record that kills its worker, as the job's cursor keeps it, and what it takes to blame one. How it narrows
//! is `crash_search`'s.

use cronvec_invocation::crash_search::{CrashSearch, Narrowing};
use cronvec_nouns::job::ClaimedJob;
use cronvec_pipeline::{Named, Remembered};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A search that found nobody, and was followed by another crash, looks at so many times as many records; at most at so
/// many, which is more than any worker reads ahead.
const WIDER: usize = 4;
const WIDEST: usize = 4_000;
/// Half of the suspects are tried next; at most a request's worth, so that each slice is soon through.
const NARROWING: Narrowing = Narrowing { parts: 2, most: 25 };

/// Kept in the job's cursor, since whoever goes on is another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Suspects {
    /// Among the records at the head of the line; its step is what the next slice takes.
    #[serde(flatten)]
    search: CrashSearch,
    /// How many there were when the search began.
    #[serde(default)]
    window: usize,
    /// Crashes of a slice of one: of this very record and text, whoever heads the line by now.
    #[serde(default)]
    culprit: Option<Named>,
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
                let cleared = kept("cleared").and_then(Value::as_u64);
                let window = match cleared.and_then(|cleared| usize::try_from(cleared).ok()) {
                    Some(cleared) => (cleared * WIDER).min(WIDEST),
                    None => in_flight,
                };
                Some(Self::among(window.max(1), window.max(1), seen))
            }
            Some(before) if seen <= before.seen => Some(before),
            // Whatever it did beside the suspect's text killed it as well.
            Some(before) if before.is_checked => Some(Self {
                search: CrashSearch {
                    alone: 0,
                    ..before.search
                },
                is_checked: false,
                seen,
                ..before
            }),
            Some(before) => Some(Self {
                search: before.search.died().trying(NARROWING),
                seen,
                ..before
            }),
        }
    }

    fn among(size: usize, window: usize, seen: i32) -> Self {
        Self {
            search: CrashSearch::among(size).trying(NARROWING),
            window,
            culprit: None,
            is_checked: false,
            seen,
        }
    }

    /// Says which record heads the line. What was held against another, or another text of it, isn't held against this.
    pub fn facing(mut self, first: Option<Named>) -> Self {
        if self.culprit != first {
            self.search.alone = 0;
        }
        self.is_checked = self.is_one() && first.is_some() && self.search.is_found();
        self.culprit = first;
        self
    }

    /// A slice takes one record: it matters which.
    pub fn is_one(&self) -> bool {
        self.step() <= 1
    }

    /// How many records the next slice takes.
    pub fn step(&self) -> usize {
        self.search.step
    }

    /// The record that has killed its worker often enough, with no other beside it.
    pub fn culprit(&self) -> Option<&Named> {
        self.culprit.as_ref().filter(|_| self.is_checked)
    }

    /// A slice of so many is through; the job's crashes begin anew.
    pub fn passed(self, records: usize) -> Remembered {
        self.without(records, 0)
    }

    /// The time of a slice was over when so many of it were settled; the job's crashes stay.
    pub fn settled(self, records: usize) -> Remembered {
        let seen = self.seen;
        match records {
            0 => self.remembered(),
            records => self.without(records, seen),
        }
    }

    fn without(self, records: usize, seen: i32) -> Remembered {
        match self.search.passed(records) {
            None => self.cleared(),
            Some(left) => Self::among(left.size, self.window, seen).remembered(),
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

    fn record(n: usize) -> Option<Named> {
        Some(Named {
            id: format!("r{n}"),
            hash: "00".into(),
        })
    }

    /// Inputs in flight with the defaults.
    const IN_FLIGHT: usize = 200;

    /// Crashes until the record at this place of the line is found, by workers that each know only the job. Not searched
    /// for, it kills whoever comes within `reach` of it.
    fn crashes_until_found(culprit: usize, reach: usize) -> i32 {
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
            if (head..head + suspects.step()).contains(&culprit) {
                (crashes, total, cursor) = (crashes + 1, total + 1, Some(suspects.remembered().cursor));
            } else {
                let step = suspects.step();
                head += step;
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
            let step = some.step();
            records += step;
            slices += 1;
            suspects = Suspects::of(&remembering(0, Some(some.passed(step).cursor)), IN_FLIGHT);
        }
        assert_eq!(records, IN_FLIGHT);
        assert!(slices <= 14, "{slices}");
    }

    #[test]
    fn what_a_slice_settled_before_its_time_was_over_is_cleared() {
        let suspects = Suspects::of(&job(1, None), IN_FLIGHT).unwrap();
        let after = suspects.clone().settled(10);
        let left = Suspects::of(&remembering(1, Some(after.cursor)), IN_FLIGHT).unwrap();
        assert_eq!(left.search.size, IN_FLIGHT - 10);
        assert_eq!(
            Suspects::of(&remembering(1, Some(suspects.clone().settled(0).cursor)), IN_FLIGHT),
            Some(suspects)
        );
    }

    fn lone(crashes_of_it: u32) -> Suspects {
        let mut lone = Suspects::among(1, 1, 9);
        (lone.culprit, lone.search.alone) = (record(0), crashes_of_it);
        lone
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
