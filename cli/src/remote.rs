//! Owns the way from a verb to a deployment: its HTTP API, with a token. Verbs know what they ask; this knows how.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cronvec_config::{Secret, check_base_url};
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::exit::usage;

/// A request has 25 s there; a body may have a slow way.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Of an answer; a page of jobs with their results is the largest.
const MOST_BYTES: usize = 64 << 20;
/// So often a call is made, at most.
const ATTEMPTS: u32 = 5;
/// A longer wait than this isn't waited for at once.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What goes into an address's query.
pub(crate) type Query<'a> = [(&'a str, &'a str)];

pub(crate) struct Remote {
    client: reqwest::Client,
    base: Url,
    token: Secret,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.base.origin().ascii_serialization();
        f.debug_struct("Remote")
            .field("origin", &origin)
            .finish_non_exhaustive()
    }
}

/// Which calls are made again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    /// Those that came too early: they did nothing.
    TooEarly,
    /// Those that may have been done, too: once more does no harm.
    Harmless,
}

/// What a deployment says instead of doing what it was asked.
#[derive(Debug)]
pub(crate) struct Refused {
    pub status: u16,
    error: String,
    /// What of the request is wrong, where it is one thing.
    field: Option<String>,
    /// When it said to come back.
    retry_after: Option<Duration>,
}

impl Refused {
    /// The person at the keyboard can mend it: an option, or the token.
    pub fn is_usage(&self) -> bool {
        self.status == 401 || self.field.is_some()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the deployment answers {}: {}", self.status, self.error)
    }
}

impl std::error::Error for Refused {}

/// It gives no answer, or none that is its own.
#[derive(Debug)]
pub(crate) struct Unreachable(String);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the deployment can't be reached: {}", self.0)
    }
}

impl std::error::Error for Unreachable {}

/// What a call carries.
pub(crate) enum Load<'a> {
    Nothing,
    Json(&'a Value),
    Ndjson(&'a [u8]),
}

impl Remote {
    /// Looks at the address and the token, and calls nobody.
    pub fn new(address: &str, token: Option<&str>) -> Result<Self> {
        check_base_url(address).map_err(|message| usage(format!("CRONVEC_URL, or --url, {message}")))?;
        let token = Secret::new(token.unwrap_or_default());
        let is_whole = |byte: u8| byte.is_ascii_graphic();
        if token.expose().is_empty() || !token.expose().bytes().all(is_whole) {
            return Err(usage(
                "an API token is needed: set CRONVEC_TOKEN to what `cronvec token create` printed",
            ));
        }
        let base = Url::parse(address).context("the address")?;
        let client = cronvec_call::remote::client(&base).map_err(anyhow::Error::msg)?;
        Ok(Self { client, base, token })
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &Query<'_>) -> Result<T> {
        self.until(Again::TooEarly, Method::GET, path, query, &Load::Nothing)
            .await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, query: &Query<'_>, body: &Value) -> Result<T> {
        self.until(Again::TooEarly, Method::POST, path, query, &Load::Json(body))
            .await
    }

    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.until(Again::TooEarly, Method::DELETE, path, &[], &Load::Nothing)
            .await
    }

    /// Sends what does no harm twice: once more where the answer was lost, or when it was told to come back.
    pub async fn until_answered<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &Query<'_>,
        load: &Load<'_>,
    ) -> Result<T> {
        self.until(Again::Harmless, method, path, query, load).await
    }

    async fn until<T: DeserializeOwned>(
        &self,
        again: Again,
        method: Method,
        path: &str,
        query: &Query<'_>,
        load: &Load<'_>,
    ) -> Result<T> {
        let mut attempt = 0;
        loop {
            let answered = self.call(method.clone(), path, query, load).await;
            attempt += 1;
            let Err(error) = &answered else { return answered };
            let Some(wait) = wait(error, attempt, again) else {
                return answered;
            };
            tracing::warn!(%error, ?wait, "asked again");
            tokio::time::sleep(wait).await;
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &Query<'_>,
        load: &Load<'_>,
    ) -> Result<T> {
        let response = self.send(method, path, query, load).await?;
        self.read(response).await
    }

    async fn send(&self, method: Method, path: &str, query: &Query<'_>, load: &Load<'_>) -> Result<Response> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self
            .client
            .request(method, url)
            .timeout(TIMEOUT)
            .bearer_auth(self.token.expose());
        let request = match load {
            Load::Nothing => request,
            Load::Json(body) => request.json(body),
            Load::Ndjson(body) => request
                .header(reqwest::header::CONTENT_TYPE, "application/x-ndjson")
                .body(body.to_vec()),
        };
        request.send().await.map_err(|error| unreachable(error).into())
    }

    async fn read<T: DeserializeOwned>(&self, mut response: Response) -> Result<T> {
        let status = response.status();
        let retry_after = asked_wait(&response);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(Unreachable(format!("its answer has more than {MOST_BYTES} bytes")).into());
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_redirection() {
            let error = "a redirect, which isn't followed with a token: give the address that it leads to";
            return Err(self.refused(status, error, None, None));
        }
        if !status.is_success() {
            let answer: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let error = answer["error"]
                .as_str()
                .unwrap_or("no reason that could be read; is this the address of cronvec?");
            let field = answer["field"].as_str().map(str::to_owned);
            return Err(self.refused(status, error, field, retry_after));
        }
        serde_json::from_slice(&body)
            .context("the deployment's answer can't be read; is it cronvec, and of this version?")
    }

    fn refused(
        &self,
        status: StatusCode,
        error: &str,
        field: Option<String>,
        retry_after: Option<Duration>,
    ) -> anyhow::Error {
        Refused {
            status: status.as_u16(),
            // Whoever answers may repeat what it was sent.
            error: error.replace(self.token.expose(), "…"),
            field,
            retry_after,
        }
        .into()
    }
}

/// Without the address: what was searched for may stand in it.
fn unreachable(error: reqwest::Error) -> Unreachable {
    Unreachable(cronvec_edges::cause::chain(&error.without_url()))
}

/// How long to wait before a call is made again that failed for the so-manieth time; None: not at all.
fn wait(error: &anyhow::Error, failed: u32, again: Again) -> Option<Duration> {
    let own = Duration::from_secs(1 << failed.min(6)) / 2;
    let wait = match error.downcast_ref::<Refused>() {
        Some(refused) if refused.status == 429 => refused.retry_after.unwrap_or(own),
        _ if again == Again::TooEarly => return None,
        Some(refused) if matches!(refused.status, 502..=504) => refused.retry_after.unwrap_or(own),
        None if error.is::<Unreachable>() => own,
        _ => return None,
    };
    (failed < ATTEMPTS && wait <= LONGEST_WAIT).then_some(wait)
}

fn asked_wait(response: &Response) -> Option<Duration> {
    let seconds = response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether an error is a deployment's answer with this status.
pub(crate) fn is_refused_with(error: &anyhow::Error, status: u16) -> bool {
    error
        .downcast_ref::<Refused>()
        .is_some_and(|refused| refused.status == status)
}
