//! `GET /api/admin/failures`

use axum::Json;
use axum::extract::State;
use cronvec_store::monitor::Failure;

use crate::identity::Watches;
use crate::{Admin, Refusal};

/// The latest failed jobs by their reason, the most frequent first.
#[utoipa::path(get, path = "/api/admin/failures", tag = "queue", operation_id = "failures",
    responses((status = 200, description = "Of the latest 1,000.", body = Vec<Failure>)))]
pub(crate) async fn list(Watches(caller): Watches, State(admin): State<Admin>) -> Result<Json<Vec<Failure>>, Refusal> {
    Ok(Json(admin.store().await?.failures_of(&caller.reach).await?))
}
