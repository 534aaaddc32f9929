//! Owns the HTTP client that tests speak with.

/// A client of one's own. The process's TLS provider is chosen first: without one `reqwest` panics, even for `http:`.
pub fn client() -> reqwest::Client {
    // A second one to choose is refused, and no matter.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}
