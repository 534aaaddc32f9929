//! The search for the record that kills its worker. A job that lost its worker is worked alone, in slices of half of
//! what is suspected, until the culprit stands alone or all suspects are through.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::job::ClaimedJob;
use shared::pipeline::Named;

/// Slices that a worker may have had under way when it died: reading goes ahead of writing.
const SLICES_UNDER_WAY: u64 = 3;
/// Crashes of a slice of one record until that record is to blame.
const CRASHES_OF_ONE: u32 = 3;

/// Kept in the job's cursor, since whoever goes on is another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Suspects {
    /// Records at the head of the line, the culprit among them.
    size: u64,
    /// How many of them the next slice takes.
    pub step: u64,
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
    /// Whom a claimed job suspects; nobody, if its workers lived.
    pub fn of(job: &ClaimedJob, records_per_slice: usize) -> Option<Self> {
        let before = job.cursor.as_ref().and_then(|cursor| cursor.get("suspects"));
        let before: Option<Self> = before.and_then(|suspects| serde_json::from_value(suspects.clone()).ok());
        let seen = job.crashes;
        match before {
            None if seen == 0 => None,
            None => Some(Self::among(records_per_slice as u64 * SLICES_UNDER_WAY, seen)),
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
            Some(before) => Some(Self::among(before.step, seen)),
        }
    }

    fn among(size: u64, seen: i32) -> Self {
        Self {
            size,
            step: (size / 2).max(1),
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

    /// So many are through.
    pub fn passed(self, records: u64) -> Option<Self> {
        let size = self.size.saturating_sub(records);
        (size > 0).then(|| Self::among(size, 0))
    }

    pub fn cursor(suspects: Option<Self>) -> Value {
        suspects.map_or(Value::Null, |suspects| json!({ "suspects": suspects }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(crashes: i32, before: Option<Suspects>) -> ClaimedJob {
        ClaimedJob {
            lease: shared::job::Lease {
                job_id: 1,
                token: uuid(),
            },
            job_type: shared::job::JobType::Vectorize,
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
            cursor: before.map(|before| Suspects::cursor(Some(before))),
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

    /// Crashes until the record at this place of the line is found, by workers that each know only the job.
    fn crashes_until_found(culprit: u64) -> i32 {
        let (mut crashes, mut total, mut head) = (1, 1, 0);
        let mut kept = None;
        loop {
            let mut suspects = Suspects::of(&job(crashes, kept), 250).expect("somebody is suspected");
            if suspects.is_one() {
                suspects = suspects.facing(record(head));
            }
            if let Some(found) = suspects.culprit() {
                assert_eq!(Some(found), record(culprit).as_ref());
                return total;
            }
            if (head..head + suspects.step).contains(&culprit) {
                (crashes, total, kept) = (crashes + 1, total + 1, Some(suspects));
            } else {
                head += suspects.step;
                (crashes, kept) = (0, suspects.clone().passed(suspects.step));
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
        let mut suspects = Suspects::of(&job(1, None), 250);
        let mut slices = 0;
        while let Some(some) = suspects {
            let step = some.step;
            suspects = some.passed(step);
            slices += 1;
        }
        assert!(slices <= 11);
    }

    fn lone(crashes_of_it: u32) -> Suspects {
        Suspects {
            culprit: record(0),
            alone: crashes_of_it,
            ..Suspects::among(1, 9)
        }
    }

    #[test]
    fn what_one_record_did_is_not_held_against_the_next() {
        let third = Suspects::of(&job(10, Some(lone(2))), 250).unwrap();
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
        let checked = Suspects::of(&job(10, Some(lone(2))), 250).unwrap().facing(record(0));
        let after = Suspects::of(&job(11, Some(checked.clone())), 250)
            .unwrap()
            .facing(record(0));
        assert!(after.culprit().is_none());
        // One that only had no time left goes on where it was.
        let again = Suspects::of(&job(10, Some(checked)), 250).unwrap().facing(record(0));
        assert_eq!(again.culprit(), record(0).as_ref());
    }
}
