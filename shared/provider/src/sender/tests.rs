//! One server of OpenAI's shape on loopback, which misbehaves as its model's name says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap as ServerHeaders, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;

const KEY: &str = "sk-test-0123456789";
const ENOUGH: Timeout = Timeout {
    limit: Duration::from_secs(20),
    ours: false,
};

fn spec(model: &str) -> SpaceSpec {
    SpaceSpec {
        provider: ProviderKind::OpenAi,
        model: model.to_owned(),
        dimensions: 2,
        chunk_tokens: 512,
        chunk_overlap: 0,
        document_prefix: String::new(),
        query_prefix: String::new(),
    }
}

fn base64_of(floats: [f32; 2]) -> String {
    use base64::Engine as _;
    let bytes: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn refusal(status: u16, message: &str, code: &str) -> Response {
    let body = json!({"error": {"message": message, "code": code}}).to_string();
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

async fn answer(State(asked): State<Arc<AtomicUsize>>, headers: ServerHeaders, body: Bytes) -> Response {
    asked.fetch_add(1, Ordering::SeqCst);
    let request: Value = serde_json::from_slice(&body).unwrap();
    let inputs = request["input"].as_array().unwrap();
    // The vector tells its input's length and place.
    let good: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let length = u16::try_from(input.as_str().unwrap().len()).unwrap();
            json!({"index": index, "embedding": base64_of([1.0 + index as f32, f32::from(length)])})
        })
        .collect();
    let with = |place: usize, embedding: Value| {
        let mut data = good.clone();
        data[place]["embedding"] = embedding;
        data
    };
    let data = match request["model"].as_str().unwrap() {
        "good" => good,
        "key" => match headers.get("authorization").map(|value| value.to_str().unwrap()) {
            Some(value) if value == format!("Bearer {KEY}") => good,
            other => {
                return refusal(
                    401,
                    &format!("Incorrect API key provided: {other:?}"),
                    "invalid_api_key",
                );
            }
        },
        "leaky" => {
            return refusal(
                400,
                &format!("'{}' is too long; your key is {KEY}", inputs[0].as_str().unwrap()),
                "",
            );
        }
        "fewer" => good[1..].to_vec(),
        "more" => [good.clone(), good].concat(),
        "shuffled" => good.into_iter().rev().collect(),
        "duplicate" => [&good[..1], &good[..good.len() - 1]].concat(),
        "wide" => with(0, json!([1.0, 2.0, 3.0])),
        "nan" => with(0, json!(base64_of([f32::NAN, 1.0]))),
        "infinite" => with(0, json!(base64_of([f32::INFINITY, 1.0]))),
        "zero" => with(0, json!([0.0, 0.0])),
        "empty" => with(0, json!([])),
        "all-zero" => good
            .iter()
            .map(|item| json!({"index": item["index"], "embedding": [0, 0]}))
            .collect(),
        "floats" => with(0, json!([7, 7])),
        "html" => return "<!doctype html><title>Welcome to the hotel's network</title>".into_response(),
        "truncated" => return r#"{"data":[{"index":0,"embedd"#.into_response(),
        "limited" => return ([("retry-after", "7")], refusal(429, "slow down", "rate_limit_exceeded")).into_response(),
        "limited-silently" => return refusal(429, "slow down", "rate_limit_exceeded"),
        "poor" => return refusal(429, "You exceeded your current quota", "insufficient_quota"),
        "broken" => return refusal(503, "overloaded", ""),
        "floats-only" | "floats-only-500" if request.get("encoding_format").is_some() => {
            let status = if request["model"] == "floats-only" { 400 } else { 500 };
            return refusal(
                status,
                "does not support parameters: {'encoding_format': 'base64'}",
                "400",
            );
        }
        "floats-only" | "floats-only-500" => good,
        "floats-only-dumb" if request.get("encoding_format").is_some() => return refusal(422, "bad request", ""),
        "floats-only-dumb" => good,
        "floats-only-200" if request.get("encoding_format").is_some() => {
            return axum::Json(json!({"error": {"message": "unknown encoding format"}})).into_response();
        }
        "floats-only-200" => good,
        "refuses-all" => return refusal(400, "no", ""),
        "moved" => return (StatusCode::TEMPORARY_REDIRECT, [("location", "/v1/good")]).into_response(),
        "huge" => return "x".repeat(ANSWER_BYTES_AT_LEAST + 1).into_response(),
        "slow" => {
            tokio::time::sleep(Duration::from_secs(30)).await;
            good
        }
        model => return refusal(404, &format!("The model `{model}` does not exist"), "model_not_found"),
    };
    axum::Json(json!({"data": data, "usage": {"prompt_tokens": 3}})).into_response()
}

/// A server that lives as long as the test, and how often it was asked.
async fn server() -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let app = Router::new()
        .route("/v1/embeddings", post(answer))
        .with_state(asked.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, asked)
}

fn provider(address: SocketAddr, spec: SpaceSpec) -> Provider {
    let base_url = format!("http://{address}/v1/");
    Provider::new(
        spec,
        Connection::Http {
            base_url,
            api_key: Some(KEY.to_owned()),
        },
    )
    .unwrap()
}

async fn embed(model: &str) -> Result<Answer, Failure> {
    let (address, _) = server().await;
    provider(address, spec(model))
        .embed(&["one", "four"], Purpose::Document, ENOUGH)
        .await
}

async fn vectors(model: &str) -> Vec<Result<Vec<f32>, String>> {
    let vectors = embed(model).await.unwrap().vectors;
    vectors
        .into_iter()
        .map(|vector| vector.map_err(|fault| fault.to_string()))
        .collect()
}

async fn failure(model: &str) -> Failure {
    embed(model).await.unwrap_err()
}

#[tokio::test]
async fn good_answers_come_back_in_the_order_of_their_inputs() {
    let expected = [Ok(vec![1.0, 3.0]), Ok(vec![2.0, 4.0])];
    for model in ["good", "shuffled", "key"] {
        assert_eq!(vectors(model).await, expected, "{model}");
    }
    assert_eq!(embed("good").await.unwrap().tokens, Some(3));
    assert_eq!(vectors("floats").await, [Ok(vec![7.0, 7.0]), Ok(vec![2.0, 4.0])]);
}

#[tokio::test]
async fn a_server_that_refuses_base64_is_asked_for_floats_and_not_refused_again() {
    for model in ["floats-only", "floats-only-500", "floats-only-200"] {
        let (address, asked) = server().await;
        for requests in [2, 3] {
            // Made anew, as for each invocation.
            let answer = provider(address, spec(model))
                .embed(&["one"], Purpose::Document, ENOUGH)
                .await
                .unwrap();
            assert_eq!(answer.vectors, [Ok(vec![1.0, 3.0])]);
            assert_eq!(asked.load(Ordering::SeqCst), requests, "{model}");
        }
    }
}

#[tokio::test]
async fn a_server_that_refuses_base64_without_saying_so_is_asked_for_floats_at_its_second_refusal() {
    let (address, asked) = server().await;
    let embed = async |model: &str| {
        provider(address, spec(model))
            .embed(&["one"], Purpose::Document, ENOUGH)
            .await
    };
    let requests = || asked.swap(0, Ordering::SeqCst);
    assert!(embed("floats-only-dumb").await.is_err());
    // The one before, its second, and the plain one.
    for expected in [3, 1] {
        assert_eq!(embed("floats-only-dumb").await.unwrap().vectors, [Ok(vec![1.0, 3.0])]);
        assert_eq!(requests(), expected);
    }
    for expected in [1, 2, 1] {
        assert!(embed("refuses-all").await.is_err());
        assert_eq!(requests(), expected, "tried once in vain");
    }
}

#[tokio::test]
async fn an_azure_address_of_the_older_kind_is_told_the_other() {
    let failure = |url: &str| {
        let url = Url::parse(url).unwrap();
        advise(misconfigured("HTTP 401: no"), &url).message().to_owned()
    };
    let said = failure("https://ours.openai.azure.com/openai/deployments/three-small?api-version=2023-05-15");
    assert!(
        said.contains("OPENAI_BASE_URL to https://ours.openai.azure.com/openai/v1 "),
        "{said}"
    );
    assert_eq!(failure("https://ours.openai.azure.com/openai/v1"), "HTTP 401: no");
    assert_eq!(failure("https://api.openai.com/v1"), "HTTP 401: no");
}

#[tokio::test]
async fn the_prefix_goes_before_each_text_and_each_purpose_has_its_own() {
    let (address, _) = server().await;
    let spec = SpaceSpec {
        document_prefix: "doc: ".to_owned(),
        query_prefix: "?".to_owned(),
        ..spec("good")
    };
    let provider = provider(address, spec);
    for (purpose, length) in [(Purpose::Document, 8.0), (Purpose::Query, 4.0)] {
        let answer = provider.embed(&["one"], purpose, ENOUGH).await.unwrap();
        assert_eq!(answer.vectors[0], Ok(vec![1.0, length]));
    }
    assert_eq!(provider.chunk_rules().tokens, 510, "and is taken off the chunk");
}

#[tokio::test]
async fn nothing_is_sent_for_no_inputs() {
    let (address, asked) = server().await;
    assert!(
        provider(address, spec("good"))
            .embed(&[], Purpose::Query, ENOUGH)
            .await
            .unwrap()
            .vectors
            .is_empty()
    );
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_unusable_vector_is_charged_to_its_input_and_not_to_its_neighbour() {
    for (model, fault) in [
        ("nan", "unusable_answer: a vector that isn't finite"),
        ("infinite", "unusable_answer: a vector that isn't finite"),
        ("zero", "unusable_answer: a vector of zeros"),
        ("empty", "unusable_answer: an empty vector"),
    ] {
        assert_eq!(
            vectors(model).await,
            [Err(fault.to_owned()), Ok(vec![2.0, 4.0])],
            "{model}"
        );
    }
}

#[tokio::test]
async fn answers_that_break_the_contract_are_bad_answers() {
    for model in ["fewer", "more", "duplicate", "html", "truncated", "all-zero", "huge"] {
        assert!(matches!(failure(model).await, Failure::BadAnswer { .. }), "{model}");
    }
}

#[tokio::test]
async fn what_only_a_person_can_mend_is_misconfigured() {
    for (model, part) in [
        ("wide", "3 wide, the space is 2 wide"),
        ("moved", "redirects"),
        ("poor", "quota"),
        ("no-such", "does not exist"),
    ] {
        match failure(model).await {
            Failure::Misconfigured { message } => assert!(message.contains(part), "{message}"),
            other => panic!("{model}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn throttling_says_how_long_where_the_provider_does() {
    let seven = Some(Duration::from_secs(7));
    assert!(matches!(failure("limited").await, Failure::RateLimited { retry_after, .. } if retry_after == seven));
    assert!(matches!(
        failure("limited-silently").await,
        Failure::RateLimited { retry_after: None, .. }
    ));
    assert!(matches!(failure("broken").await, Failure::Unavailable { .. }));
}

#[tokio::test]
async fn neither_key_nor_text_is_in_what_a_failure_says_or_debug_shows() {
    let (address, _) = server().await;
    let provider = provider(address, spec("leaky"));
    let text = "a text of somebody, which is nobody else's business";
    let failure = provider.embed(&[text], Purpose::Document, ENOUGH).await.unwrap_err();
    let connection = Connection::Http {
        base_url: "https://x.example/?key=sk-test-0123456789".to_owned(),
        api_key: Some(KEY.to_owned()),
    };
    let said = format!(
        "{failure} {failure:?} {provider:?} {connection:?} {}",
        provider.endpoint()
    );
    assert!(!said.contains(KEY) && !said.contains("somebody"), "{said}");
    assert!(matches!(failure, Failure::Rejected { .. }));
    assert_eq!(
        provider.endpoint(),
        format!("openai|http://{address}/v1|leaky|{}", fingerprint(Some(KEY)))
    );
}

#[tokio::test]
async fn a_time_out_blames_the_provider_only_if_the_limit_was_its_own() {
    let (address, _) = server().await;
    let provider = provider(address, spec("slow"));
    let limit = Duration::from_millis(200);
    let ours = provider
        .embed(&["one"], Purpose::Document, Timeout { limit, ours: true })
        .await
        .unwrap_err();
    assert_eq!(ours, Failure::OutOfTime);
    let theirs = provider
        .embed(&["one"], Purpose::Document, Timeout { limit, ours: false })
        .await
        .unwrap_err();
    assert!(matches!(theirs, Failure::TimedOut { .. }));
}

#[tokio::test]
async fn a_refused_connection_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let failure = provider(address, spec("good"))
        .embed(&["one"], Purpose::Document, ENOUGH)
        .await
        .unwrap_err();
    assert!(matches!(failure, Failure::Unavailable { .. }), "{failure:?}");
}

#[test]
fn a_connection_that_makes_no_sense_is_refused_before_anything_is_sent() {
    let http = |base_url: &str| Connection::Http {
        base_url: base_url.to_owned(),
        api_key: None,
    };
    for connection in [
        Connection::InProcess,
        http("api.openai.com/v1"),
        http("ftp://x/"),
        http("https://me:secret@x/v1"),
    ] {
        let failure = Provider::new(spec("good"), connection).unwrap_err();
        assert!(
            matches!(&failure, Failure::Misconfigured { message } if !message.contains("secret")),
            "{failure:?}"
        );
    }
    let unkeyed = Provider::new(spec("good"), http("http://[::1]:8080/v1/?api-version=1")).unwrap();
    assert_eq!(unkeyed.endpoint(), "openai|http://[::1]:8080/v1|good|-");
}
