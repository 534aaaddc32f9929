//! `POST /admin/login` and `POST /admin/logout`: a token traded for the page's session, and its end.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use cronvec_nouns::token::{Right, Role};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::identity::{Caller, HOURS, address, is_ours, may_be_ours, set_cookie};
use crate::request::{self, SMALL_BODY};
use crate::{Admin, Refusal};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    /// An API token of a manager or an admin.
    #[schema(example = "cvk_0bT0a6H1n0qGq5cZkzq0H1xJm5m0y3Jr2yQ8r2c3b4U")]
    token: String,
}

/// Who is signed in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SignedIn {
    success: bool,
    name: String,
    role: Role,
    /// None: all.
    projects: Option<Vec<String>>,
    /// When the session ends, in seconds since 1970.
    expires_at: i64,
}

/// Begins a session of the page.
#[utoipa::path(post, path = "/admin/login", tag = "session", request_body = Login,
    responses((status = 200, description = "The session's cookie is set for twelve hours.", body = SignedIn)))]
pub(crate) async fn login(State(admin): State<Admin>, request: axum::extract::Request) -> Result<Response, Refusal> {
    if !may_be_ours(&admin, request.headers()) {
        return Err(Refusal::forbidden(
            "the page of another address can't sign anybody in here",
        ));
    }
    if request::Kind::of(&request)? != request::Kind::Json {
        return Err(Refusal::new(
            axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body is application/json",
        ));
    }
    let (parts, body) = request.into_parts();
    let from = address(&parts);
    let body = request::bytes(axum::extract::Request::from_parts(parts, body), SMALL_BODY).await?;
    let Login { token } = request::json(&body)?;
    let caller = admin.bearer(token.trim(), from).await?.require(Right::ReadQueue)?;
    let expires_at = time::OffsetDateTime::now_utc().unix_timestamp() + HOURS * 3600;
    let cookie = set_cookie(Some(&admin.sessions().begin(caller.token, expires_at).await?));
    caller
        .audit(
            admin.store().await?,
            "token",
            "session begun",
            &[caller.token.to_string()],
            None,
        )
        .await;
    let signed_in = SignedIn {
        success: true,
        projects: caller.reach.projects().map(<[String]>::to_vec),
        name: caller.name,
        role: caller.role,
        expires_at,
    };
    Ok(([(header::SET_COOKIE, cookie)], Json(signed_in)).into_response())
}

#[derive(Serialize, ToSchema)]
pub(crate) struct SignedOut {
    success: bool,
}

/// Ends the session: the browser forgets its cookie.
#[utoipa::path(post, path = "/admin/logout", tag = "session",
    responses((status = 200, description = "The cookie is taken away.", body = SignedOut)))]
pub(crate) async fn logout(State(admin): State<Admin>, headers: HeaderMap) -> Result<Response, Refusal> {
    if !is_ours(&admin, &headers) {
        return Err(Refusal::forbidden(
            "this call doesn't come from the page: its Origin isn't PUBLIC_URL's",
        ));
    }
    Ok((
        [(header::SET_COOKIE, set_cookie(None))],
        Json(SignedOut { success: true }),
    )
        .into_response())
}

/// Who calls, and what the caller may see.
#[utoipa::path(get, path = "/api/me", tag = "session",
    responses((status = 200, description = "The bearer of the token or session.", body = Me)))]
pub(crate) async fn me(caller: Caller) -> Json<Me> {
    Json(Me {
        projects: caller.reach.projects().map(<[String]>::to_vec),
        name: caller.name,
        role: caller.role,
    })
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Me {
    name: String,
    role: Role,
    /// None: all.
    projects: Option<Vec<String>>,
}
