//! Owns how each HTTP client of ours begins: its TLS, its name, and what it keeps a key or a token from. Refuses to know whom
//! it asks.

use std::time::Duration;

use reqwest::{Client, ClientBuilder, redirect};
use url::Host;

use crate::{near, tls};

/// What takes longer to accept a connection is as good as away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client for this host. It follows no redirect, which would take what it bears elsewhere. A near host is asked past the
/// proxies of the environment: they are meant for addresses outside, and would read plain http.
pub fn client_for(host: Option<&Host<&str>>) -> ClientBuilder {
    client(!host.is_some_and(near::is_near))
}

/// The same for hosts of one kind, near ones or those that the environment's proxies are meant for.
#[expect(clippy::disallowed_methods, reason = "the one place that all clients come from")]
pub fn client(proxied: bool) -> ClientBuilder {
    tls::install();
    let builder = Client::builder()
        .user_agent(concat!("cronvec/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT);
    if proxied { builder } else { builder.no_proxy() }
}
