//! The headers that every answer has, whatever it says.

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{self, HeaderName};
use axum::middleware;
use axum::response::Response;
use cronvec_config::AppEnv;

const ALWAYS: [(HeaderName, &str); 7] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    // JSON shows and runs nothing. A page has a policy of its own.
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=()",
    ),
];
const TWO_YEARS: &str = "max-age=63072000; includeSubDomains";

/// Adds what an answer doesn't say itself, and answers 500 where a handler panics. Applied to all that is served, not only
/// to what is ours.
pub fn protect<S: Clone + Send + Sync + 'static>(router: Router<S>, app_env: AppEnv) -> Router<S> {
    router
        .layer(middleware::from_fn(crate::gate::survive))
        .layer(middleware::map_response(move |response| async move {
            add(response, app_env)
        }))
}

fn add(mut response: Response, app_env: AppEnv) -> Response {
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if app_env == AppEnv::Production {
        headers
            .entry(header::STRICT_TRANSPORT_SECURITY)
            .or_insert(HeaderValue::from_static(TWO_YEARS));
    }
    response
}
