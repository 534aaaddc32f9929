//! What every request passes first: nothing secret in its address, an answer in bounded time, and an act that outlives its
//! caller.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cronvec_edges::panics::caught;
use cronvec_nouns::token::PREFIX;
use tracing::Instrument;

use crate::Refusal;

/// Less than what an API gateway waits (29 s).
const LONGEST: Duration = Duration::from_secs(25);
/// Names under which others take tokens from a query.
const SECRET_NAMES: [&str; 7] = [
    "token",
    "access_token",
    "api_key",
    "apikey",
    "authorization",
    "auth",
    "bearer",
];

pub(crate) async fn pass(request: Request, next: Next) -> Response {
    if bears_secret(request.uri()) {
        return Refusal::bad_request(
            "a token in an address ends up in logs; revoke this one, and send tokens as Authorization: Bearer",
        )
        .into_response();
    }
    let acts = acts(&request);
    let answer = async move {
        match tokio::time::timeout(LONGEST, caught(next.run(request))).await {
            Ok(Ok(response)) => response,
            Ok(Err(panicked)) => Refusal::internal(&panicked).into_response(),
            Err(_) => Refusal::unavailable(format!("it took longer than {} s", LONGEST.as_secs())).into_response(),
        }
    };
    if !acts {
        return answer.await;
    }
    // A caller who hangs up must not stop an act between two of its steps, or before it is in the audit log.
    match tokio::spawn(answer.in_current_span()).await {
        Ok(response) => response,
        Err(broken) => Refusal::internal(&broken).into_response(),
    }
}

/// The outermost layer: whatever is served, a panic is answered with 500 and ends nothing else.
pub(crate) async fn survive(request: Request, next: Next) -> Response {
    match caught(next.run(request)).await {
        Ok(response) => response,
        Err(panicked) => Refusal::internal(&panicked).into_response(),
    }
}

/// Whether a request changes something. A search is a question, however it is sent.
fn acts(request: &Request) -> bool {
    !matches!(*request.method(), Method::GET | Method::HEAD) && request.uri().path() != "/api/search"
}

fn bears_secret(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    // A secret's form, not its beginning alone: a search for a name that begins so is fine.
    let is_secret = |text: &str| text.find(PREFIX).is_some_and(|at| text.len() - at >= 40);
    is_secret(uri.path())
        || pairs.any(|(name, value)| SECRET_NAMES.contains(&name.to_ascii_lowercase().as_str()) || is_secret(&value))
}
