//! The functions' real programs, as Lambda runs them.

mod iam;
mod invoked;
mod main_job;
mod metrics;
mod outages;
mod rotation;
mod secrets;
mod size;
mod traces;

use cronvec_tests::database::server;
use cronvec_tests::provider::Provider;
use cronvec_tests::runtime_api::{FunctionError, Runtime};
use cronvec_tests::system::{PROJECT, System};
use serde_json::{Value, json};
use std::time::Duration;

const SECRET: &str = "cron-secret-that-nobody-may-read";

const BEFORE: &str = "cron-secret-of-the-month-before";

const SESSION_SECRET: &str = "session-secret-that-nobody-may-read";

const API_KEY: &str = "sk-key-that-nobody-may-read";

const AMPLE: Duration = Duration::from_secs(30);

const WIDTH: u16 = 16;

/// A database, a provider, and what the functions are told of them.
struct Deployment {
    provider: Provider,
    system: System,
    variables: Vec<(&'static str, String)>,
}

impl Deployment {
    async fn new() -> Self {
        let provider = Provider::start().await;
        let system = System::embedding_with(&provider, WIDTH).await;
        let variables = vec![
            ("DATABASE_URL", system.database.url().to_owned()),
            ("CRON_SECRET", SECRET.to_owned()),
            ("EMBEDDING_PROVIDER", "openai".to_owned()),
            ("EMBEDDING_DIMENSIONS", WIDTH.to_string()),
            ("OPENAI_BASE_URL", provider.url()),
            ("OPENAI_API_KEY", API_KEY.to_owned()),
            ("SESSION_SECRET", SESSION_SECRET.to_owned()),
            ("PUBLIC_URL", "https://cronvec.example.com".to_owned()),
        ];
        Self {
            provider,
            system,
            variables,
        }
    }

    fn set(&mut self, name: &'static str, value: impl Into<String>) -> &mut Self {
        self.unset(name).variables.push((name, value.into()));
        self
    }

    fn unset(&mut self, name: &str) -> &mut Self {
        self.variables.retain(|(other, _)| *other != name);
        self
    }

    async fn function(&self, name: &str) -> Function {
        // As talkative as an operator could make it.
        let mut variables = vec![("RUST_LOG", "trace")];
        variables.extend(self.variables.iter().map(|(name, value)| (*name, value.as_str())));
        let (_, password) = server().await.credentials();
        Function {
            runtime: Runtime::start(name, &variables).await,
            secrets: [SECRET, BEFORE, SESSION_SECRET, API_KEY, password]
                .map(str::to_owned)
                .into(),
        }
    }

    async fn put(&self, count: usize) {
        for n in 0..count {
            let (id, text) = (format!("r{n}"), format!("text number {n}"));
            self.system.put(PROJECT, &id, &text).await;
        }
    }
}

/// An instance that must never tell what it is told in confidence.
struct Function {
    runtime: Runtime,
    secrets: Vec<String>,
}

impl Function {
    async fn invoke(&mut self, event: Value) -> Result<Value, FunctionError> {
        self.runtime.invoke(event, AMPLE).await
    }

    /// A call as the schedule makes it.
    async fn call(&mut self) -> Value {
        self.invoke(direct(SECRET)).await.expect("an answer")
    }

    /// Status and body of an HTTP call with the right secret.
    async fn http(&mut self, method: &str, path: &str, query: &[(&str, &str)]) -> (u64, Value) {
        let event = http_event(method, path, query, Some(&format!("Bearer {SECRET}")));
        response(self.invoke(event).await)
    }

    /// Its end; none of the secrets was in anything that it ever said.
    async fn end(self) -> String {
        let said = self.runtime.end().await;
        for secret in &self.secrets {
            let told = said.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(told, None, "{secret} was told");
        }
        said
    }
}

fn direct(secret: &str) -> Value {
    json!({"authorization": format!("Bearer {secret}")})
}

/// What a function URL sends.
fn http_event(method: &str, path: &str, query: &[(&str, &str)], authorization: Option<&str>) -> Value {
    let raw: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut event = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": raw.join("&"),
        "headers": {"host": "abc.lambda-url.eu-central-1.on.aws", "x-forwarded-proto": "https", "user-agent": "curl/8"},
        "requestContext": {
            "accountId": "anonymous", "apiId": "abc", "domainName": "abc.lambda-url.eu-central-1.on.aws",
            "domainPrefix": "abc",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7", "userAgent": "curl/8"},
            "requestId": "e1506fd5-9e7b-434f-bd42-4f8fa224b599", "routeKey": "$default", "stage": "$default",
            "time": "12/Mar/2026:19:03:58 +0000", "timeEpoch": 1_773_342_238_000_u64,
        },
        "isBase64Encoded": false,
    });
    if !query.is_empty() {
        event["queryStringParameters"] = query
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
    }
    if let Some(authorization) = authorization {
        event["headers"]["authorization"] = authorization.into();
    }
    event
}

/// Status and body of an answer over HTTP, which is always JSON.
fn response(outcome: Result<Value, FunctionError>) -> (u64, Value) {
    let answer = outcome.expect("over HTTP every outcome is an answer");
    assert_eq!(answer["headers"]["content-type"], "application/json", "{answer}");
    assert_eq!(answer["isBase64Encoded"], false);
    let body = serde_json::from_str(answer["body"].as_str().expect("a body")).expect("JSON");
    (answer["statusCode"].as_u64().expect("a status"), body)
}

/// The kind and message of a function error.
fn function_error(outcome: Result<Value, FunctionError>) -> (String, String) {
    match outcome {
        Err(FunctionError::Reported { kind, message }) => (kind, message),
        other => panic!("no function error: {other:?}"),
    }
}

fn has(answer: &Value, expected: Value) {
    for (name, value) in expected.as_object().expect("fields") {
        assert_eq!(&answer[name], value, "{name} in {answer}");
    }
    assert!(answer["duration"].is_u64(), "duration in {answer}");
}
