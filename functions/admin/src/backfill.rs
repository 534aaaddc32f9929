//! `GET` and `POST /api/admin/backfill`, `POST /api/admin/backfill/stop`. What is marked here the schedule embeds.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cronvec_store::backfill::{Backfill, Left};
use cronvec_store::backfill_progress::HowFar;
use cronvec_store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::identity::{Acts, Watches};
use crate::request::{Body, Params, page_size};
use crate::{Admin, Refusal};

/// What users write comes first.
const LOW: i32 = -10;
const RECORDS_A_PAGE: i64 = 1000;
/// Who drives a backfill says so more often.
const SILENT_SECONDS: f64 = 30.0;
/// Marking stops here; the next call goes on.
const MARKING: Duration = Duration::from_secs(10);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    #[param(example = "kb")]
    project: Option<String>,
    #[param(minimum = 1, maximum = 100)]
    limit: Option<i64>,
}

/// A backfill and how far it is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BackfillProgress)]
pub(crate) struct Progress {
    #[serde(flatten)]
    backfill: Backfill,
    /// Every record was looked at; false: call again to go on.
    marked_all: bool,
    /// Of what it marked, still pending.
    left: i64,
    done: i64,
    #[serde(flatten)]
    how_far: HowFar,
    /// Since somebody last drove it.
    silent_seconds: f64,
}

/// The latest backfills and how far they are.
#[utoipa::path(get, path = "/api/admin/backfill", tag = "backfill", operation_id = "backfills", params(Wanted),
    responses((status = 200, description = "The newest first.", body = Vec<Progress>),
        (status = 404, description = "No such project.", body = crate::openapi::Error)))]
pub(crate) async fn list(
    Watches(caller): Watches,
    State(admin): State<Admin>,
    Params(wanted): Params<Wanted>,
) -> Result<Json<Vec<Progress>>, Refusal> {
    let limit = page_size(wanted.limit, 10, 100)?;
    let store = admin.store().await?;
    let reach = caller.chosen(store, wanted.project.as_deref()).await?;
    let mut all = Vec::new();
    for backfill in backfills(store, reach.projects(), limit).await? {
        all.push(progress(store, backfill).await?);
    }
    Ok(Json(all))
}

async fn backfills(store: &Store, projects: Option<&[String]>, limit: i64) -> Result<Vec<Backfill>, StoreError> {
    let Some(names) = projects else {
        return store.backfills(None, limit).await;
    };
    let mut all = Vec::new();
    for name in names {
        all.extend(store.backfills(Some(name), limit).await?);
    }
    all.sort_by_key(|backfill| std::cmp::Reverse(backfill.id));
    all.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(all)
}

async fn progress(store: &Store, mut backfill: Backfill) -> Result<Progress, StoreError> {
    let Left { own: left, records, .. } = store.backfill_left(&backfill).await?;
    let marked_all = backfill.has_marked_all();
    // Nobody drives what was begun over HTTP: whoever looks sees that it is over. One that is driven isn't silent. If it found
    // nothing to mark, it is about what was pending already.
    let is_through = left == 0 && (backfill.marked > 0 || records == 0);
    let is_over = backfill.state == "running" && marked_all && is_through && backfill.silent_seconds > SILENT_SECONDS;
    if is_over && store.set_backfill(backfill.id, "finished", 0).await? {
        backfill = store.backfill(backfill.id).await?;
    }
    Ok(Progress {
        silent_seconds: backfill.silent_seconds,
        done: (backfill.marked - backfill.withdrawn - left).max(0),
        how_far: store.how_far(&backfill, left).await?,
        backfill,
        marked_all,
        left,
    })
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewBackfill)]
pub(crate) struct Begin {
    #[schema(example = "kb")]
    project: String,
    /// How urgent its records are; low unless told otherwise.
    #[schema(default = -10, minimum = -2147483647)]
    priority: Option<i32>,
}

/// Marks what of a project isn't embedded, or goes on with a backfill that isn't over.
#[utoipa::path(post, path = "/api/admin/backfill", tag = "backfill", operation_id = "beginBackfill",
    request_body = Begin,
    responses((status = 202, description = "The schedule embeds what is marked.", body = Progress),
        (status = 404, description = "No such project.", body = crate::openapi::Error)))]
pub(crate) async fn begin(
    Acts(caller): Acts,
    State(admin): State<Admin>,
    Body(wanted): Body<Begin>,
) -> Result<(StatusCode, Json<Progress>), Refusal> {
    caller.project(&wanted.project)?;
    if !admin.settings().embedding.search_enabled {
        return Err(Refusal::unavailable(
            "nothing is embedded: SEMANTIC_SEARCH_ENABLED is false",
        ));
    }
    if wanted.priority == Some(i32::MIN) {
        return Err(Refusal::field(
            "priority",
            format_args!("it is larger than {}", i32::MIN),
        ));
    }
    let store = admin.store().await?;
    let project = store.project(&wanted.project).await?;
    let (backfill, is_new) = store.begin_backfill(project.id, wanted.priority.unwrap_or(LOW)).await?;
    store.lift_holds(project.id).await?;
    let id = backfill.id.to_string();
    let told = if is_new {
        "backfill begun"
    } else {
        "backfill gone on with"
    };
    caller
        .audit(store, "backfill", told, std::slice::from_ref(&id), Some(&project.name))
        .await;
    let began = Instant::now();
    while began.elapsed() < MARKING {
        match store.mark_page(backfill.id, RECORDS_A_PAGE).await? {
            Some(page) if !page.is_through => {}
            // Through, or stopped meanwhile.
            _ => break,
        }
    }
    let now = progress(store, store.backfill(backfill.id).await?).await?;
    Ok((StatusCode::ACCEPTED, Json(now)))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WhichBackfills)]
pub(crate) struct Which {
    /// Without one all that the caller reaches.
    #[schema(example = "kb")]
    project: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Stopped {
    success: bool,
    /// Their operations.
    stopped: Vec<String>,
}

/// Ends backfills that run, wherever. What they marked goes on being embedded.
#[utoipa::path(post, path = "/api/admin/backfill/stop", tag = "backfill", operation_id = "stopBackfill",
    request_body = Which,
    responses((status = 200, description = "Those that were stopped.", body = Stopped),
        (status = 404, description = "No such project.", body = crate::openapi::Error)))]
pub(crate) async fn stop(
    Acts(caller): Acts,
    State(admin): State<Admin>,
    Body(which): Body<Which>,
) -> Result<Json<Stopped>, Refusal> {
    let store = admin.store().await?;
    let reach = caller.chosen(store, which.project.as_deref()).await?;
    let mut stopped = Vec::new();
    for backfill in backfills(store, reach.projects(), 1000).await? {
        if backfill.state == "running" && store.set_backfill(backfill.id, "stopped", 0).await? {
            stopped.push(backfill.id.to_string());
        }
    }
    if !stopped.is_empty() {
        caller
            .audit(
                store,
                "backfill",
                "backfill stopped",
                &stopped,
                which.project.as_deref(),
            )
            .await;
    }
    Ok(Json(Stopped { success: true, stopped }))
}
