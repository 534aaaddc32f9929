//! `GET /api/health`: whether requests that need the database can be served. `GET /healthz`: whether anything is.

use axum::Json;
use axum::extract::State;
use cronvec_edges::cause::chain;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{Admin, Refusal};

#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
    version: &'static str,
}

/// 200 when the database answers, else 503. Nobody's rights are checked here, so why it doesn't is for the log.
#[utoipa::path(get, path = "/api/health", tag = "health", security(()),
    responses((status = 200, description = "Requests can be served.", body = Health)))]
pub(crate) async fn answer(State(admin): State<Admin>) -> Result<Json<Health>, Refusal> {
    let checked = match admin.database().await {
        Ok(database) => database.check().await,
        Err(error) => Err(error),
    };
    match checked {
        Ok(()) => Ok(Json(Health {
            status: "ok",
            version: env!("CARGO_PKG_VERSION"),
        })),
        Err(error) => {
            tracing::error!(error = %chain(&error), "the database is not reachable");
            Err(Refusal::unavailable("the database is not reachable"))
        }
    }
}

/// Whether the process answers, for load balancers and probes: 200 and `ok`. The database isn't asked.
#[utoipa::path(get, path = "/healthz", tag = "health", operation_id = "alive", security(()),
    responses((status = 200, description = "It answers.", body = String, content_type = "text/plain", example = "ok")))]
pub(crate) async fn alive() -> &'static str {
    "ok"
}
