//! Whether a browser's request comes from the page itself.

use axum::http::{HeaderMap, header};
use cronvec_config::AppEnv;
use url::Url;

use crate::Admin;

/// It says so, and it is true.
pub fn is_ours(admin: &Admin, headers: &HeaderMap) -> bool {
    origin(headers).is_some_and(|origin| is_page(admin, headers, origin))
}

/// The same, or it says nothing: then no browser sends it.
pub fn may_be_ours(admin: &Admin, headers: &HeaderMap) -> bool {
    !headers.contains_key(header::ORIGIN) || is_ours(admin, headers)
}

fn origin(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::ORIGIN).into_iter();
    let first = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(first)
}

fn is_page(admin: &Admin, headers: &HeaderMap, origin: &str) -> bool {
    let settings = admin.settings();
    if let Some(url) = &settings.public_url {
        return Url::parse(url).is_ok_and(|url| url.origin().ascii_serialization() == origin);
    }
    // In production there is none without PUBLIC_URL.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    settings.app_env == AppEnv::Development
        && host.is_some_and(|host| {
            [format!("http://{host}"), format!("https://{host}")]
                .iter()
                .any(|own| own == origin)
        })
}
