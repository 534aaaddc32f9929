//! Owns the provider's HTTP side: what a request goes through before it is answered.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State as Extract};
use axum::http::{HeaderMap, Response, header::AUTHORIZATION, header::CONTENT_TYPE};
use axum::routing::post;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::dialect::Dialect;
use super::{Answer, State};

/// Enough of a request to count its inputs.
#[derive(Deserialize)]
struct Outline {
    input: Vec<IgnoredAny>,
}

pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/v1/embeddings", post(openai))
        .route("/api/embed", post(ollama))
        // `…:batchEmbedContents` belongs to the segment.
        .route("/v1beta/models/{model}", post(gemini))
        .layer(DefaultBodyLimit::disable())
        .with_state(state)
}

/// Counts the request as open, until it is answered or the client is gone: hyper drops its future then.
struct Open(Arc<State>);

impl Open {
    fn new(state: &Arc<State>) -> Self {
        let mut open = 0;
        state.open.send_modify(|now| {
            *now += 1;
            open = *now;
        });
        let mut log = state.log.lock().expect("log");
        log.most_open = log.most_open.max(open);
        Self(state.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

async fn openai(Extract(state): Extract<Arc<State>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    embeddings(state, &headers, body, Dialect::OpenAi).await
}

async fn ollama(Extract(state): Extract<Arc<State>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    embeddings(state, &headers, body, Dialect::Ollama).await
}

async fn gemini(Extract(state): Extract<Arc<State>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    embeddings(state, &headers, body, Dialect::Gemini).await
}

async fn embeddings(state: Arc<State>, headers: &HeaderMap, body: Bytes, dialect: Dialect) -> Response<Body> {
    let latency = *state.latency.lock().expect("latency");
    if let Some(prepared) = &state.prepared {
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let Ok(outline) = serde_json::from_slice::<Outline>(&body) else {
            return malformed();
        };
        state.inputs.fetch_add(outline.input.len(), Ordering::Relaxed);
        let pieces = prepared.body(outline.input.len()).map(Ok::<_, Infallible>);
        return Response::builder()
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from_stream(futures::stream::iter(pieces)))
            .expect("a response");
    }
    let Some(asked) = dialect.read(&body) else {
        return malformed();
    };
    let inputs = asked.inputs;
    state.inputs.fetch_add(inputs.len(), Ordering::Relaxed);
    let key = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    state.log.lock().expect("log").note(&inputs, key.map(str::to_owned));
    let answer = choose(&state, &inputs);
    let _open = Open::new(&state);
    let gate = match &*state.gate.lock().expect("gate") {
        Some((applies, semaphore)) if applies(&inputs) => Some(semaphore.clone()),
        _ => None,
    };
    if let Some(gate) = gate
        && let Ok(permit) = gate.acquire().await
    {
        permit.forget();
    }
    tokio::time::sleep(latency).await;
    match answer {
        Answer::Late(by) => tokio::time::sleep(by).await,
        Answer::Never => std::future::pending().await,
        _ => {}
    }
    let width = asked.dimensions.unwrap_or(state.dimensions);
    answer.respond(&inputs, width, |vectors| {
        dialect.write(vectors, asked.base64, &asked.model)
    })
}

fn choose(state: &State, inputs: &[String]) -> Answer {
    let mut rules = state.rules.lock().expect("rules");
    let Some(found) = rules.iter().position(|rule| (rule.applies)(inputs)) else {
        return Answer::Right;
    };
    let answer = rules[found].answer.clone();
    if let Some(times) = &mut rules[found].times {
        *times -= 1;
        if *times == 0 {
            rules.remove(found);
        }
    }
    answer
}

fn malformed() -> Response<Body> {
    Answer::error(400, "invalid_request_error", "the body is malformed").respond(&[], 0, |_| String::new())
}
