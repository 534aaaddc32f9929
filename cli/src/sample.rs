//! The demo's records: articles that somebody wrote, and notes that a seeded generator makes of parts.

use serde_json::json;

const ARTICLES: &str = include_str!("../sample/articles.ndjson");
const PARTS: &str = include_str!("../sample/notes.txt");
const QUERIES: &str = include_str!("../sample/queries.txt");

/// Notes of each topic.
const NOTES: usize = 75;

const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// All records, as NDJSON. The same in every run.
pub(crate) fn records() -> String {
    let mut text = ARTICLES.trim_end().to_owned();
    text.push('\n');
    let mut dice = Dice(20_250);
    for topic in PARTS.split("# ").skip(1) {
        let (name, parts) = topic.split_once('\n').unwrap_or((topic, ""));
        let part = |label: &str| -> Vec<&str> {
            let line = parts.lines().find_map(|line| line.strip_prefix(label));
            line.unwrap_or_default().split('|').map(str::trim).collect()
        };
        let (things, events, sequels) = (part("thing:"), part("event:"), part("sequel:"));
        for number in 1..=NOTES {
            let event = dice.pick(&events).replace("{thing}", dice.pick(&things));
            let (day, month) = (dice.pick(&DAYS), dice.pick(&MONTHS));
            let content = format!("A {day} in {month}: {event} {}", dice.pick(&sequels));
            let id = format!("note-{}-{number:02}", name.replace(' ', "-"));
            let record = json!({"id": id, "content": content, "metadata": {"topic": name, "kind": "note"}});
            text.push_str(&format!("{record}\n"));
        }
    }
    text
}

/// Questions that the sample answers in other words.
pub(crate) fn queries() -> impl Iterator<Item = &'static str> {
    QUERIES.lines().filter(|line| !line.trim().is_empty())
}

/// SplitMix64, so that the sample depends on no crate's version.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let sides = u64::try_from(from.len()).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.roll() % sides)
            .ok()
            .and_then(|at| from.get(at))
            .copied()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_sample_has_a_thousand_records_over_twelve_topics_and_no_id_twice() {
        let records: Vec<Value> = records()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let texts = |path: &str| -> BTreeSet<&str> {
            records
                .iter()
                .map(|record| record.pointer(path).and_then(Value::as_str).unwrap())
                .collect()
        };
        assert!(records.len() >= 1_000, "{}", records.len());
        assert_eq!(texts("/id").len(), records.len());
        assert_eq!(texts("/metadata/topic").len(), 12);
        assert!(texts("/content").len() > records.len() * 95 / 100);
        assert!(texts("/content").iter().all(|text| !text.contains(['{', '|'])));
    }

    #[test]
    fn there_are_five_questions() {
        assert_eq!(queries().count(), 5);
    }
}
