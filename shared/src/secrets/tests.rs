//! Owns the tests of secrets, against a server that answers like AWS Secrets Manager. Refuses to reach AWS.

use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_secretsmanager::config::Credentials;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};

use super::*;

pub(crate) const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:cron-AbCdEf";

/// What the server says, and how often it was asked.
#[derive(Default)]
pub(crate) struct Vault {
    answer: StdMutex<Option<String>>,
    error: StdMutex<Option<&'static str>>,
    asked: AtomicUsize,
    /// While it is held, nothing is answered.
    gate: tokio::sync::Mutex<()>,
}

impl Vault {
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, value: &str) {
        *self.answer.lock().unwrap() = Some(value.to_owned());
    }
}

async fn get_secret_value(State(vault): State<Arc<Vault>>, headers: HeaderMap, body: String) -> Response {
    vault.asked.fetch_add(1, Ordering::SeqCst);
    assert_eq!(headers["x-amz-target"], "secretsmanager.GetSecretValue");
    // The region is the ARN's, not the client's.
    assert!(
        headers["authorization"]
            .to_str()
            .unwrap()
            .contains("/eu-central-1/secretsmanager/")
    );
    let asked: Value = serde_json::from_str(&body).unwrap();
    let content = [("content-type", "application/x-amz-json-1.1")];
    let _open = vault.gate.lock().await;
    if let Some(code) = *vault.error.lock().unwrap() {
        return (
            StatusCode::BAD_REQUEST,
            content,
            json!({"__type": code, "message": "no"}).to_string(),
        )
            .into_response();
    }
    let answer = json!({"ARN": asked["SecretId"], "Name": "cron", "SecretString": *vault.answer.lock().unwrap()});
    (content, answer.to_string()).into_response()
}

/// A server and a client of it whose home is another region.
pub(crate) async fn vault(value: &str) -> (Arc<Vault>, Secrets) {
    let vault = Arc::new(Vault::default());
    vault.set(value);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new()
        .route("/", post(get_secret_value))
        .with_state(vault.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let config = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .region("us-east-1")
        .endpoint_url(format!("http://{address}"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .load()
        .await;
    (vault, Secrets::with_client(Client::new(&config)))
}

pub(crate) fn arn() -> SecretSource {
    SecretSource::Arn(ARN.to_owned())
}

/// As if the last re-reading of it had been `ago`.
async fn back_date(secrets: &Secrets, ago: Duration) {
    *secrets.entry(ARN).fetching.lock().await = Instant::now().checked_sub(ago);
}

#[tokio::test]
async fn a_plain_value_asks_nobody() {
    let secrets = Secrets::new();
    let value = SecretSource::Value("hunter2".to_owned());
    assert_eq!(secrets.resolve(&value).await.unwrap().expose(), "hunter2");
    assert_eq!(secrets.reread(&value).await.unwrap().expose(), "hunter2");
    assert!(!secrets.inner.client.initialized());
}

#[tokio::test]
async fn a_secret_is_fetched_once_and_then_kept() {
    let (vault, secrets) = vault("hunter2\n").await;
    let source = arn();
    let (one, two) = tokio::join!(secrets.resolve(&source), secrets.resolve(&source));
    assert_eq!((one.unwrap().expose(), two.unwrap().expose()), ("hunter2", "hunter2"));
    assert_eq!(vault.asked(), 1);
}

#[tokio::test]
async fn a_secret_is_reread_at_most_every_30_seconds() {
    let (vault, secrets) = vault("old").await;
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
    let (vault, secrets) = vault("old").await;
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
    let (_vault, secrets) = vault("").await;
    assert!(matches!(secrets.resolve(&arn()).await, Err(SecretError::Empty { .. })));
}

#[tokio::test]
async fn errors_name_the_arn_and_what_to_check() {
    let (vault, secrets) = vault("hunter2").await;
    for (code, advice) in [
        ("ResourceNotFoundException", "check the ARN"),
        ("AccessDeniedException", "GetSecretValue"),
    ] {
        *vault.error.lock().unwrap() = Some(code);
        let error = secrets.resolve(&arn()).await.unwrap_err().to_string();
        assert!(error.contains(ARN) && error.contains(advice), "{error}");
    }
}
