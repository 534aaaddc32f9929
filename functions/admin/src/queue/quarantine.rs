//! Records that stand aside: `GET /api/admin/quarantine`, `POST …/replay`, `POST …/purge`.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cronvec_store::quarantine::{Place, QuarantineFilter, Quarantined};
use cronvec_store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{ACTING, Done};
use crate::identity::{Acts, Caller, Watches};
use crate::request::{Body, Params, is_more, page_size};
use crate::{Admin, Refusal};

/// Records that one call acts on.
const MOST: usize = 10_000;
const PAGE: i64 = 500;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    #[param(example = "kb")]
    project: Option<String>,
    #[param(example = "too_long")]
    reason: Option<String>,
    /// The `next` of the page before.
    after: Option<String>,
    #[param(minimum = 1, maximum = 500)]
    limit: Option<i64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = QuarantinePage)]
pub(crate) struct Page {
    records: Vec<Quarantined>,
    /// Where the next page begins; null: there is none.
    next: Option<String>,
}

/// Records that stand aside, in the order of projects and records.
#[utoipa::path(get, path = "/api/admin/quarantine", tag = "quarantine", operation_id = "quarantine", params(Wanted),
    responses((status = 200, description = "A page of them.", body = Page)))]
pub(crate) async fn list(
    Watches(caller): Watches,
    State(admin): State<Admin>,
    Params(wanted): Params<Wanted>,
) -> Result<Json<Page>, Refusal> {
    let limit = page_size(wanted.limit, 50, 500)?;
    let reach = caller.narrowed(wanted.project.as_deref())?;
    let after = wanted.after.as_deref().map(place).transpose()?;
    let store = admin.store().await?;
    let mut found = store
        .quarantined_page(&reach, wanted.reason.as_deref(), after.as_ref(), limit + 1)
        .await?;
    let is_more = is_more(&mut found, limit);
    let next = found.last().filter(|_| is_more).map(|(_, place)| cursor(place));
    Ok(Json(Page {
        records: found.into_iter().map(|(record, _)| record).collect(),
        next,
    }))
}

fn cursor(place: &Place) -> String {
    let text = format!("{}.{}.{}", place.project_id, place.space_id, place.record_id);
    URL_SAFE_NO_PAD.encode(text)
}

fn place(cursor: &str) -> Result<Place, Refusal> {
    let read = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let mut parts = text.splitn(3, '.');
        Some(Place {
            project_id: parts.next()?.parse().ok()?,
            space_id: parts.next()?.parse().ok()?,
            record_id: parts.next()?.to_owned(),
        })
    };
    read().ok_or_else(|| Refusal::field("after", "it is the `next` of a page"))
}

/// Which records; what is left out doesn't matter, but something must be said.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WantedRecords)]
pub(crate) struct Many {
    #[schema(example = "kb")]
    project: Option<String>,
    #[schema(example = "too_long")]
    reason: Option<String>,
    /// These records, of the project that is named.
    #[schema(example = json!(["watering-tomatoes"]), max_items = 10000)]
    ids: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Replay,
    Purge,
}

/// Lets records that stand aside try again.
#[utoipa::path(post, path = "/api/admin/quarantine/replay", tag = "quarantine", operation_id = "replay",
    request_body = Many,
    responses((status = 200, description = "The records that wait again.", body = Done),
        (status = 404, description = "No such project.", body = crate::openapi::Error)))]
pub(crate) async fn replay(
    Acts(caller): Acts,
    State(admin): State<Admin>,
    Body(wanted): Body<Many>,
) -> Result<Json<Done>, Refusal> {
    many(&admin, &caller, wanted, Act::Replay).await
}

/// Forgets records that stand aside. They are embedded when their text changes, or by a backfill.
#[utoipa::path(post, path = "/api/admin/quarantine/purge", tag = "quarantine", operation_id = "purge",
    request_body = Many,
    responses((status = 200, description = "The records that are forgotten.", body = Done),
        (status = 404, description = "No such project.", body = crate::openapi::Error)))]
pub(crate) async fn purge(
    Acts(caller): Acts,
    State(admin): State<Admin>,
    Body(wanted): Body<Many>,
) -> Result<Json<Done>, Refusal> {
    many(&admin, &caller, wanted, Act::Purge).await
}

async fn many(admin: &Admin, caller: &Caller, wanted: Many, act: Act) -> Result<Json<Done>, Refusal> {
    if wanted.project.is_none() && wanted.reason.is_none() && wanted.ids.is_none() {
        return Err(Refusal::bad_request(
            "which records? Choose them by project, reason or ids",
        ));
    }
    if wanted.ids.is_some() && wanted.project.is_none() {
        return Err(Refusal::field("project", "ids are those of one project: name it"));
    }
    if wanted.ids.as_ref().is_some_and(|ids| ids.len() > MOST) {
        return Err(Refusal::field("ids", format_args!("at most {MOST}")));
    }
    let store = admin.store().await?;
    let until = Instant::now() + ACTING;
    let reach = caller.chosen(store, wanted.project.as_deref()).await?;
    let mut done = Done {
        success: true,
        count: 0,
        ids: Vec::new(),
        passed_over: None,
        more: false,
    };
    for project in reach.each() {
        let filter = QuarantineFilter {
            project,
            reason: wanted.reason.clone(),
            records: wanted.ids.clone(),
            older_than_days: None,
        };
        while done.ids.len() < MOST && Instant::now() < until {
            let page = page(store, &filter, act).await?;
            if page.is_empty() {
                break;
            }
            done.ids.extend(page);
        }
        done.more |= done.ids.len() >= MOST || Instant::now() >= until;
    }
    done.count = done.ids.len();
    if done.count > 0 {
        let told = match act {
            Act::Replay => "records replayed",
            Act::Purge => "records purged",
        };
        caller
            .audit(store, "quarantine", told, &done.ids, wanted.project.as_deref())
            .await;
    }
    Ok(Json(done))
}

async fn page(store: &Store, filter: &QuarantineFilter, act: Act) -> Result<Vec<String>, StoreError> {
    match act {
        Act::Replay => store.replay_page(filter, None, 0, PAGE).await,
        Act::Purge => store.purge_page(filter).await,
    }
}
