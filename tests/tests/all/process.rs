use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use cronvec_tests::conditions::{LIMIT, eventually};
use cronvec_tests::process::Process;
use serde_json::json;

/// Whether it answers before long. Who is frozen never does.
async fn answers(url: &str, patience: Duration) -> bool {
    let request = cronvec_tests::http::client()
        .post(url)
        .json(&json!({"input": "a"}))
        .timeout(patience);
    request
        .send()
        .await
        .is_ok_and(|response| response.status().is_success())
}

#[tokio::test]
async fn a_child_can_be_frozen_thawed_and_killed() {
    let mut child = Process::spawn("fake-provider", &["--port", "0"], &[]).await;
    eventually("it has told its address", || async { child.stdout().ends_with('\n') }).await;
    let url = format!("{}/embeddings", child.stdout().trim());
    assert!(answers(&url, LIMIT).await);
    child.freeze();
    eventually("it is frozen", || async {
        !answers(&url, Duration::from_millis(300)).await
    })
    .await;
    child.thaw();
    eventually("it is thawed", || answers(&url, LIMIT)).await;
    assert!(child.ended().is_none());
    assert_eq!(child.kill().await.signal(), Some(9));
    assert!(!answers(&url, LIMIT).await);
}

#[tokio::test]
async fn a_child_that_is_told_to_end_ends_and_what_it_said_is_kept() {
    let mut child = Process::spawn("fake-provider", &["--no-such-option"], &[]).await;
    assert_eq!(child.wait().await.code(), Some(1));
    eventually("its complaint was read", || async {
        child.stderr().contains("usage: fake-provider")
    })
    .await;
    let mut child = Process::spawn("fake-provider", &["--port", "0"], &[]).await;
    eventually("it runs", || async { child.stdout().ends_with('\n') }).await;
    child.terminate();
    assert_eq!(child.wait().await.signal(), Some(15));
}
