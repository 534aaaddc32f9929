//! Owns the line in which a call tells its numbers to CloudWatch, as its embedded metric format. Refuses to judge them.

use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::{Authorised, CallError};
use cronvec_nouns::metric::{self, ALL, Metric};
use cronvec_store::quarantine::QuarantineFilter;
use cronvec_store::{Store, StoreError};

const NAMESPACE: &str = "cronvec";
/// Nothing is asked for the numbers' sake with less time than this.
const LEAST_TIME: Duration = Duration::from_millis(300);
/// As many values as the format takes for one metric.
const MOST_VALUES: u64 = 100;

/// The numbers of one function on Lambda.
pub(super) struct Metrics {
    function: String,
}

impl Metrics {
    pub fn new(function: String) -> Self {
        Self { function }
    }

    /// Writes a call's line. Standard output is the log there.
    pub fn tell(&self, outcome: &Result<Value, CallError>, queue: Map<String, Value>) {
        let line = line(&self.function, outcome, queue, SystemTime::now());
        if let Err(error) = writeln!(std::io::stdout(), "{line}") {
            tracing::warn!(error = %error, "a call's numbers could not be written");
        }
    }
}

/// What waits, and what keeps it waiting; nothing where there isn't time for it, or no answer.
pub(super) async fn of_queue(store: &Store, deadline: Instant) -> Map<String, Value> {
    let Some(last) = deadline.checked_sub(LEAST_TIME / 2) else {
        return Map::new();
    };
    if last.saturating_duration_since(Instant::now()) < LEAST_TIME / 2 {
        return Map::new();
    }
    match tokio::time::timeout_at(last.into(), ask(store)).await {
        Ok(Ok(queue)) => queue,
        Ok(Err(error)) => {
            tracing::warn!(error = %error, "the queue's numbers could not be had");
            Map::new()
        }
        Err(_) => {
            tracing::warn!("no time was left for the queue's numbers");
            Map::new()
        }
    }
}

/// Each of them is counted up to a bound.
async fn ask(store: &Store) -> Result<Map<String, Value>, StoreError> {
    let oldest = store.oldest_pending_job().await?;
    let pauses = store.pauses(None).await?;
    let oldest = oldest.map_or(0.0, |oldest| (oldest.age_minutes * 60.0).max(0.0));
    let pending = store.count_pending(None).await?;
    let quarantined = store.count_quarantined(&QuarantineFilter::default()).await?;
    let open = pauses.iter().filter(|pause| pause.circuit).count();
    let numbers = [
        (metric::OLDEST_PENDING, oldest.into()),
        (metric::PENDING_RECORDS, pending.into()),
        (metric::QUARANTINED_RECORDS, quarantined.into()),
        (metric::OPEN_CIRCUITS, open.into()),
    ];
    Ok(numbers
        .map(|(of, value)| (of.cloudwatch.to_owned(), value))
        .into_iter()
        .collect())
}

fn line(function: &str, outcome: &Result<Value, CallError>, queue: Map<String, Value>, now: SystemTime) -> Value {
    let mut numbers = queue;
    let mut note = |of: Metric, value: Value| numbers.insert(of.cloudwatch.to_owned(), value);
    let by_previous = Authorised::Previous.as_str();
    match outcome {
        Ok(answer) => {
            note(metric::SUCCEEDED, 1.into());
            note(metric::UNAUTHORISED, 0.into());
            let previous = by_previous.is_some_and(|previous| answer["authorisedBy"] == previous);
            note(metric::AUTHORISED_BY_PREVIOUS, u8::from(previous).into());
            for of in ALL
                .iter()
                .filter(|of| !of.report.is_empty() && !of.cloudwatch.is_empty())
            {
                if let Some(value) = answer.get(of.report).and_then(values) {
                    note(*of, value);
                }
            }
        }
        Err(error) => {
            note(metric::SUCCEEDED, 0.into());
            let unauthorised = matches!(error, CallError::Unauthorised);
            note(metric::UNAUTHORISED, u8::from(unauthorised).into());
        }
    }
    let told: Vec<Value> = ALL
        .iter()
        .filter(|of| numbers.contains_key(of.cloudwatch))
        .map(|of| json!({"Name": of.cloudwatch, "Unit": of.unit.as_str()}))
        .collect();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut line = json!({
        "_aws": {
            "Timestamp": u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            "CloudWatchMetrics": [{"Namespace": NAMESPACE, "Dimensions": [["FunctionName"]], "Metrics": told}],
        },
        "FunctionName": function,
    });
    if let Value::Object(line) = &mut line {
        line.extend(numbers);
    }
    line
}

/// A number as it stands; a histogram as so many values, each at its bucket's upper bound. None where there is none.
fn values(value: &Value) -> Option<Value> {
    let Value::Object(buckets) = value else {
        return value.is_number().then(|| value.clone());
    };
    let buckets: Vec<(u64, u64)> = buckets
        .iter()
        .filter_map(|(bound, count)| Some((bound.parse().ok()?, count.as_u64()?)))
        .collect();
    let all: u64 = buckets.iter().map(|(_, count)| count).sum();
    // Rounded down, and what would vanish is kept: the largest are the rarest. Fewer than twenty buckets are ever filled.
    let most = MOST_VALUES - 20;
    let shown = |count: u64| if all > most { (count * most / all).max(1) } else { count };
    let values: Vec<u64> = buckets
        .iter()
        .flat_map(|(bound, count)| (0..shown(*count)).map(|_| *bound))
        .take(usize::try_from(MOST_VALUES).unwrap_or(usize::MAX))
        .collect();
    (!values.is_empty()).then(|| values.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(outcome: &Result<Value, CallError>) -> Value {
        line(
            "cronvec-vectorization",
            outcome,
            Map::new(),
            UNIX_EPOCH + Duration::from_secs(7),
        )
    }

    #[test]
    fn a_report_becomes_a_line_that_names_its_metrics_and_their_function() {
        let line = told(&Ok(
            json!({"records": 5, "remaining": true, "authorisedBy": "previous", "duration": 9}),
        ));
        assert_eq!(line["_aws"]["Timestamp"], 7000);
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(directive["Namespace"], "cronvec");
        assert_eq!(directive["Dimensions"], json!([["FunctionName"]]));
        let names: Vec<&str> = directive["Metrics"]
            .as_array()
            .unwrap()
            .iter()
            .map(|metric| metric["Name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["succeeded", "unauthorised", "authorisedByPrevious", "records"]);
        for (name, value) in [
            ("records", 5),
            ("succeeded", 1),
            ("unauthorised", 0),
            ("authorisedByPrevious", 1),
        ] {
            assert_eq!(line[name], value, "{name}");
        }
        assert_eq!(line["FunctionName"], "cronvec-vectorization");
        assert_eq!(line.get("duration"), None);
    }

    #[test]
    fn a_refused_call_counts_as_unauthorised_and_a_failed_one_only_as_no_success() {
        let line = told(&Err(CallError::Unauthorised));
        assert_eq!((&line["succeeded"], &line["unauthorised"]), (&json!(0), &json!(1)));
        let line = told(&Err(CallError::unread_settings()));
        assert_eq!((&line["succeeded"], &line["unauthorised"]), (&json!(0), &json!(0)));
    }

    #[test]
    fn a_histogram_becomes_at_most_a_hundred_values_and_keeps_the_rare_ones() {
        assert_eq!(values(&json!({"128": 2, "181": 1})), Some(json!([128, 128, 181])));
        assert_eq!(values(&json!({})), None);
        let many = values(&json!({"128": 100_000, "8192": 1})).unwrap();
        let many = many.as_array().unwrap();
        assert!(many.len() <= 100 && many.contains(&json!(8192)), "{}", many.len());
    }
}
