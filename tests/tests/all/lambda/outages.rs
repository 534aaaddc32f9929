//! A database that is away, or isn't ready.

use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::database::{Database, server};
use cronvec_tests::proxy::Proxy;
use cronvec_tests::system::{PROJECT, record};
use serde_json::json;

use super::{AMPLE, Deployment, SECRET, WIDTH, direct, function_error, has, http_event, response};

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
    cronvec_store::migrate::up(&mut client).await.unwrap();
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
async fn admin_slows_the_address_that_the_gateway_names_and_no_other() {
    let deployment = Deployment::new().await;
    let mut admin = deployment.function("admin").await;
    let from = |address: &str| {
        let mut event = http_event("GET", "/api/me", &[], Some("Bearer cvk_wrong"));
        event["requestContext"]["http"]["sourceIp"] = address.into();
        // Anybody may write this.
        event["headers"]["x-forwarded-for"] = "192.0.2.1".into();
        event
    };
    for _ in 0..10 {
        assert_eq!(response(admin.invoke(from("203.0.113.7")).await).0, 401);
    }
    assert_eq!(response(admin.invoke(from("203.0.113.7")).await).0, 429);
    assert_eq!(response(admin.invoke(from("198.51.100.7")).await).0, 401);
    admin.end().await;
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

/// Requests are in flight and stay unanswered. Lambda kills half a second after it has told; a function that was told ends by
/// itself before that, answered or not. So its job must be free by the time the process is gone.
#[tokio::test]
async fn a_function_that_is_told_to_end_has_let_go_of_its_job_when_it_ends() {
    let deployment = Deployment::new().await;
    deployment.put(60).await;
    let gate = deployment.provider.hold();
    let mut function = deployment.function("vectorization").await;
    let process = function.runtime.process().id().to_string();
    let told = async {
        deployment.provider.wait_open(3).await;
        let told = std::process::Command::new("kill").args(["-TERM", &process]).status();
        assert!(told.unwrap().success());
    };
    let (answer, ()) = tokio::join!(function.runtime.invoke(direct(SECRET), AMPLE), told);
    let ended = function.runtime.process().wait().await;
    assert_eq!(ended.code(), Some(0), "it ended by itself");
    let job = deployment
        .system
        .value("SELECT jsonb_build_array(status, lease_token, attempts, crashes) FROM cronvec.job_queue")
        .await;
    assert_eq!(job, json!(["PENDING", null, 0, 0]));
    has(
        &answer.unwrap(),
        json!({"records": 0, "remaining": true, "stoppedBecause": "terminated"}),
    );
    gate.release();
    let mut next = deployment.function("vectorization").await;
    has(&next.call().await, json!({"records": 60, "remaining": false}));
    next.end().await;
}

#[tokio::test]
async fn a_function_that_is_told_to_end_while_nothing_calls_it_ends() {
    let deployment = Deployment::new().await;
    let mut function = deployment.function("cleanup").await;
    function.call().await;
    function.runtime.process().terminate();
    let ended = function.runtime.process().wait().await;
    assert_eq!(ended.code(), Some(0));
}
