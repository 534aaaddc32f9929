//! `GET /api/admin/jobs` and `GET /api/admin/jobs/{id}`

use axum::Json;
use axum::extract::State;
use cronvec_nouns::token::{Reach, Right};
use cronvec_store::listing::{Event, ListedJob, Listing};
use cronvec_store::selection::JobDetail;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::act::project_of;
use super::{job_type, status};
use crate::identity::Watches;
use crate::request::{At, Params, number, page_size};
use crate::{Admin, Refusal};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    #[param(example = "FAILED")]
    status: Option<String>,
    #[serde(rename = "type")]
    #[param(example = "VECTORIZE")]
    kind: Option<String>,
    #[param(example = "kb")]
    project: Option<String>,
    /// A job's id, or a part of a project's name.
    search: Option<String>,
    /// The `next` of the page before.
    before: Option<String>,
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JobsPage)]
pub(crate) struct Page {
    jobs: Vec<ListedJob>,
    /// Where the next page begins; null: there is none.
    next: Option<String>,
}

/// The latest jobs, page by page.
#[utoipa::path(get, path = "/api/admin/jobs", tag = "queue", operation_id = "jobs", params(Wanted),
    responses((status = 200, description = "A page of them, the newest first.", body = Page)))]
pub(crate) async fn list(
    Watches(caller): Watches,
    State(admin): State<Admin>,
    Params(wanted): Params<Wanted>,
) -> Result<Json<Page>, Refusal> {
    let limit = page_size(wanted.limit, 50, 200)?;
    let before = wanted
        .before
        .as_deref()
        .map(|before| number("before", before))
        .transpose()?;
    let store = admin.store().await?;
    let mut listing = Listing {
        status: status(wanted.status.as_deref())?,
        job_type: job_type(wanted.kind.as_deref())?,
        reach: caller.narrowed(wanted.project.as_deref())?,
        id: None,
    };
    let search = wanted
        .search
        .as_deref()
        .map(str::trim)
        .filter(|search| !search.is_empty());
    if let Some(search) = search {
        match search.parse() {
            Ok(id) => listing.id = Some(id),
            Err(_) => {
                let found = store.projects_named_like(search).await?;
                let reached = found.into_iter().filter(|name| listing.reach.includes(name)).collect();
                listing.reach = Reach::of(Some(reached));
            }
        }
    }
    let jobs = store.jobs_page(&listing, before, limit + 1).await?;
    let mut page = Page { jobs, next: None };
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    if page.jobs.len() > wanted {
        page.jobs.truncate(wanted);
        page.next = page.jobs.last().map(|last| last.job.id.clone());
    }
    Ok(Json(page))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Detail {
    /// Also what it was handed; for admins.
    payload: Option<bool>,
}

/// All of a job; its payload only where it was asked for.
#[derive(Serialize, ToSchema)]
#[schema(as = Job)]
pub(crate) struct Whole {
    #[serde(flatten)]
    job: JobDetail,
    /// Why it failed, or failed last.
    error: Option<String>,
    timeline: Vec<Event>,
}

/// One job with what happened to it.
#[utoipa::path(get, path = "/api/admin/jobs/{id}", tag = "queue", operation_id = "job",
    params(("id" = String, Path, example = "4711"), Detail),
    responses((status = 200, description = "The job.", body = Whole),
        (status = 404, description = "No such job.", body = crate::openapi::Error)))]
pub(crate) async fn one(
    Watches(caller): Watches,
    State(admin): State<Admin>,
    At(id): At<String>,
    Params(detail): Params<Detail>,
) -> Result<Json<Whole>, Refusal> {
    let id = number("id", &id)?;
    let wants_payload = detail.payload == Some(true);
    if wants_payload && !caller.role.may(Right::Act) {
        return Err(Refusal::forbidden("what a job was handed is for admins"));
    }
    let store = admin.store().await?;
    project_of(store, &caller, id).await?;
    let mut job = store.job_detail(id).await?;
    job.payload = if wants_payload {
        store.job_payload(id).await?
    } else {
        None
    };
    let error = job.job.result.as_ref().and_then(|result| result.get("error"));
    Ok(Json(Whole {
        error: error.and_then(Value::as_str).map(str::to_owned),
        timeline: store.timeline(id).await?,
        job,
    }))
}
