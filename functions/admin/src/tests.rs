//! The router over real HTTP, with a database that isn't there.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Status and body of one request.
async fn ask(app: Router, method: &str, path: &str) -> (u16, Value) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    server.abort();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

fn without_database() -> Router {
    // Nothing listens at a port of the system's own that no service has.
    let find = |name: &str| (name == "DATABASE_URL").then(|| "postgresql://app:hunter2@127.0.0.1:1/shop".to_owned());
    router(Admin::new(
        Settings::from_lookup(&find).unwrap(),
        Secrets::without_aws(),
    ))
}

#[tokio::test]
async fn health_is_503_without_a_database_and_does_not_say_where_it_should_be() {
    let (status, body) = ask(without_database(), "GET", "/api/health").await;
    assert_eq!((status, &body["success"]), (503, &Value::Bool(false)));
    assert!(!body.to_string().contains("127.0.0.1"));
}

#[tokio::test]
async fn what_is_not_there_is_refused_as_json() {
    let (status, body) = ask(without_database(), "GET", "/api/other").await;
    assert_eq!((status, body["error"].as_str()), (404, Some("no such path")));
    let (status, body) = ask(without_database(), "DELETE", "/api/health").await;
    assert_eq!((status, &body["success"]), (405, &Value::Bool(false)));
}

#[tokio::test]
async fn settings_with_problems_answer_500_to_everything() {
    let (status, body) = ask(unconfigured(), "GET", "/api/health").await;
    assert_eq!((status, &body["success"]), (500, &Value::Bool(false)));
}

#[tokio::test]
async fn a_handler_that_panics_answers_500_and_the_server_goes_on() {
    async fn broken() -> &'static str {
        panic!("a text of somebody's")
    }
    // As serve wraps what is its own, and as the API's own handlers are.
    let serves = protect(
        Router::new().route("/broken", get(broken)),
        cronvec_config::AppEnv::Production,
    );
    let gated = Router::new()
        .route("/acts", axum::routing::post(broken))
        .layer(from_fn(gate::pass));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = serves.merge(gated).merge(without_database());
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    // All on one connection: it stays open, too.
    let mut stream = TcpStream::connect(address).await.unwrap();
    for (request, wanted) in [("GET /broken", 500), ("POST /acts", 500), ("GET /api/nothing", 404)] {
        let request = format!("{request} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]);
        assert_eq!(answer[9..12].parse::<u16>().unwrap(), wanted, "{answer}");
        assert!(answer.contains("\"success\":false"), "{answer}");
        assert!(!answer.contains("a text of somebody's"), "{answer}");
    }
    server.abort();
}
