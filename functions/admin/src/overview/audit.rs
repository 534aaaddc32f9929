//! `GET /api/admin/audit`

use axum::Json;
use axum::extract::State;
use cronvec_store::audit::AuditEntry;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::identity::Watches;
use crate::request::{Params, is_more, number, page_size};
use crate::{Admin, Refusal};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// The `next` of the page before.
    after: Option<String>,
    #[param(minimum = 1, maximum = 500)]
    limit: Option<i64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AuditPage)]
pub(crate) struct Page {
    entries: Vec<AuditEntry>,
    /// Where the next page begins; null: there is none.
    next: Option<String>,
}

/// Who did what to which ids, the newest first. A token that is limited sees the entries that name its projects.
#[utoipa::path(get, path = "/api/admin/audit", tag = "overview", operation_id = "audit", params(Wanted),
    responses((status = 200, description = "A page of them.", body = Page)))]
pub(crate) async fn list(
    Watches(caller): Watches,
    State(admin): State<Admin>,
    Params(wanted): Params<Wanted>,
) -> Result<Json<Page>, Refusal> {
    let limit = page_size(wanted.limit, 50, 500)?;
    let before = wanted
        .after
        .as_deref()
        .map(|after| number("after", after))
        .transpose()?;
    let mut found = admin
        .store()
        .await?
        .audit_page(&caller.reach, before, limit + 1)
        .await?;
    let is_more = is_more(&mut found, limit);
    Ok(Json(Page {
        next: found.last().filter(|_| is_more).map(|(id, _)| id.to_string()),
        entries: found.into_iter().map(|(_, entry)| entry).collect(),
    }))
}
