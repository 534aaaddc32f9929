//! What a call tells CloudWatch, in the log of the real program.

use cronvec_nouns::metric::ALL;
use cronvec_tests::provider::Answer;
use cronvec_tests::system::PROJECT;
use serde_json::{Value, json};

use super::{Deployment, direct};

/// What a line declares to be metrics.
fn metrics(line: &Value) -> &Vec<Value> {
    line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap()
}

/// The lines of the embedded metric format; each number in them is one of the list.
fn told(said: &str) -> Vec<Value> {
    let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines: Vec<Value> = lines.filter(|line| line.get("_aws").is_some()).collect();
    for metric in lines.iter().flat_map(metrics) {
        let (name, unit) = (&metric["Name"], &metric["Unit"]);
        assert!(
            ALL.iter()
                .any(|declared| name == declared.cloudwatch && unit == declared.unit.as_str()),
            "{metric}"
        );
    }
    lines
}

fn numbers(line: &Value, expected: Value) {
    let metrics = metrics(line);
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&line[name], value, "{name} in {line}");
        assert!(
            metrics.iter().any(|metric| metric["Name"] == name.as_str()),
            "{name} in {line}"
        );
    }
}

#[tokio::test]
async fn each_call_tells_its_numbers_and_what_waits_in_one_line() {
    let deployment = Deployment::new().await;
    deployment.put(3).await;
    let mut function = deployment.function("vectorization").await;
    function.call().await;
    assert!(function.invoke(direct("wrong")).await.is_err());
    deployment
        .system
        .put(PROJECT, "limited", "a text that has to wait")
        .await;
    deployment
        .provider
        .answer_next(1, Answer::error(429, "rate_limit_exceeded", "slow down"));
    function.call().await;
    let back_date = "UPDATE cronvec.job_queue SET scheduled_for = now() - interval '10 minutes', turn = 1
                     WHERE status = 'PENDING'";
    deployment.system.run_sql(back_date).await;
    function.call().await;
    let lines = told(&function.end().await);
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines.iter().all(|line| line["FunctionName"] == "vectorization"));
    numbers(
        &lines[0],
        json!({
            "succeeded": 1, "unauthorised": 0, "authorisedByPrevious": 0, "records": 3, "failed": 0, "quarantined": 0,
            "requests": 1, "rateLimited": 0, "slices": 1, "rescued": 0, "pendingRecords": 0, "oldestPendingSeconds": 0.0,
            "quarantinedRecords": 0, "openCircuits": 0,
        }),
    );
    assert_eq!(lines[0]["requestMs"].as_array().map(Vec::len), Some(1), "{}", lines[0]);
    numbers(&lines[1], json!({"succeeded": 0, "unauthorised": 1}));
    assert_eq!(
        lines[1].get("pendingRecords"),
        None,
        "who may not call makes it ask nobody"
    );
    numbers(
        &lines[2],
        json!({"succeeded": 1, "records": 0, "rateLimited": 1, "pendingRecords": 1}),
    );
    let oldest = lines[3]["oldestPendingSeconds"].as_f64().unwrap();
    assert!((590.0..900.0).contains(&oldest), "{}", lines[3]);
}

#[tokio::test]
async fn the_other_workers_tell_theirs_and_a_shut_off_provider_is_seen() {
    let deployment = Deployment::new().await;
    deployment.put(1).await;
    deployment
        .provider
        .answer_next(3, Answer::error(401, "invalid_api_key", "Incorrect API key provided"));
    let mut vectorization = deployment.function("vectorization").await;
    vectorization.call().await;
    numbers(
        &told(&vectorization.end().await)[0],
        json!({"openCircuits": 1, "records": 0}),
    );
    for (name, number) in [("ingestion", "rejected"), ("cleanup", "deletedCount")] {
        let mut function = deployment.function(name).await;
        function.call().await;
        let lines = told(&function.end().await);
        assert_eq!((lines.len(), &lines[0]["FunctionName"]), (1, &json!(name)));
        numbers(&lines[0], json!({"succeeded": 1, number: 0}));
    }
}
