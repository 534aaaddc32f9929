//! Owns the tests of secrets, against a server that answers like AWS Secrets Manager. Refuses to reach AWS.

use std::sync::{Arc, Mutex};

use aws_sdk_secretsmanager::config::Credentials;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};

use super::*;

const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:cron-AbCdEf";

/// What the server says.
#[derive(Default)]
struct Vault {
    answer: Mutex<Option<String>>,
    error: Mutex<Option<&'static str>>,
}

async fn get_secret_value(State(vault): State<Arc<Vault>>, headers: HeaderMap, body: String) -> Response {
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
async fn vault(value: &str) -> (Arc<Vault>, Client) {
    let vault = Arc::new(Vault::default());
    *vault.answer.lock().unwrap() = Some(value.to_owned());
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
    (vault, Client::new(&config))
}

#[tokio::test]
async fn a_secret_is_asked_for_in_its_own_region() {
    let (_vault, client) = vault("hunter2").await;
    assert_eq!(value(&client, ARN).await.unwrap(), "hunter2");
}

#[tokio::test]
async fn errors_name_the_arn_and_what_to_check() {
    let (vault, client) = vault("hunter2").await;
    for (code, advice) in [
        ("ResourceNotFoundException", "check the ARN"),
        ("AccessDeniedException", "GetSecretValue"),
    ] {
        *vault.error.lock().unwrap() = Some(code);
        let error = value(&client, ARN).await.unwrap_err().to_string();
        assert!(error.contains(ARN) && error.contains(advice), "{error}");
    }
}
