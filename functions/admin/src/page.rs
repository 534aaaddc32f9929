//! `GET /admin/queue-monitor` and what it is made of: plain files, compiled in, served as they are.

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use crate::Admin;

/// Nothing comes from elsewhere, nothing runs that isn't one of these files.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
const PAGE: &str = "/admin/queue-monitor";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of the page: what it is called beneath it, its type and its text.
macro_rules! files {
    ($($name:literal: $kind:ident),* $(,)?) => {
        [$(($name, $kind, include_str!(concat!("../page/", $name)))),*]
    };
}

/// All but the page itself.
const PARTS: [(&str, &str, &str); 21] = files![
    "act.js": SCRIPT,
    "api.js": SCRIPT,
    "ask.js": SCRIPT,
    "badge.js": SCRIPT,
    "coverage.js": SCRIPT,
    "element.js": SCRIPT,
    "failures.js": SCRIPT,
    "icon.svg": SVG,
    "job.js": SCRIPT,
    "jobs.js": SCRIPT,
    "main.js": SCRIPT,
    "monitor.css": CSS,
    "news.js": SCRIPT,
    "quarantine.js": SCRIPT,
    "refresh.js": SCRIPT,
    "session.js": SCRIPT,
    "stats.js": SCRIPT,
    "theme.js": SCRIPT,
    "throughput.js": SCRIPT,
    "time.js": SCRIPT,
    "workers.js": SCRIPT,
];

/// Open to anybody: there are no figures in it.
pub(crate) fn routes() -> Router<Admin> {
    let page = Router::new().route(PAGE, serve(HTML, include_str!("../page/queue-monitor.html")));
    PARTS.into_iter().fold(page, |page, (name, kind, text)| {
        page.route(&format!("{PAGE}/{name}"), serve(kind, text))
    })
}

fn serve(kind: &'static str, text: &'static str) -> axum::routing::MethodRouter<Admin> {
    let tag = tag(text);
    get(move |headers: HeaderMap| async move { answer(kind, text, &tag, &headers) })
}

fn tag(text: &str) -> String {
    let digest = Sha256::digest(text);
    let hex: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// A browser may keep it, and asks each time whether it is still the same: a new version is seen at once.
fn answer(kind: &'static str, text: &'static str, tag: &str, headers: &HeaderMap) -> Response {
    let fixed: [(HeaderName, HeaderValue); 3] = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
    ];
    let is_known = headers
        .get_all(header::IF_NONE_MATCH)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag);
    let tag = [(header::ETAG, tag)];
    if is_known {
        return (StatusCode::NOT_MODIFIED, fixed, tag).into_response();
    }
    (fixed, tag, text).into_response()
}
