//! Retry and cancel, of one job and of many.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use cronvec_nouns::job::JobStatus;
use cronvec_store::selection::JobFilter;
use cronvec_store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{ACTING, Done, job_type, status};
use crate::identity::{Acts, Caller};
use crate::request::{Body, Params, number};
use crate::{Admin, Refusal};

/// Jobs that one call acts on.
const MOST: usize = 1000;
/// Jobs that are looked up at once.
const PAGE: i64 = 200;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct OneJob {
    /// Its id.
    #[param(example = "4711", pattern = "^[0-9]{1,18}$")]
    job_id: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DoneOne {
    success: bool,
    #[schema(example = "4711")]
    job_id: String,
}

/// What is done to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Retry,
    Cancel,
}

impl Act {
    async fn on(self, store: &Store, id: i64) -> Result<(), StoreError> {
        match self {
            Self::Retry => store.retry_job(id).await,
            Self::Cancel => store.cancel_job(id).await,
        }
    }

    fn told(self) -> &'static str {
        match self {
            Self::Retry => "jobs retried",
            Self::Cancel => "jobs cancelled",
        }
    }

    /// Whom it is meant for, where that isn't said.
    fn statuses(self) -> &'static [JobStatus] {
        match self {
            Self::Retry => &[JobStatus::Failed],
            Self::Cancel => &[JobStatus::Pending, JobStatus::Processing],
        }
    }
}

/// Runs a FAILED or CANCELLED job again, its attempts anew.
#[utoipa::path(post, path = "/api/admin/queue/retry", tag = "queue", operation_id = "retryJob", params(OneJob),
    responses((status = 200, description = "It is in the queue again.", body = DoneOne),
        (status = 404, description = "No such job.", body = crate::openapi::Error),
        (status = 409, description = "Another job, `activeJobId`, has its lane.", body = crate::openapi::Error)))]
pub(crate) async fn retry(
    Acts(caller): Acts,
    State(admin): State<Admin>,
    Params(job): Params<OneJob>,
) -> Result<Json<DoneOne>, Refusal> {
    one(&admin, &caller, &job, Act::Retry).await
}

/// Takes a job out of the queue, also while it runs. What it has stored stays.
#[utoipa::path(post, path = "/api/admin/queue/cancel", tag = "queue", operation_id = "cancelJob", params(OneJob),
    responses((status = 200, description = "It is CANCELLED.", body = DoneOne),
        (status = 404, description = "No such job.", body = crate::openapi::Error)))]
pub(crate) async fn cancel(
    Acts(caller): Acts,
    State(admin): State<Admin>,
    Params(job): Params<OneJob>,
) -> Result<Json<DoneOne>, Refusal> {
    one(&admin, &caller, &job, Act::Cancel).await
}

async fn one(admin: &Admin, caller: &Caller, job: &OneJob, act: Act) -> Result<Json<DoneOne>, Refusal> {
    let id = number("jobId", &job.job_id)?;
    let store = admin.store().await?;
    let project = project_of(store, caller, id).await?;
    act.on(store, id).await?;
    let ids = [id.to_string()];
    caller.audit(store, "queue", act.told(), &ids, Some(&project)).await;
    let [job_id] = ids;
    Ok(Json(DoneOne { success: true, job_id }))
}

/// The project of a job that the caller reaches; any other is no job.
pub(crate) async fn project_of(store: &Store, caller: &Caller, id: i64) -> Result<String, Refusal> {
    let project = store.job(id).await?.project;
    if caller.reach.includes(&project) {
        Ok(project)
    } else {
        Err(StoreError::NoJob(id).into())
    }
}

/// Which jobs. One of both is needed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WantedJobs)]
pub(crate) struct Many {
    filter: Option<Filter>,
    /// These, at most 1,000.
    #[schema(example = json!(["4711"]), max_items = 1000)]
    ids: Option<Vec<String>>,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    /// Else all that it can be done to; a retry is of FAILED ones.
    #[schema(example = "FAILED")]
    status: Option<String>,
    #[serde(rename = "type")]
    #[schema(example = "VECTORIZE")]
    kind: Option<String>,
    #[schema(example = "kb")]
    project: Option<String>,
}

/// Runs many FAILED jobs again, or CANCELLED ones where the filter says so.
#[utoipa::path(post, path = "/api/admin/jobs/retry", tag = "queue", operation_id = "retryJobs", request_body = Many,
    responses((status = 200, description = "Those that are in the queue again; others are passed over.", body = Done),
        (status = 404, description = "No such project.", body = crate::openapi::Error)))]
pub(crate) async fn retry_many(
    Acts(caller): Acts,
    State(admin): State<Admin>,
    Body(wanted): Body<Many>,
) -> Result<Json<Done>, Refusal> {
    many(&admin, &caller, wanted, Act::Retry).await
}

/// Takes many jobs out of the queue.
#[utoipa::path(post, path = "/api/admin/jobs/cancel", tag = "queue", operation_id = "cancelJobs", request_body = Many,
    responses((status = 200, description = "Those that are CANCELLED now; others are passed over.", body = Done),
        (status = 404, description = "No such project.", body = crate::openapi::Error)))]
pub(crate) async fn cancel_many(
    Acts(caller): Acts,
    State(admin): State<Admin>,
    Body(wanted): Body<Many>,
) -> Result<Json<Done>, Refusal> {
    many(&admin, &caller, wanted, Act::Cancel).await
}

async fn many(admin: &Admin, caller: &Caller, wanted: Many, act: Act) -> Result<Json<Done>, Refusal> {
    let store = admin.store().await?;
    let until = Instant::now() + ACTING;
    let mut ids = Vec::new();
    let mut passed_over = 0;
    let mut more = false;
    match (wanted.filter, wanted.ids) {
        (None, None) => {
            return Err(Refusal::bad_request(
                "which jobs? Name them by ids, or choose them by a filter",
            ));
        }
        (Some(_), Some(_)) => return Err(Refusal::bad_request("either a filter or ids")),
        (None, Some(named)) => {
            if named.len() > MOST {
                return Err(Refusal::field("ids", format_args!("at most {MOST}")));
            }
            for id in &named {
                if Instant::now() > until {
                    more = true;
                    break;
                }
                let id = number("ids", id)?;
                // What isn't there can't be done, as what has moved on meanwhile.
                let is_done = match store.job(id).await {
                    Ok(job) => caller.reach.includes(&job.project) && took(act.on(store, id).await)?,
                    Err(StoreError::NoJob(_)) => false,
                    Err(error) => return Err(error.into()),
                };
                if is_done {
                    ids.push(id.to_string());
                } else {
                    passed_over += 1;
                }
            }
        }
        (Some(filter), None) => {
            let reach = caller.chosen(store, filter.project.as_deref()).await?;
            let chosen = status(filter.status.as_deref())?;
            let statuses = chosen.map_or(act.statuses().to_vec(), |status| vec![status]);
            let kind = job_type(filter.kind.as_deref())?;
            for project in reach.each() {
                for status in &statuses {
                    let filter = JobFilter {
                        status: Some(*status),
                        job_type: kind,
                        project: project.clone(),
                    };
                    more |= each(store, &filter, act, until, &mut ids, &mut passed_over).await?;
                }
            }
        }
    }
    if !ids.is_empty() {
        caller.audit(store, "queue", act.told(), &ids, None).await;
    }
    Ok(Json(Done {
        success: true,
        count: ids.len(),
        ids,
        passed_over: Some(passed_over),
        more,
    }))
}

/// Acts on all of these that there is room for; gives whether some may be left.
async fn each(
    store: &Store,
    filter: &JobFilter,
    act: Act,
    until: Instant,
    done: &mut Vec<String>,
    passed_over: &mut usize,
) -> Result<bool, Refusal> {
    let mut after = 0;
    loop {
        let page = store.job_ids(filter, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(false) };
        after = *last;
        for id in page {
            if done.len() >= MOST || Instant::now() > until {
                return Ok(true);
            }
            if took(act.on(store, id).await)? {
                done.push(id.to_string());
            } else {
                *passed_over += 1;
            }
        }
    }
}

/// Whether it was done. A job that has moved on meanwhile, or whose lane has another, is passed over.
fn took(outcome: Result<(), StoreError>) -> Result<bool, Refusal> {
    match outcome {
        Ok(()) => Ok(true),
        Err(StoreError::Conflict(_) | StoreError::Invalid(_) | StoreError::ActiveJob { .. } | StoreError::NoJob(_)) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}
