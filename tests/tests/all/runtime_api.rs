use std::time::Duration;

use cronvec_tests::runtime_api::{FunctionError, Runtime};
use serde_json::json;

const AMPLE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_real_function_answers_and_knows_its_deadline() {
    let mut runtime = Runtime::start("echo-function", &[]).await;
    let first = runtime.invoke(json!({"a": "ü"}), AMPLE).await.unwrap();
    assert_eq!(first["event"], json!({"a": "ü"}));
    let left = first["leftMs"].as_u64().unwrap();
    assert!((10_000..=20_000).contains(&left), "{left}");
    let second = runtime.invoke(json!({}), AMPLE).await.unwrap();
    assert_eq!(first["pid"], second["pid"], "a warm instance is used again");
}

#[tokio::test]
async fn an_error_a_time_out_and_a_crash_are_told_apart_and_the_next_invocation_works() {
    let mut runtime = Runtime::start("echo-function", &[]).await;
    let Err(FunctionError::Reported { message, .. }) = runtime.invoke(json!({"fail": "no"}), AMPLE).await else {
        panic!("no error was reported")
    };
    assert_eq!(message, "no");
    let slow = runtime
        .invoke(json!({"sleepMs": 60_000}), Duration::from_millis(300))
        .await;
    assert_eq!(slow, Err(FunctionError::TimedOut));
    let crashed = runtime.invoke(json!({"exit": 3}), AMPLE).await;
    assert!(matches!(crashed, Err(FunctionError::Exited { .. })), "{crashed:?}");
    assert!(runtime.invoke(json!({}), AMPLE).await.is_ok());
}

#[tokio::test]
async fn a_function_that_cannot_start_says_so() {
    let mut runtime = Runtime::start("echo-function", &[("REFUSE", "1")]).await;
    let refused = runtime.invoke(json!({}), AMPLE).await;
    assert!(
        matches!(
            refused,
            Err(FunctionError::Exited { .. } | FunctionError::Reported { .. })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_frozen_function_finishes_when_it_is_thawed() {
    let mut runtime = Runtime::start("echo-function", &[]).await;
    runtime.invoke(json!({}), AMPLE).await.unwrap();
    runtime.process().freeze();
    let frozen = tokio::time::timeout(Duration::from_millis(200), runtime.invoke(json!({"lost": true}), AMPLE)).await;
    assert!(frozen.is_err());
    runtime.process().thaw();
    // The answer to the lost invocation has nobody waiting for it, and does no harm.
    let next = runtime.invoke(json!({"next": true}), AMPLE).await.unwrap();
    assert_eq!(next["event"], json!({"next": true}));
}
