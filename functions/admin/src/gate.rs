//! What every request passes first: nothing secret in its address, and an answer in bounded time.

use std::time::Duration;

use axum::extract::Request;
use axum::http::Uri;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use shared::token::PREFIX;

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
    match tokio::time::timeout(LONGEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal::unavailable(format!("it took longer than {} s", LONGEST.as_secs())).into_response(),
    }
}

fn bears_secret(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    // A secret's form, not its beginning alone: a search for a name that begins so is fine.
    let is_secret = |text: &str| text.find(PREFIX).is_some_and(|at| text.len() - at >= 40);
    is_secret(uri.path())
        || pairs.any(|(name, value)| SECRET_NAMES.contains(&name.to_ascii_lowercase().as_str()) || is_secret(&value))
}
