//! Owns the tests of what is kept of secrets and when they are read again. Refuses to reach AWS.

use super::fake::{ARN, vault};
use super::*;

fn arn() -> SecretSource {
    SecretSource::Arn(ARN.to_owned())
}

/// As if the last re-reading of it had been `ago`.
async fn back_date(secrets: &Secrets, ago: Duration) {
    *secrets.entry(ARN).fetching.lock().await = Instant::now().checked_sub(ago);
}

#[tokio::test]
async fn a_plain_value_asks_nobody() {
    let (vault, secrets) = vault("another");
    let value = SecretSource::Value("hunter2".to_owned());
    assert_eq!(secrets.resolve(&value).await.unwrap().expose(), "hunter2");
    assert_eq!(secrets.reread(&value).await.unwrap().expose(), "hunter2");
    assert_eq!(vault.asked(), 0);
}

#[tokio::test]
async fn a_secret_is_fetched_once_and_then_kept() {
    let (vault, secrets) = vault("hunter2\n");
    let source = arn();
    let (one, two) = tokio::join!(secrets.resolve(&source), secrets.resolve(&source));
    assert_eq!((one.unwrap().expose(), two.unwrap().expose()), ("hunter2", "hunter2"));
    assert_eq!(vault.asked(), 1);
}

#[tokio::test]
async fn a_secret_is_reread_at_most_every_30_seconds() {
    let (vault, secrets) = vault("old");
    secrets.resolve(&arn()).await.unwrap();
    vault.set("new");
    assert_eq!(secrets.reread(&arn()).await.unwrap().expose(), "new");
    vault.set("newest");
    assert_eq!(secrets.reread(&arn()).await.unwrap().expose(), "new");
    assert_eq!(vault.asked(), 2);
    back_date(&secrets, Duration::from_secs(31)).await;
    assert_eq!(secrets.reread(&arn()).await.unwrap().expose(), "newest");
    assert_eq!(secrets.resolve(&arn()).await.unwrap().expose(), "newest");
}

/// A caller with a wrong bearer makes the secret be read again, which may take long.
#[tokio::test]
async fn nobody_waits_for_a_secret_that_is_read_again() {
    let (vault, secrets) = vault("old");
    secrets.resolve(&arn()).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        let gate = vault.gate.lock().await;
        let source = arn();
        let mut reread = std::pin::pin!(secrets.reread(&source));
        while vault.asked() < 2 {
            assert!(futures::poll!(&mut reread).is_pending());
            tokio::task::yield_now().await;
        }
        // Neither for the same one, nor for another.
        assert_eq!(secrets.resolve(&arn()).await.unwrap().expose(), "old");
        let other = SecretSource::Arn(ARN.replace("cron", "session"));
        let mut first = std::pin::pin!(secrets.resolve(&other));
        while vault.asked() < 3 {
            assert!(futures::poll!(&mut first).is_pending());
            tokio::task::yield_now().await;
        }
        vault.set("new");
        drop(gate);
        assert_eq!(reread.await.unwrap().expose(), "new");
        assert_eq!(first.await.unwrap().expose(), "new");
    });
    waited.await.expect("nobody waits");
}

#[tokio::test]
async fn an_empty_secret_is_an_error() {
    let (_vault, secrets) = vault("");
    assert!(matches!(secrets.resolve(&arn()).await, Err(SecretError::Empty { .. })));
}

#[tokio::test]
async fn a_program_without_aws_says_so_and_gives_values() {
    let secrets = Secrets::without_aws();
    let error = secrets.resolve(&arn()).await.unwrap_err().to_string();
    assert!(error.contains(ARN) && error.contains("built without AWS"), "{error}");
    let value = SecretSource::Value("hunter2".to_owned());
    assert_eq!(secrets.resolve(&value).await.unwrap().expose(), "hunter2");
}
