//! Owns the tests of calls from event to answer. Refuses to start a worker.

use std::time::Duration;

use super::*;
use cronvec_config::Settings;
use cronvec_secrets::Secrets;

#[path = "../../secrets/src/fake.rs"]
mod fake;

#[derive(Serialize)]
struct Report {
    processed: u32,
}

#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error("the work can't go on")]
    Away(#[source] cronvec_store::connect::ConnectError),
    #[error("a bug")]
    Bug,
}

fn guard(variables: &'static [(&str, &str)]) -> Guard {
    let find = |name: &str| {
        variables
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    };
    Guard::new(&Settings::from_lookup(&find).unwrap(), Secrets::without_aws())
}

fn guarded() -> Guard {
    guard(&[("CRON_SECRET", "right"), ("CRON_SECRET_PREVIOUS", "before")])
}

fn in_a_minute() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn call(event: Value, guard: &Guard) -> Result<Value, CallError> {
    let work = async |_: CallOptions, _: Instant| Ok::<_, WorkError>(Report { processed: 2 });
    answer(event, WorkerKind::Vectorization, guard, in_a_minute(), work).await
}

fn http_event(method: &str, path: &str, bearer: &str, query: &str) -> Value {
    json!({
        "version": "2.0", "rawPath": path, "rawQueryString": query,
        "headers": {"Authorization": bearer, "host": "x"},
        "requestContext": {"http": {"method": method, "path": path}, "stage": "$default"},
    })
}

fn status_and_body(reply: &Value) -> (u64, Value) {
    (
        reply["statusCode"].as_u64().unwrap(),
        serde_json::from_str(reply["body"].as_str().unwrap()).unwrap(),
    )
}

#[tokio::test]
async fn a_direct_call_is_answered_with_the_report_itself() {
    let reply = call(json!({"authorization": "Bearer right"}), &guarded())
        .await
        .unwrap();
    assert_eq!(reply["success"], true);
    assert_eq!(reply["processed"], 2);
    assert_eq!(reply["authorisedBy"], "current");
    assert!(reply["duration"].is_u64());
}

#[tokio::test]
async fn an_http_call_is_answered_with_a_response_of_format_2() {
    for (method, path) in [
        ("GET", "/api/workers/vectorization"),
        ("POST", "/api/workers/vectorization/"),
        ("POST", "/api/process-embedding-queue"),
    ] {
        let reply = call(http_event(method, path, "bearer before", ""), &guarded())
            .await
            .unwrap();
        let (status, body) = status_and_body(&reply);
        assert_eq!(
            (status, &body["processed"], &body["authorisedBy"]),
            (200, &json!(2), &json!("previous"))
        );
        assert_eq!(reply["headers"]["content-type"], "application/json");
    }
}

#[tokio::test]
async fn a_wrong_or_missing_secret_is_401_over_http_and_an_error_when_direct() {
    for bearer in ["Bearer wrong", "Bearer ", "right", ""] {
        let reply = call(http_event("POST", "/api/workers/vectorization", bearer, ""), &guarded())
            .await
            .unwrap();
        let (status, body) = status_and_body(&reply);
        assert_eq!((status, &body["success"]), (401, &json!(false)), "{bearer}");
    }
    for event in [
        json!({}),
        json!({"authorization": "Bearer wrong"}),
        json!({"authorization": 1}),
        json!(null),
    ] {
        assert_eq!(call(event, &guarded()).await, Err(CallError::Unauthorised));
    }
}

#[tokio::test]
async fn who_may_not_call_is_told_so_before_what_is_wrong_with_the_options() {
    let event = http_event("GET", "/api/workers/vectorization", "Bearer wrong", "maxRecords=x");
    assert_eq!(status_and_body(&call(event, &guarded()).await.unwrap()).0, 401);
}

#[tokio::test]
async fn production_without_a_secret_answers_500_and_development_works() {
    let production = guard(&[("APP_ENV", "production"), ("EMBEDDING_PROVIDER", "static")]);
    let event = http_event("POST", "/api/workers/vectorization", "Bearer right", "");
    let (status, body) = status_and_body(&call(event.clone(), &production).await.unwrap());
    assert_eq!(status, 500);
    assert!(body["error"].as_str().unwrap().contains("CRON_SECRET"));
    let only_previous = guard(&[
        ("APP_ENV", "production"),
        ("EMBEDDING_PROVIDER", "static"),
        ("CRON_SECRET_PREVIOUS", "right"),
    ]);
    assert_eq!(status_and_body(&call(event, &only_previous).await.unwrap()).0, 500);
    let reply = call(json!({}), &guard(&[])).await.unwrap();
    assert_eq!((&reply["success"], reply.get("authorisedBy")), (&json!(true), None));
}

#[tokio::test]
async fn other_paths_are_404_and_other_methods_405() {
    for path in ["/", "/api/workers", "/api/workers/other", "/api/workers/cleanup"] {
        let reply = call(http_event("POST", path, "Bearer right", ""), &guarded())
            .await
            .unwrap();
        assert_eq!(status_and_body(&reply).0, 404, "{path}");
    }
    for (method, path) in [
        ("DELETE", "/api/workers/vectorization"),
        ("GET", "/api/process-embedding-queue"),
    ] {
        let reply = call(http_event(method, path, "Bearer right", ""), &guarded())
            .await
            .unwrap();
        assert_eq!(status_and_body(&reply).0, 405, "{path}");
        assert!(reply["headers"]["allow"].as_str().unwrap().contains("POST"));
    }
}

#[tokio::test]
async fn a_bad_option_is_400_and_named() {
    for (query, name) in [
        ("maxRecords=0", "maxRecords"),
        ("maxRecords=1.5", "maxRecords"),
        ("maxSeconds=-1", "maxSeconds"),
        ("maxSeconds=inf", "maxSeconds"),
        ("maxSeconds=soon", "maxSeconds"),
        ("project=", "project"),
        ("wait=no", "wait"),
        ("wait=", "wait"),
    ] {
        let event = http_event("GET", "/api/workers/vectorization", "Bearer right", query);
        let (status, body) = status_and_body(&call(event, &guarded()).await.unwrap());
        assert_eq!(status, 400, "{query}");
        assert!(body["error"].as_str().unwrap().starts_with(name), "{body}");
    }
    for (event, name) in [
        (
            json!({"authorization": "Bearer right", "maxRecords": "many"}),
            "maxRecords",
        ),
        (
            json!({"authorization": "Bearer right", "maxSeconds": -0.5}),
            "maxSeconds",
        ),
        (json!({"authorization": "Bearer right", "project": 7}), "project"),
        (json!({"authorization": "Bearer right", "wait": "false"}), "wait"),
    ] {
        let Err(CallError::BadRequest { message }) = call(event, &guarded()).await else {
            panic!("{name}")
        };
        assert!(message.starts_with(name), "{message}");
    }
}

#[test]
fn both_shapes_say_the_same_options() {
    let expected = CallOptions {
        project: Some("a shop".to_owned()),
        max_records: Some(500),
        max_seconds: Some(2.5),
        no_wait: true,
    };
    let direct = json!({"project": "a shop", "maxRecords": 500, "maxSeconds": 2.5, "wait": false});
    assert_eq!(WorkerCall::parse(&direct).unwrap().options(), Ok(expected.clone()));
    let mut http = http_event(
        "GET",
        "/api/workers/ingestion",
        "",
        "project=a%20shop&maxRecords=500&maxSeconds=2.5&wait=false",
    );
    assert_eq!(WorkerCall::parse(&http).unwrap().options(), Ok(expected.clone()));
    http["queryStringParameters"] =
        json!({"project": "a shop", "maxRecords": "500", "maxSeconds": "2.5", "wait": "false"});
    let parsed = WorkerCall::parse(&http).unwrap();
    assert_eq!(
        (parsed.options(), parsed.worker()),
        (Ok(expected), Some(WorkerKind::Ingestion))
    );
}

#[test]
fn a_call_waits_unless_it_says_otherwise() {
    for query in ["", "wait=true", "project=a"] {
        let event = http_event("POST", "/api/workers/ingestion", "", query);
        assert!(
            !WorkerCall::parse(&event).unwrap().options().unwrap().no_wait,
            "{query}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_its_pass_has_ended_is_202() {
    let event = http_event("POST", "/api/workers/vectorization", "Bearer right", "wait=false");
    let begun = async |_: CallOptions, _: Instant| Ok::<_, WorkError>(json!({ACCEPTED: true}));
    let reply = answer(event, WorkerKind::Vectorization, &guarded(), in_a_minute(), begun)
        .await
        .unwrap();
    let (status, body) = status_and_body(&reply);
    assert_eq!(
        (status, &body["success"], &body["accepted"]),
        (202, &json!(true), &json!(true))
    );
}

#[tokio::test]
async fn a_panic_fails_its_own_call_in_either_shape_and_the_next_one_works() {
    let broken = async |_: CallOptions, _: Instant| -> Result<Report, WorkError> { panic!("a bug") };
    let event = http_event("POST", "/api/workers/vectorization", "Bearer right", "");
    let reply = answer(event, WorkerKind::Vectorization, &guarded(), in_a_minute(), broken)
        .await
        .unwrap();
    let (status, body) = status_and_body(&reply);
    assert_eq!((status, &body["success"]), (500, &json!(false)));
    assert!(!body.to_string().contains("a bug"), "a panic may quote a text: {body}");
    let direct = json!({"authorization": "Bearer right"});
    let failed = answer(
        direct.clone(),
        WorkerKind::Vectorization,
        &guarded(),
        in_a_minute(),
        broken,
    )
    .await;
    assert_eq!(failed.unwrap_err().kind(), "Failed");
    assert_eq!(call(direct, &guarded()).await.unwrap()["processed"], 2);
}

#[test]
fn a_named_stage_is_no_part_of_the_path() {
    let mut event = http_event("GET", "/prod/api/workers/cleanup", "", "");
    event["requestContext"]["stage"] = json!("prod");
    assert_eq!(WorkerCall::parse(&event).unwrap().worker(), Some(WorkerKind::Cleanup));
}

#[test]
fn a_call_never_shows_its_bearer() {
    let call = WorkerCall::parse(&json!({"authorization": "Bearer hunter2"})).unwrap();
    assert!(!format!("{call:?}").contains("hunter2"));
}

#[test]
fn the_earlier_of_both_deadlines_holds() {
    let invocation = in_a_minute();
    let own = CallOptions {
        max_seconds: Some(1.0),
        ..CallOptions::default()
    };
    assert!(own.deadline(invocation) < Instant::now() + Duration::from_secs(2));
    let later = CallOptions {
        max_seconds: Some(1e300),
        ..CallOptions::default()
    };
    assert_eq!(later.deadline(invocation), invocation);
}

#[tokio::test]
async fn a_database_that_is_away_is_503_and_a_fault_of_ours_500() {
    let event = || http_event("POST", "/api/workers/vectorization", "Bearer right", "");
    let away = async |_: CallOptions, _: Instant| {
        Err::<Report, _>(WorkError::Away(cronvec_store::connect::ConnectError::PoolExhausted))
    };
    let reply = answer(event(), WorkerKind::Vectorization, &guarded(), in_a_minute(), away)
        .await
        .unwrap();
    let (status, body) = status_and_body(&reply);
    assert_eq!((status, &body["success"]), (503, &json!(false)));
    assert!(
        body["error"].as_str().unwrap().starts_with("the work can't go on: "),
        "{body}"
    );
    let bug = async |_: CallOptions, _: Instant| Err::<Report, _>(WorkError::Bug);
    let reply = answer(event(), WorkerKind::Vectorization, &guarded(), in_a_minute(), bug)
        .await
        .unwrap();
    assert_eq!(status_and_body(&reply).0, 500);
    let direct = json!({"authorization": "Bearer right"});
    let failed = answer(direct, WorkerKind::Vectorization, &guarded(), in_a_minute(), bug).await;
    assert_eq!(
        failed,
        Err(CallError::Failed {
            message: "a bug".to_owned()
        })
    );
}

#[tokio::test]
async fn a_rotated_secret_is_read_again_and_wrong_ones_cannot_make_that_often() {
    let (vault, secrets) = fake::vault("old");
    let arn = |name: &str| (name == "CRON_SECRET_ARN").then(|| fake::ARN.to_owned());
    let guard = Guard::new(&Settings::from_lookup(&arn).unwrap(), secrets);
    assert_eq!(guard.check(Some("old")).await, Ok(Authorised::Current));
    vault.set("new");
    assert_eq!(guard.check(Some("new")).await, Ok(Authorised::Current));
    assert_eq!(guard.check(Some("old")).await, Err(CallError::Unauthorised));
    for _ in 0..10 {
        assert_eq!(guard.check(Some("wrong")).await, Err(CallError::Unauthorised));
    }
    assert_eq!(vault.asked(), 2);
}

#[tokio::test]
async fn a_call_without_a_bearer_asks_nobody_for_the_secret() {
    let (vault, secrets) = fake::vault("right");
    let arn = |name: &str| (name == "CRON_SECRET_ARN").then(|| fake::ARN.to_owned());
    let guard = Guard::new(&Settings::from_lookup(&arn).unwrap(), secrets);
    assert_eq!(guard.check(None).await, Err(CallError::Unauthorised));
    assert_eq!(vault.asked(), 0);
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_a_dependency_that_is_away() {
    let (vault, secrets) = fake::vault("right");
    vault.set("");
    let arn = |name: &str| (name == "CRON_SECRET_ARN").then(|| fake::ARN.to_owned());
    let guard = Guard::new(&Settings::from_lookup(&arn).unwrap(), secrets);
    assert_eq!(guard.check(Some("right")).await.unwrap_err().status(), 503);
}
