//! The one form that every error takes: `{success:false, error}` and a status.

use axum::Json;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An answer that isn't what was asked for.
#[derive(Clone, Debug)]
pub struct Refusal {
    status: StatusCode,
    error: String,
}

impl Refusal {
    /// An answer with this status, saying why.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
        }
    }

    /// 503: something that we depend on isn't there.
    pub fn unavailable(error: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"success": false, "error": self.error}))).into_response()
    }
}

pub(crate) async fn no_such_path(uri: Uri) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("no such path: {}", uri.path()))
}

pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("method {method} isn't allowed at {}", uri.path()),
    )
}

pub(crate) async fn unread_settings() -> Refusal {
    let error = "the settings have problems; the log names each";
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error)
}
