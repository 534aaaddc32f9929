//! The HTTP API, over real HTTP.

mod bodies;
mod coverage;
mod document;
mod hostile;
mod identity;
mod ingest;
mod jobs;
mod monitor;
mod page;
mod quarantine;
mod queue;
mod records;
mod reference;
mod rights;
mod search;
mod steering;

use std::net::SocketAddr;

use admin::{Admin, Pace};
use cronvec_config::Settings;
use cronvec_nouns::token::Role;
use cronvec_secrets::Secrets;
use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::http;
use cronvec_tests::system::System;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const PUBLIC_URL: &str = "https://cronvec.example.com";

/// What production needs besides a database.
const PRODUCTION: [(&str, &str); 4] = [
    ("APP_ENV", "production"),
    ("EMBEDDING_PROVIDER", "static"),
    ("SESSION_SECRET", "a-secret-of-more-than-32-characters"),
    ("PUBLIC_URL", PUBLIC_URL),
];

/// The API of a system, and a token of each role.
struct Api {
    system: System,
    base: String,
    tokens: [String; 4],
    client: reqwest::Client,
    serving: JoinHandle<()>,
}

/// An answer: its status, headers and JSON.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Value,
}

impl Answer {
    /// The body of an answer with this status.
    #[track_caller]
    fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        if status >= 400 {
            assert_eq!(self.body["success"], false, "{}", self.body);
            assert!(
                self.body["error"].as_str().is_some_and(|error| !error.is_empty()),
                "{}",
                self.body
            );
        }
        self.body
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Api {
    async fn new() -> Self {
        Self::of(System::embedding_in_process().await).await
    }

    async fn in_production() -> Self {
        Self::of(System::with(&PRODUCTION).await).await
    }

    async fn of(system: System) -> Self {
        let settings = system.settings.clone();
        Self::with(system, settings).await
    }

    /// The API of this system under other settings.
    async fn with(system: System, settings: Settings) -> Self {
        let mut tokens: [String; 4] = Default::default();
        for (role, secret) in Role::ALL.into_iter().zip(&mut tokens) {
            *secret = token_of(&system, role.as_str(), role, None).await;
        }
        let router = admin::router(Admin::in_process(settings, Secrets::without_aws(), 4, Pace::Schedule));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let serving = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self {
            system,
            base,
            tokens,
            client: http::client(),
            serving,
        }
    }

    fn secret(&self, role: Role) -> &str {
        &self.tokens[Role::ALL.iter().position(|known| *known == role).unwrap()]
    }

    /// A token of this role that reaches these projects only.
    async fn limited(&self, role: Role, projects: &[&str]) -> String {
        let projects: Vec<String> = projects.iter().map(|name| (*name).to_owned()).collect();
        let name = format!("{role} of {projects:?} {}", rand::random::<u32>());
        token_of(&self.system, &name, role, Some(&projects)).await
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method.parse().unwrap(), format!("{}{path}", self.base))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = match text.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|error| panic!("{status} {text}: {error}")),
        };
        Answer { status, headers, body }
    }

    /// A call with this bearer and, where there is one, this JSON.
    async fn call(&self, secret: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mut request = self
            .request(method, path)
            .header(AUTHORIZATION, format!("Bearer {secret}"));
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        self.send(request).await
    }

    /// What is answered to these bytes.
    async fn raw(&self, request: &[u8]) -> String {
        let address = self.base.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may be refused before all of it is sent.
        let _ = stream.write_all(request).await;
        let mut answer = vec![0; 64 * 1024];
        let length = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    /// A job of one record, by SQL's own hand where it is to be FAILED.
    async fn job(&self, project: &str, status: &str) -> i64 {
        let records = [cronvec_tests::system::record("a", "one")];
        let id = self.system.enqueue(project, &records, EnqueueOptions::default()).await;
        if status != "PENDING" {
            let token = if status == "PROCESSING" {
                "gen_random_uuid(), now() + interval '1 hour'"
            } else {
                "NULL, NULL"
            };
            let ended = if status == "PROCESSING" { "NULL" } else { "now()" };
            self.system
                .run_sql(&format!(
                    "UPDATE cronvec.job_queue SET status = '{status}', turn = NULL, completed_at = {ended},
                         (lease_token, lease_expires_at) = ROW({token}), started_at = now(), attempts = 3,
                         payload = CASE WHEN '{status}' = 'COMPLETED' THEN NULL ELSE payload END,
                         result = CASE WHEN '{status}' = 'FAILED' THEN '{{\"error\": \"it broke\"}}'::jsonb END
                     WHERE id = {id}"
                ))
                .await;
        }
        id
    }

    async fn get(&self, role: Role, path: &str) -> Answer {
        self.call(self.secret(role), "GET", path, None).await
    }

    async fn post(&self, role: Role, path: &str, body: Value) -> Answer {
        self.call(self.secret(role), "POST", path, Some(body)).await
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn token_of(system: &System, name: &str, role: Role, projects: Option<&[String]>) -> String {
    system.token(name, role, projects).await
}
