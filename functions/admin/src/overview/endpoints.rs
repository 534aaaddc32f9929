//! `GET /api/admin/endpoints`

use axum::Json;
use axum::extract::State;
use cronvec_store::monitor::Rest;

use crate::identity::Watches;
use crate::{Admin, Refusal};

/// Providers' endpoints that nobody asks now, until when, and why.
#[utoipa::path(get, path = "/api/admin/endpoints", tag = "overview", operation_id = "endpoints",
    responses((status = 200, description = "Those that rest.", body = Vec<Rest>)))]
pub(crate) async fn list(Watches(caller): Watches, State(admin): State<Admin>) -> Result<Json<Vec<Rest>>, Refusal> {
    Ok(Json(admin.store().await?.rests_of(&caller.reach).await?))
}
