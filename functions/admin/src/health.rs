//! `GET /api/health`: whether requests that need the database can be served.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use shared::call::chain;

use crate::{Admin, Refusal};

/// 200 when the database answers, else 503. Nobody's rights are checked here, so why it doesn't is for the log.
pub async fn answer(State(admin): State<Admin>) -> Result<Json<Value>, Refusal> {
    let checked = match admin.database().await {
        Ok(database) => database.check().await,
        Err(error) => Err(error),
    };
    match checked {
        Ok(()) => Ok(Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))),
        Err(error) => {
            tracing::error!(error = %chain(&error), "the database is not reachable");
            Err(Refusal::unavailable("the database is not reachable"))
        }
    }
}
