//! The one form that every error takes: `{success:false, error}` and a status.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use cronvec_edges::cause::chain;
use cronvec_store::StoreError;
use cronvec_store::connect::ConnectError;
use serde_json::{Map, Value, json};

/// When to come back, where nobody knows better.
const SOON: u64 = 5;

/// An answer that isn't what was asked for.
#[derive(Clone, Debug)]
pub struct Refusal {
    status: StatusCode,
    error: Cow<'static, str>,
    more: Map<String, Value>,
    retry_after: Option<u64>,
}

impl Refusal {
    /// An answer with this status, saying why.
    pub fn new(status: StatusCode, error: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            error: error.into(),
            more: Map::new(),
            retry_after: None,
        }
    }

    /// 400: the request says something that it can't mean. `field` is what is wrong with it.
    pub fn field(field: &str, error: impl std::fmt::Display) -> Self {
        let refusal = Self::bad_request(format!("{field}: {error}"));
        refusal.with("field", field)
    }

    pub fn bad_request(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// 401: nobody we know.
    pub fn unauthorised() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "a valid API token is needed: Authorization: Bearer cvk_…, or a session of the page",
        )
    }

    /// 403: somebody we know, who may not do this.
    pub fn forbidden(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, error)
    }

    pub fn not_found(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    pub fn too_large(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, error)
    }

    /// 429: not before so long. Seconds are whole ones, and never too few.
    pub fn slow_down(why: &str, wait: Duration) -> Self {
        let seconds = wait.as_secs() + 1;
        let error = format!("{why}; come back in {seconds} s");
        Self::new(StatusCode::TOO_MANY_REQUESTS, error).after(seconds)
    }

    /// 503: something that we depend on isn't there.
    pub fn unavailable(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error).after(SOON)
    }

    /// 500: a fault of ours. What it is stands in the log, where who may read it is known.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(error), "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "something went wrong here; the log has it",
        )
    }

    /// One more field of the body.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::NoProject(name) => Self::not_found(format!("no project '{name}'")),
            StoreError::NoJob(id) => Self::not_found(format!("no job {id}")),
            StoreError::ActiveJob { active, .. } => {
                Self::new(StatusCode::CONFLICT, error.to_string()).with("activeJobId", active.to_string())
            }
            StoreError::Conflict(message) => Self::new(StatusCode::CONFLICT, message.clone()),
            StoreError::Invalid(message) => Self::bad_request(message.clone()),
            _ if error.is_temporary() => {
                tracing::error!(error = %chain(&error), "the database didn't answer a request");
                Self::unavailable("the database isn't reachable, or too busy")
            }
            // A connection that is refused for its settings is no outage for the workers, but it isn't there either.
            StoreError::Connect(_) | StoreError::Schema(_) => {
                tracing::error!(error = %chain(&error), "the database can't be used");
                Self::unavailable("the database can't be used; the log says why")
            }
            _ if error.is_value_refused() => {
                Self::bad_request("a value can't be stored: a number out of its range, or text with a NUL byte")
            }
            _ => Self::internal(&error),
        }
    }
}

impl From<ConnectError> for Refusal {
    fn from(error: ConnectError) -> Self {
        StoreError::from(error).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = self.more;
        body.insert("success".to_owned(), Value::Bool(false));
        body.insert("error".to_owned(), self.error.into());
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

pub(crate) async fn no_such_path() -> Refusal {
    Refusal::not_found("no such path")
}

pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("method {method} isn't allowed at {}", uri.path()),
    )
}

pub(crate) async fn unread_settings() -> Response {
    let error = "the settings have problems; the log names each";
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        Json(json!({"success": false, "error": error})),
    )
        .into_response()
}
