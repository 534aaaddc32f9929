//! Owns HTTP to providers: clients, dead sockets, the size of answers. Refuses to understand what it carries.

use std::error::Error;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Client;
use reqwest::header::HeaderMap;
use url::Url;

use super::Failure;
use cronvec_edges::near::is_near;

/// A provider that takes longer to accept a connection is as good as away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Load balancers close idle connections after a minute and more: ours are gone before theirs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// As much of a refusal as is read for its message.
const REFUSAL_BYTES: usize = 64 * 1024;

/// An answer, its body read.
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// Posts `body`, and once more on a fresh connection if `answered_before` and the first went down before any answer
/// began: after a Lambda's freeze the pool's sockets are dead, and only their use tells. HTTP's errors don't say
/// whether a connection was new, so an endpoint that has answered in this process before is taken for one whose
/// connection was reused. An embedding asked twice does no harm.
///
/// Room is made for a 2xx body of `expected_bytes`; one over `most_bytes` is a bad answer; other bodies are cut short. There is no time-out but the one for
/// connecting: the caller has one around all of this.
pub async fn post(
    url: &Url,
    headers: HeaderMap,
    body: Bytes,
    expected_bytes: usize,
    most_bytes: usize,
    answered_before: bool,
) -> Result<Reply, Failure> {
    let proxied = !url.host().is_some_and(|host| is_near(&host));
    let send = |client: &Client| {
        client
            .post(url.clone())
            .headers(headers.clone())
            .body(body.clone())
            .send()
    };
    let response = match send(client(proxied, true)?).await {
        Err(error) if answered_before && died_before_answering(&error) => {
            tracing::debug!(error = %describe(&error), "a pooled connection was dead; asking again on a new one");
            send(client(proxied, false)?).await
        }
        result => result,
    };
    let mut response = response.map_err(|error| Failure::Unavailable {
        retry_after: None,
        message: describe(&error),
    })?;

    let status = response.status();
    let most_bytes = if status.is_success() { most_bytes } else { REFUSAL_BYTES };
    let announced = response
        .content_length()
        .and_then(|length| usize::try_from(length).ok())
        .unwrap_or(0);
    let too_large = || Failure::BadAnswer {
        message: format!("an answer of more than {most_bytes} bytes"),
    };
    if status.is_success() && announced > most_bytes {
        return Err(too_large());
    }
    let headers = std::mem::take(response.headers_mut());
    // Many answers come in pieces that announce no length; growing with each would copy all of it over and over.
    let mut body = Vec::with_capacity(if status.is_success() {
        announced.max(expected_bytes).min(most_bytes)
    } else {
        0
    });
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= most_bytes => body.extend_from_slice(&chunk),
            Ok(Some(_)) if status.is_success() => return Err(too_large()),
            Ok(None) => break,
            Err(error) if status.is_success() => {
                return Err(Failure::Unavailable {
                    retry_after: None,
                    message: describe(&error),
                });
            }
            // Of a refusal, the status is what counts.
            Ok(Some(_)) | Err(_) => break,
        }
    }
    Ok(Reply {
        status: status.as_u16(),
        headers,
        body,
    })
}

/// One client for each of four uses, shared by all endpoints. Proxies of the environment are meant for addresses
/// outside; `pooled` is false for the one that always connects anew.
fn client(proxied: bool, pooled: bool) -> Result<&'static Client, Failure> {
    static CLIENTS: [OnceLock<Result<Client, String>>; 4] = [const { OnceLock::new() }; 4];
    let built = CLIENTS[usize::from(proxied) * 2 + usize::from(pooled)].get_or_init(|| {
        let builder = cronvec_edges::http::client(proxied)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true);
        let builder = if pooled {
            builder
        } else {
            builder.pool_max_idle_per_host(0)
        };
        builder.build().map_err(|error| describe(&error))
    });
    built.as_ref().map_err(|error| Failure::Misconfigured {
        message: format!("no HTTP client: {error}"),
    })
}

/// The connection stood, the request went out or nearly, and no head of an answer came back.
fn died_before_answering(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_connect() && !error.is_timeout()
}

/// The error and its causes on one line, without the URL, which may hold a key.
fn describe(error: &reqwest::Error) -> String {
    let mut text = match () {
        () if error.is_connect() => "can't connect".to_owned(),
        () if error.is_body() || error.is_decode() => "the answer broke off".to_owned(),
        () => "the request got no answer".to_owned(),
    };
    let mut cause = error.source();
    let mut last = None;
    while let Some(error) = cause {
        last = Some(error.to_string());
        cause = error.source();
    }
    if let Some(last) = last {
        text.push_str(": ");
        text.push_str(&last);
    }
    text
}

#[cfg(test)]
mod tests;
