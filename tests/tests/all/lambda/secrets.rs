//! Who is let in, and what nobody gets to read.

use cronvec_tests::database::server;
use cronvec_tests::provider::Answer;
use cronvec_tests::secrets_manager::SecretsManager;
use serde_json::json;

use super::{API_KEY, BEFORE, Deployment, SECRET, direct, function_error, has, http_event, response};

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
            assert!(!format!("{message}{body}").contains("me:"));
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
async fn a_provider_that_repeats_the_key_does_not_get_it_into_a_log_or_the_database() {
    let deployment = Deployment::new().await;
    deployment.put(3).await;
    let echo = Answer::error(
        401,
        "invalid_api_key",
        &format!("Incorrect API key provided: {API_KEY}."),
    );
    deployment.provider.answer_next(3, echo);
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
