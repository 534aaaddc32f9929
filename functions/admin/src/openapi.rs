//! `GET /api/openapi.json`: what the API takes and answers, from the types that do so.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi as _, ToSchema};

use crate::{Admin, producer, reference};

/// What every error is.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"success": false, "error": "limit: it is a number from 1 to 500", "field": "limit"}))]
#[allow(dead_code, reason = "describes what `Refusal` writes")]
#[serde(rename_all = "camelCase")]
pub(crate) struct Error {
    /// Always false.
    success: bool,
    /// What is wrong, for people.
    error: String,
    /// Of a 400: the field that is wrong, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// Of a 409 that says so: the job that has the lane.
    #[serde(skip_serializing_if = "Option::is_none")]
    active_job_id: Option<String>,
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "cronvec", description = "Feeds records into the pipeline, searches them, watches and steers the queue."),
    paths(producer::record::put, producer::record::get, producer::record::delete),
    components(schemas(Error)),
    modifiers(&Ways),
    security(("token" = []), ("session" = []))
)]
struct Document;

struct Ways;

impl Modify for Ways {
    fn modify(&self, openapi: &mut OpenApi) {
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("cvk_…")
            .description(Some("An API token: cronvec token create NAME --role ROLE"))
            .build();
        let session = ApiKey::Cookie(ApiKeyValue::with_description(
            "__Host-cronvec",
            "Set by POST /admin/login. Calls that change something need the page's Origin beside it.",
        ));
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(token));
        components.add_security_scheme("session", SecurityScheme::ApiKey(session));
    }
}

/// The document without its paths.
pub(crate) fn head() -> OpenApi {
    Document::openapi()
}

/// Serves the document of these routes beside them, for programs and as a page.
pub(crate) fn serve(router: Router<Admin>, document: OpenApi) -> Router<Admin> {
    let document = whole(document);
    let text: Arc<str> = document.to_string().into();
    reference::serve(router, &document).route(
        "/api/openapi.json",
        get(move || {
            let text = Arc::clone(&text);
            async move {
                let kind = HeaderValue::from_static("application/json");
                ([(header::CONTENT_TYPE, kind)], text.to_string()).into_response()
            }
        }),
    )
}

/// The document with the errors that every operation may answer.
fn whole(document: OpenApi) -> Value {
    // It is made of plain values.
    let mut whole = serde_json::to_value(document).unwrap_or_default();
    let paths = whole["paths"].as_object_mut().into_iter().flatten();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object_mut().into_iter().flatten() {
            let is_open = operation["security"] == json!([{}]) || path.starts_with("/admin/log");
            let has_body = operation.get("requestBody").is_some();
            if let Some(responses) = operation["responses"].as_object_mut() {
                for (status, what) in errors(is_open, has_body) {
                    responses.entry(status).or_insert_with(|| refused(what));
                }
            }
            debug_assert!(["get", "put", "post", "delete"].contains(&method.as_str()), "{method}");
        }
    }
    whole
}

fn errors(is_open: bool, has_body: bool) -> Vec<(&'static str, &'static str)> {
    let mut all = vec![
        (
            "400",
            "The request says something that it can't mean; `field` names what.",
        ),
        ("500", "A fault of ours; the log has it."),
        (
            "503",
            "Something that it needs isn't there; Retry-After says when to come back.",
        ),
    ];
    if !is_open || has_body {
        all.extend([
            (
                "409",
                "It collides with what is there, such as a project that is being removed.",
            ),
            ("401", "No token, or none that is good."),
            (
                "403",
                "The token's role or its projects don't allow it, or a session's call doesn't come from the page.",
            ),
            (
                "429",
                "Too many calls with this token, or too many failed attempts from this address; Retry-After says when to come back.",
            ),
        ]);
    }
    if is_open && !has_body {
        all.push(("403", "The call doesn't come from the page."));
    }
    if has_body {
        all.extend([
            ("413", "The body is too large."),
            ("415", "The body's Content-Type isn't one that is read."),
        ]);
    }
    all
}

/// One error as the document has it.
fn refused(what: &str) -> Value {
    json!({"description": what, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}})
}
