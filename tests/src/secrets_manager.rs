//! Owns a service on loopback that answers like AWS Secrets Manager. Refuses to check who asks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::background;

/// What is kept there, and how often each was asked for.
#[derive(Default)]
struct Vault(Mutex<HashMap<String, (String, usize)>>);

/// A running service. It ends when dropped.
pub struct SecretsManager {
    vault: Arc<Vault>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl SecretsManager {
    /// One that keeps nothing yet.
    pub async fn start() -> Self {
        let vault = Arc::new(Vault::default());
        let router = Router::new().route("/", post(answer)).with_state(Arc::clone(&vault));
        let (address, serving) = background::handle()
            .spawn(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                let address = listener.local_addr().expect("an address");
                let serving = tokio::spawn(async move {
                    let _ = axum::serve(listener, router).await;
                });
                (address, serving)
            })
            .await
            .expect("a secrets manager");
        Self {
            vault,
            address,
            serving,
        }
    }

    /// What a program needs to ask it.
    pub fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI-EXAMPLEKEY".to_owned()),
        ]
    }

    /// Keeps a secret, and returns its ARN. The same name again is a rotation.
    pub fn keep(&self, name: &str, value: &str) -> String {
        let arn = format!("arn:aws:secretsmanager:eu-central-1:123456789012:secret:{name}-AbCdEf");
        let mut secrets = self.vault.0.lock().expect("secrets");
        secrets.entry(arn.clone()).or_default().0 = value.to_owned();
        arn
    }

    /// How often a secret was asked for.
    pub fn asked(&self, arn: &str) -> usize {
        let secrets = self.vault.0.lock().expect("secrets");
        secrets.get(arn).map_or(0, |(_, asked)| *asked)
    }
}

impl Drop for SecretsManager {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(State(vault): State<Arc<Vault>>, headers: HeaderMap, body: String) -> impl IntoResponse {
    let signed = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("/eu-central-1/secretsmanager/"));
    let asked: Value = serde_json::from_str(&body).unwrap_or_default();
    let arn = asked["SecretId"].as_str().unwrap_or_default();
    let is_get = headers
        .get("x-amz-target")
        .is_some_and(|target| target == "secretsmanager.GetSecretValue");
    let mut secrets = vault.0.lock().expect("secrets");
    let (status, body) = match secrets.get_mut(arn) {
        Some((value, asked)) if signed && is_get => {
            *asked += 1;
            (
                StatusCode::OK,
                json!({"ARN": arn, "Name": "test", "SecretString": value}),
            )
        }
        _ => (
            StatusCode::BAD_REQUEST,
            json!({"__type": "ResourceNotFoundException", "message": "no such secret"}),
        ),
    };
    (status, [(CONTENT_TYPE, "application/x-amz-json-1.1")], body.to_string())
}
