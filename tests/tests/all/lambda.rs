//! The functions' real programs, as Lambda runs them.

use std::time::{Duration, Instant};

use cronvec_tests::database::{Database, server};
use cronvec_tests::provider::{Answer, Provider};
use cronvec_tests::proxy::Proxy;
use cronvec_tests::runtime_api::{FunctionError, Runtime};
use cronvec_tests::secrets_manager::SecretsManager;
use cronvec_tests::system::{PROJECT, System, record};
use serde_json::{Value, json};
use shared::store::enqueue::EnqueueOptions;

const SECRET: &str = "cron-secret-that-nobody-may-read";
const BEFORE: &str = "cron-secret-of-the-month-before";
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
            secrets: [SECRET, BEFORE, API_KEY, password].map(str::to_owned).into(),
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

#[tokio::test]
async fn the_main_job_is_done_by_direct_calls() {
    let deployment = Deployment::new().await;
    let mut records: Vec<Value> = (0..60)
        .map(|n| record(&format!("r{n}"), &format!("text number {n}")))
        .collect();
    records.push(json!({"id": "no text"}));
    let system = &deployment.system;
    system.enqueue(PROJECT, &records, EnqueueOptions::default()).await;

    let mut ingestion = deployment.function("ingestion").await;
    has(
        &ingestion.call().await,
        json!({"success": true, "processed": 1, "records": 60, "rejected": 1, "stoppedBecause": "drained",
            "authorisedBy": "current"}),
    );
    let mut vectorization = deployment.function("vectorization").await;
    has(
        &vectorization.call().await,
        json!({"success": true, "processed": 1, "records": 60, "failed": 0, "remaining": false,
            "stoppedBecause": "drained", "authorisedBy": "current"}),
    );
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
    assert_eq!(deployment.provider.log().keys[0].as_deref(), Some(API_KEY));
    system
        .run_sql("UPDATE cronvec.job_queue SET completed_at = now() - interval '8 days'")
        .await;
    let mut cleanup = deployment.function("cleanup").await;
    has(
        &cleanup.call().await,
        json!({"success": true, "deletedCount": 2, "remaining": false, "authorisedBy": "current"}),
    );
    has(
        &vectorization.call().await,
        json!({"success": true, "processed": 0, "records": 0, "failed": 0, "remaining": false,
            "stoppedBecause": "drained", "authorisedBy": "current"}),
    );
    for function in [ingestion, vectorization, cleanup] {
        let said = function.end().await;
        assert!(said.contains("call answered"), "{said}");
    }
}

#[tokio::test]
async fn the_main_job_is_done_over_http_by_get_and_post_with_options() {
    let deployment = Deployment::new().await;
    let system = &deployment.system;
    system.create_project("letters & more").await;
    for (project, count) in [(PROJECT, 30), ("letters & more", 8)] {
        let records: Vec<Value> = (0..count)
            .map(|n| record(&format!("r{n}"), &format!("text number {n} of {project}")))
            .collect();
        system.enqueue(project, &records, EnqueueOptions::default()).await;
    }
    let mut ingestion = deployment.function("ingestion").await;
    let (status, body) = ingestion
        .http("GET", "/api/workers/ingestion", &[("project", PROJECT)])
        .await;
    assert_eq!(status, 200);
    has(&body, json!({"success": true, "processed": 1, "records": 30}));
    let (status, body) = ingestion.http("POST", "/api/workers/ingestion", &[]).await;
    assert_eq!(status, 200);
    has(&body, json!({"success": true, "processed": 1, "records": 8}));

    let mut vectorization = deployment.function("vectorization").await;
    let work = "/api/workers/vectorization";
    let (status, body) = vectorization
        .http("GET", work, &[("maxRecords", "10"), ("project", PROJECT)])
        .await;
    assert_eq!(status, 200);
    has(
        &body,
        json!({"success": true, "processed": 1, "records": 10, "failed": 0, "remaining": true,
            "stoppedBecause": "limit", "authorisedBy": "current"}),
    );
    let (_, body) = vectorization
        .http("POST", work, &[("project", "letters & more"), ("maxSeconds", "20.5")])
        .await;
    has(
        &body,
        json!({"success": true, "processed": 1, "records": 8, "remaining": false, "stoppedBecause": "drained"}),
    );
    let (_, body) = vectorization
        .http("POST", "/api/process-embedding-queue", &[("maxSeconds", "0.5")])
        .await;
    has(
        &body,
        json!({"success": true, "records": 0, "remaining": true, "stoppedBecause": "deadline"}),
    );
    let (status, body) = vectorization.http("POST", "/api/process-embedding-queue", &[]).await;
    assert_eq!(status, 200);
    has(
        &body,
        json!({"success": true, "processed": 1, "records": 20, "remaining": false, "stoppedBecause": "drained"}),
    );
    for project in [PROJECT, "letters & more"] {
        system.assert_all_embedded_by_fake(project, WIDTH.into()).await;
    }

    for (status, method, path, query) in [
        (400, "GET", work, &[("maxRecords", "0")]),
        (400, "GET", work, &[("project", "no such project")]),
        (404, "GET", "/api/workers/ingestion", &[("maxRecords", "1")]),
        (405, "DELETE", work, &[("maxRecords", "1")]),
    ] {
        let (answered, body) = vectorization.http(method, path, query).await;
        assert_eq!((answered, &body["success"]), (status, &json!(false)), "{body}");
        assert!(body["error"].is_string());
    }
    let mut cleanup = deployment.function("cleanup").await;
    let (status, body) = cleanup.http("GET", "/api/workers/cleanup", &[]).await;
    assert_eq!(status, 200);
    has(
        &body,
        json!({"success": true, "deletedCount": 0, "authorisedBy": "current"}),
    );
    for function in [ingestion, vectorization, cleanup] {
        function.end().await;
    }
}

#[tokio::test]
async fn without_a_secret_production_refuses_and_development_warns_and_works() {
    let mut deployment = Deployment::new().await;
    deployment.unset("CRON_SECRET");
    for name in ["ingestion", "vectorization", "cleanup"] {
        let mut function = deployment.function(name).await;
        let path = format!("/api/workers/{name}");
        for bearer in [None, Some("Bearer "), Some("Bearer anything")] {
            let (status, body) = response(function.invoke(http_event("POST", &path, &[], bearer)).await);
            assert_eq!((status, &body["success"]), (500, &json!(false)));
            assert!(body["error"].as_str().unwrap().contains("CRON_SECRET"), "{body}");
        }
        let (kind, message) = function_error(function.invoke(json!({})).await);
        assert_eq!(kind, "NotConfigured");
        assert!(message.contains("CRON_SECRET"), "{message}");
        function.end().await;
    }
    deployment.put(3).await;
    let mut function = deployment.set("APP_ENV", "development").function("vectorization").await;
    let answer = function.invoke(json!({})).await.unwrap();
    has(&answer, json!({"success": true, "records": 3}));
    assert_eq!(answer.get("authorisedBy"), None);
    let said = function.end().await;
    assert!(
        said.contains("WARN") && said.contains("CRON_SECRET is not set"),
        "{said}"
    );
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_the_previous_one_is_good_and_named() {
    let mut deployment = Deployment::new().await;
    deployment.set("CRON_SECRET_PREVIOUS", BEFORE);
    deployment.put(2).await;
    for name in ["ingestion", "vectorization", "cleanup"] {
        let mut function = deployment.function(name).await;
        let path = format!("/api/workers/{name}");
        let almost = format!("Bearer {}", &SECRET[..SECRET.len() - 1]);
        for bearer in [None, Some("Bearer wrong"), Some(almost.as_str()), Some(SECRET)] {
            let event = http_event("GET", &path, &[("maxRecords", "nonsense")], bearer);
            let (status, body) = response(function.invoke(event).await);
            assert_eq!((status, &body["success"]), (401, &json!(false)), "{name} {bearer:?}");
        }
        for event in [
            direct("wrong"),
            json!({}),
            json!(null),
            json!({"authorization": SECRET}),
        ] {
            let (kind, message) = function_error(function.invoke(event).await);
            assert_eq!(kind, "Unauthorised");
            assert!(message.starts_with("unauthorised"), "{message}");
        }
        let status = "SELECT count(*) FROM cronvec.worker_status";
        assert_eq!(deployment.system.count(status).await, 0, "nothing was begun");
        let answer = function.invoke(direct(BEFORE)).await.unwrap();
        has(&answer, json!({"success": true, "authorisedBy": "previous"}));
        has(
            &function.call().await,
            json!({"success": true, "authorisedBy": "current"}),
        );
        deployment.system.run_sql("DELETE FROM cronvec.worker_status").await;
        function.end().await;
    }
}

#[tokio::test]
async fn secrets_come_from_secrets_manager_and_a_rotation_is_seen_at_the_first_mismatch() {
    let vault = SecretsManager::start().await;
    let mut deployment = Deployment::new().await;
    deployment.put(4).await;
    let (user, password) = server().await.credentials();
    let rds = json!({
        "engine": "postgres", "host": "127.0.0.1", "port": server().await.port(), "username": user,
        "password": password, "dbname": deployment.system.database.name(),
    });
    let cron = vault.keep("cron", SECRET);
    for (name, arn) in [
        ("CRON_SECRET_ARN", cron.clone()),
        ("DATABASE_SECRET_ARN", vault.keep("database", &rds.to_string())),
        ("OPENAI_API_KEY_ARN", vault.keep("openai", &format!("{API_KEY}\n"))),
    ] {
        deployment.set(name, arn);
    }
    for name in ["CRON_SECRET", "DATABASE_URL", "OPENAI_API_KEY"] {
        deployment.unset(name);
    }
    let environment = vault.environment();
    let [_, _, (_, aws_key)] = environment.clone();
    for (name, value) in environment {
        deployment.set(name, value);
    }
    let mut function = deployment.function("vectorization").await;
    function
        .secrets
        .extend(["a-new-secret-of-this-month".to_owned(), aws_key]);
    has(
        &function.call().await,
        json!({"success": true, "records": 4, "authorisedBy": "current"}),
    );
    function.call().await;
    assert_eq!(vault.asked(&cron), 1, "it is kept");
    assert_eq!(deployment.provider.log().keys[0].as_deref(), Some(API_KEY));

    vault.keep("cron", "a-new-secret-of-this-month");
    let answer = function.invoke(direct("a-new-secret-of-this-month")).await.unwrap();
    has(&answer, json!({"success": true, "authorisedBy": "current"}));
    assert_eq!(vault.asked(&cron), 2);
    for _ in 0..3 {
        assert_eq!(function_error(function.invoke(direct(SECRET)).await).0, "Unauthorised");
    }
    assert_eq!(vault.asked(&cron), 2, "a wrong secret doesn't make it ask more often");
    function.end().await;
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_a_dependencys_failure() {
    let vault = SecretsManager::start().await;
    let mut deployment = Deployment::new().await;
    let arn = vault.keep("another", "x").replace("another", "missing");
    deployment.unset("CRON_SECRET").set("CRON_SECRET_ARN", &arn);
    for (name, value) in vault.environment() {
        deployment.set(name, value);
    }
    let mut function = deployment.function("cleanup").await;
    let (status, body) = function.http("POST", "/api/workers/cleanup", &[]).await;
    assert_eq!((status, &body["success"]), (503, &json!(false)));
    assert!(body["error"].as_str().unwrap().contains(&arn), "{body}");
    vault.keep("missing", SECRET);
    has(&function.call().await, json!({"success": true}));
    function.end().await;
}

#[tokio::test]
async fn an_invocation_ends_by_itself_before_its_own_deadline() {
    let deployment = Deployment::new().await;
    deployment.put(100).await;
    deployment.provider.answer_containing("number", Answer::Never);
    let mut function = deployment.function("vectorization").await;
    let begun = Instant::now();
    // A deadline that isn't kept kills the process.
    let answer = function.runtime.invoke(direct(SECRET), Duration::from_secs(4)).await;
    assert!(begun.elapsed() > Duration::from_secs(2), "the time there was is used");
    has(
        &answer.unwrap(),
        json!({"success": true, "processed": 1, "records": 0, "failed": 0, "remaining": true,
            "stoppedBecause": "deadline", "authorisedBy": "current"}),
    );
    let system = &deployment.system;
    let job = "SELECT to_jsonb(j) FROM cronvec.job_queue j";
    let job = system.value(job).await;
    assert_eq!((&job["status"], &job["attempts"]), (&json!("PENDING"), &json!(0)));
    assert_eq!(system.count("SELECT sum(attempts) FROM cronvec.pending").await, 0);
    deployment.provider.behave();
    has(
        &function.call().await,
        json!({"records": 100, "stoppedBecause": "drained"}),
    );
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
    function.end().await;
}

#[tokio::test]
async fn settings_with_problems_answer_every_call_with_an_error_and_are_told_in_the_log() {
    let mut deployment = Deployment::new().await;
    deployment
        .unset("CRON_SECRET")
        .set("EMBEDDING_BATCH_SIZE", "many")
        .set("OPENAI_BASE_URL", format!("https://me:{API_KEY}@example.com"))
        .set("CRON_SECRET_ARN", SECRET);
    for name in ["ingestion", "vectorization", "cleanup"] {
        let mut function = deployment.function(name).await;
        for _ in 0..2 {
            let (status, body) = function.http("POST", &format!("/api/workers/{name}"), &[]).await;
            assert_eq!((status, &body["success"]), (500, &json!(false)));
            let (kind, message) = function_error(function.invoke(direct(SECRET)).await);
            assert_eq!(kind, "NotConfigured");
            assert!(!(message + &body.to_string()).contains("me:"));
        }
        let said = function.end().await;
        for variable in ["EMBEDDING_BATCH_SIZE", "OPENAI_BASE_URL", "CRON_SECRET_ARN"] {
            assert!(said.contains(variable), "{said}");
        }
    }
    let mut admin = deployment.function("admin").await;
    let (status, _) = response(admin.invoke(http_event("GET", "/api/health", &[], None)).await);
    assert_eq!(status, 500);
    admin.end().await;
}

#[tokio::test]
async fn search_that_is_turned_off_embeds_nothing_and_says_so() {
    let mut deployment = Deployment::new().await;
    deployment.put(2).await;
    let mut function = deployment
        .set("SEMANTIC_SEARCH_ENABLED", "false")
        .function("vectorization")
        .await;
    has(
        &function.call().await,
        json!({"success": true, "processed": 0, "records": 0, "failed": 0, "remaining": false, "stoppedBecause": "disabled"}),
    );
    assert_eq!(
        deployment.system.count("SELECT count(*) FROM cronvec.pending").await,
        2,
        "nothing is forgotten"
    );
    function.end().await;
}

#[tokio::test]
async fn a_database_without_the_schema_is_told_with_the_command_that_mends_it() {
    let mut deployment = Deployment::new().await;
    let empty = Database::empty().await;
    deployment.set("DATABASE_URL", empty.url());
    for name in ["ingestion", "vectorization", "cleanup"] {
        let mut function = deployment.function(name).await;
        let (status, body) = function.http("POST", &format!("/api/workers/{name}"), &[]).await;
        assert_eq!(status, 500);
        assert!(body["error"].as_str().unwrap().contains("cronvec migrate up"), "{body}");
        function.end().await;
    }
    let mut function = deployment.function("cleanup").await;
    assert_eq!(function_error(function.invoke(direct(SECRET)).await).0, "Failed");
    let mut client = empty.client().await;
    shared::store::migrate::up(&mut client).await.unwrap();
    has(&function.call().await, json!({"success": true}));
    function.end().await;
}

#[tokio::test]
async fn an_address_that_is_none_is_told_without_its_password() {
    let mut deployment = Deployment::new().await;
    deployment.unset("DATABASE_URL");
    let mut function = deployment.function("cleanup").await;
    let (status, body) = function.http("POST", "/api/workers/cleanup", &[]).await;
    assert_eq!(status, 500);
    assert!(
        body["error"].as_str().unwrap().contains("DATABASE_URL is not set"),
        "{body}"
    );
    function.end().await;
    let (_, password) = server().await.credentials();
    deployment.set("DATABASE_URL", format!("postgresql://app:{password}@db:port/shop"));
    let mut function = deployment.function("cleanup").await;
    let (status, body) = function.http("POST", "/api/workers/cleanup", &[]).await;
    assert_eq!(status, 500);
    assert!(!body.to_string().contains(password), "{body}");
    function.end().await;
}

#[tokio::test]
async fn a_database_that_is_down_is_503_and_the_next_call_after_it_is_back_works() {
    let mut deployment = Deployment::new().await;
    let (proxy_url, mut proxy) = proxied(&deployment.system.database).await;
    deployment.set("DATABASE_URL", proxy_url);
    let mut functions = Vec::new();
    for name in ["ingestion", "vectorization", "cleanup"] {
        functions.push((name, deployment.function(name).await));
    }
    // Once before anything was connected, once while connections are kept.
    for _ in 0..2 {
        proxy.close().await;
        for (name, function) in &mut functions {
            let (status, body) = function.http("POST", &format!("/api/workers/{name}"), &[]).await;
            assert_eq!((status, &body["success"]), (503, &json!(false)), "{name}: {body}");
            assert!(body["error"].as_str().unwrap().contains("nothing listens at"), "{body}");
            let (kind, _) = function_error(function.invoke(direct(SECRET)).await);
            assert_eq!(kind, "Dependency");
        }
        proxy.open();
        deployment.put(5).await;
        for (_, function) in &mut functions {
            has(&function.call().await, json!({"success": true}));
        }
    }
    deployment
        .system
        .assert_all_embedded_by_fake(PROJECT, WIDTH.into())
        .await;
    for (_, function) in functions {
        function.end().await;
    }
}

#[tokio::test]
async fn a_killed_connection_is_replaced_within_the_tick() {
    let deployment = Deployment::new().await;
    let mut functions = Vec::new();
    for name in ["ingestion", "vectorization", "cleanup"] {
        functions.push(deployment.function(name).await);
    }
    for round in 0..3 {
        let (id, text) = (format!("round {round}"), format!("text {round}"));
        let system = &deployment.system;
        system
            .enqueue(PROJECT, &[record(&id, &text)], EnqueueOptions::default())
            .await;
        for function in &mut functions {
            has(&function.call().await, json!({"success": true}));
        }
        system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
        let killed = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
                      WHERE datname = current_database() AND pid <> pg_backend_pid()";
        assert!(system.count(killed).await >= 3);
    }
    for function in functions {
        let said = function.end().await;
        assert!(said.contains("call answered"), "{said}");
    }
}

#[tokio::test]
async fn admin_answers_health_over_http_and_knows_when_the_database_is_away() {
    let mut deployment = Deployment::new().await;
    let (proxy_url, mut proxy) = proxied(&deployment.system.database).await;
    deployment.set("DATABASE_URL", proxy_url);
    let mut admin = deployment.function("admin").await;
    for up in [true, false, true] {
        if !up {
            proxy.close().await;
        }
        let (status, body) = response(admin.invoke(http_event("GET", "/api/health", &[], None)).await);
        if up {
            assert_eq!((status, &body["status"]), (200, &json!("ok")));
        } else {
            assert_eq!((status, &body["success"]), (503, &json!(false)));
            assert!(!body.to_string().contains("127.0.0.1"), "{body}");
            proxy.open();
        }
    }
    let (status, _) = response(admin.invoke(http_event("GET", "/api/other", &[], None)).await);
    assert_eq!(status, 404);
    admin.end().await;
}

#[tokio::test]
async fn a_provider_that_repeats_the_key_does_not_get_it_into_a_log_or_the_database() {
    let deployment = Deployment::new().await;
    deployment.put(3).await;
    let echo = Answer::error(
        401,
        "invalid_api_key",
        &format!("Incorrect API key provided: {API_KEY}."),
    );
    deployment.provider.answer_next(1, echo);
    let mut function = deployment.function("vectorization").await;
    has(
        &function.call().await,
        json!({"records": 0, "failed": 0, "remaining": true, "stoppedBecause": "provider"}),
    );
    let pause = deployment
        .system
        .value("SELECT to_jsonb(p) FROM cronvec.provider_pauses p")
        .await;
    assert_eq!(pause["circuit"], true);
    assert!(!pause.to_string().contains(API_KEY), "{pause}");
    assert!(function.end().await.contains("Incorrect API key"));
}

/// The address of a database behind a proxy.
async fn proxied(database: &Database) -> (String, Proxy) {
    let port = server().await.port();
    let proxy = Proxy::to_port(port).await;
    let url = database
        .url()
        .replace(&format!(":{port}/"), &format!(":{}/", proxy.address().port()));
    (url, proxy)
}
