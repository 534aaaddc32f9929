//! `GET` and `POST /api/admin/tokens`, `DELETE /api/admin/tokens/{id}`. For admins of all projects alone: whoever makes
//! tokens makes admins.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cronvec_nouns::token::{self, Role};
use cronvec_store::tokens::{NewToken, TokenView};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::identity::Acts;
use crate::request::{At, Body, Params, number};
use crate::{Admin, Refusal};

const LONGEST_DAYS: f64 = 3650.0;
const MOST_PROJECTS: usize = 1000;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Those that were revoked or ran out, too.
    all: Option<bool>,
}

/// The tokens and when each was used last; never their secrets.
#[utoipa::path(get, path = "/api/admin/tokens", tag = "tokens", operation_id = "tokens", params(Wanted),
    responses((status = 200, description = "The newest first.", body = Vec<TokenView>)))]
pub(crate) async fn list(
    Acts(caller): Acts,
    State(admin): State<Admin>,
    Params(wanted): Params<Wanted>,
) -> Result<Json<Vec<TokenView>>, Refusal> {
    caller.all_projects()?;
    Ok(Json(admin.store().await?.tokens(wanted.all == Some(true)).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewToken)]
pub(crate) struct New {
    /// Whose it is, or what for.
    #[schema(example = "the shop's importer", min_length = 1, max_length = 200)]
    name: String,
    role: Role,
    /// Only these; else all there are and will be.
    #[schema(example = json!(["kb"]), min_items = 1)]
    projects: Option<Vec<String>>,
    /// It ends by itself after so many days.
    #[schema(minimum = 0.001, maximum = 3650)]
    expires_in_days: Option<f64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = MadeToken)]
pub(crate) struct Made {
    #[serde(flatten)]
    made: TokenView,
    /// The secret; it isn't shown again.
    #[schema(example = "cvk_0bT0a6H1n0qGq5cZkzq0H1xJm5m0y3Jr2yQ8r2c3b4U")]
    token: String,
}

/// A new token; its secret is shown this once.
#[utoipa::path(post, path = "/api/admin/tokens", tag = "tokens", operation_id = "createToken", request_body = New,
    responses((status = 201, description = "The token.", body = Made),
        (status = 404, description = "No such project.", body = crate::openapi::Error),
        (status = 409, description = "There is one of this name.", body = crate::openapi::Error)))]
pub(crate) async fn create(
    Acts(caller): Acts,
    State(admin): State<Admin>,
    Body(new): Body<New>,
) -> Result<(StatusCode, Json<Made>), Refusal> {
    caller.all_projects()?;
    if new
        .expires_in_days
        .is_some_and(|days| !(0.001..=LONGEST_DAYS).contains(&days))
    {
        return Err(Refusal::field(
            "expiresInDays",
            format_args!("it is a number up to {LONGEST_DAYS}"),
        ));
    }
    if new
        .projects
        .as_ref()
        .is_some_and(|names| names.is_empty() || names.len() > MOST_PROJECTS)
    {
        return Err(Refusal::field(
            "projects",
            format_args!("from 1 to {MOST_PROJECTS}; without it all"),
        ));
    }
    let store = admin.store().await?;
    for name in new.projects.iter().flatten() {
        store.project(name).await?;
    }
    let secret = token::generate();
    let made = store
        .create_token(&NewToken {
            name: &new.name,
            role: new.role,
            projects: new.projects.as_deref(),
            hash: token::hash(&secret),
            hint: &token::hint(&secret),
            expires_in_days: new.expires_in_days,
        })
        .await?;
    let ids = [made.id.clone(), made.name.clone()];
    caller.audit(store, "token", "token created", &ids, None).await;
    Ok((StatusCode::CREATED, Json(Made { made, token: secret })))
}

/// Ends a token and every session that began with it.
#[utoipa::path(delete, path = "/api/admin/tokens/{id}", tag = "tokens", operation_id = "revokeToken",
    params(("id" = String, Path, example = "7")),
    responses((status = 200, description = "It is revoked.", body = TokenView),
        (status = 404, description = "No such token, or one that is revoked.", body = crate::openapi::Error)))]
pub(crate) async fn revoke(
    Acts(caller): Acts,
    State(admin): State<Admin>,
    At(id): At<String>,
) -> Result<Json<TokenView>, Refusal> {
    caller.all_projects()?;
    let id: i32 = number("id", &id)?;
    let store = admin.store().await?;
    let revoked = store.revoke_token(id).await?;
    let revoked = revoked.ok_or_else(|| Refusal::not_found(format!("no token {id} that isn't revoked")))?;
    let ids = [revoked.id.clone(), revoked.name.clone()];
    caller.audit(store, "token", "token revoked", &ids, None).await;
    Ok(Json(revoked))
}
