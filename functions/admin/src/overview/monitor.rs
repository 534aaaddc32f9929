//! `GET /api/admin/monitor`: all that one refresh of the page needs, and nothing when nothing changed.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cronvec_nouns::token::Role;
use cronvec_store::jobs::{Counts, OldestPending};
use cronvec_store::listing::{ListedJob, Listing};
use cronvec_store::monitor::{Flow, Rest};
use serde::Serialize;
use sha2::{Digest, Sha256};
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use super::coverage::{Covered, glance};
use super::workers::{Seen, seen};
use crate::identity::{Caller, Watches};
use crate::{Admin, Refusal};

const RECENT: i64 = 50;

#[derive(Serialize, ToSchema)]
pub(crate) struct Monitor {
    /// The database's time at which this was so.
    at: String,
    #[serde(flatten)]
    seen: Content,
}

/// What a refresh may find changed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MonitorContent)]
struct Content {
    queue_stats: Counts,
    /// Those of `queueStats` that are at least so many.
    #[schema(value_type = Vec<String>)]
    capped: Vec<&'static str>,
    oldest_pending_job: Option<OldestPending>,
    workers: Vec<Seen>,
    /// Of the first 1,000 projects those that were counted.
    coverage: Vec<Covered>,
    /// Projects that `coverage` leaves out; `GET /api/admin/coverage` has all of them.
    coverage_left_out: i64,
    /// Those that run.
    backfills: Vec<Running>,
    throughput: Throughput,
    failures: Vec<Reason>,
    endpoints: Vec<Rest>,
    paused: Paused,
    /// Their results without the rejected records; the job itself has them.
    recent_jobs: Vec<ListedJob>,
    role: Role,
    /// Those that the caller reaches; null: all.
    projects: Option<Vec<String>>,
}

#[derive(Serialize, ToSchema)]
struct Throughput {
    /// The last hour by minute.
    hour: Vec<Flow>,
    /// The last day by hour.
    day: Vec<Flow>,
}

/// A backfill that runs. What is left of it and its pace are its project's.
#[derive(Serialize, ToSchema)]
#[schema(as = RunningBackfill)]
struct Running {
    operation: String,
    project: String,
    /// The tick that the furthest of its lanes is at; null: nobody drives it, the schedule embeds.
    iteration: Option<i64>,
    /// Ticks of each lane at most; null: as many as it takes.
    iterations: Option<i64>,
    /// Rounds over all records that came to their end.
    rounds: i32,
}

#[derive(Serialize, ToSchema)]
struct Reason {
    reason: String,
    count: i64,
}

#[derive(Serialize, ToSchema)]
struct Paused {
    /// Every project is.
    all: bool,
    projects: Vec<String>,
}

/// All of the page's figures in one call. With `If-None-Match` a 304 as long as nothing changed but the time.
#[utoipa::path(get, path = "/api/admin/monitor", tag = "overview", operation_id = "monitor",
    params(("If-None-Match" = Option<String>, Header, description = "The ETag of the figures that are there.")),
    responses((status = 200, description = "The figures.", body = Monitor,
            headers(("ETag" = String, description = "Of all of them but `at`."))),
        (status = 304, description = "They are the same.")))]
pub(crate) async fn look(
    Watches(caller): Watches,
    State(admin): State<Admin>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let at = admin.store().await?.clock().await?;
    let content = content(&admin, &caller).await?;
    let text = serde_json::to_vec(&content).map_err(|error| Refusal::internal(&error))?;
    let digest: String = Sha256::digest(&text)
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let tag = format!("\"{digest}\"");
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|value| value.split(','));
    let is_known = known.any(|known| known.trim().trim_start_matches("W/") == tag);
    let etag = HeaderValue::from_str(&tag).map_err(|error| Refusal::internal(&error))?;
    if is_known {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let monitor = Monitor {
        at: at.format(&Rfc3339).unwrap_or_default(),
        seen: content,
    };
    Ok(([(header::ETAG, etag)], axum::Json(monitor)).into_response())
}

async fn content(admin: &Admin, caller: &Caller) -> Result<Content, Refusal> {
    let store = admin.store().await?;
    let reach = &caller.reach;
    let (queue_stats, capped) = store.counts_of(reach).await?;
    let windows = admin.windows(reach).await?;
    let (coverage, coverage_left_out) = glance(admin, caller, &windows).await?;
    let backfills = store.running_backfills(reach).await?;
    let projects = store.projects().await?;
    let mine: Vec<_> = projects
        .into_iter()
        .filter(|project| reach.includes(&project.name))
        .collect();
    let listing = Listing {
        status: None,
        job_type: None,
        reach: reach.clone(),
        id: None,
    };
    let mut recent_jobs = store.jobs_page(&listing, None, RECENT).await?;
    for listed in &mut recent_jobs {
        if let Some(result) = listed.job.result.as_mut().and_then(|result| result.as_object_mut()) {
            result.remove("rejected");
        }
    }
    let failures = store.failures_of(reach).await?;
    let workers = store.worker_statuses().await?;
    Ok(Content {
        queue_stats,
        capped,
        oldest_pending_job: store.oldest_pending_of(reach).await?,
        workers: workers
            .into_iter()
            .map(|worker| seen(worker, admin.pace(), reach.is_all()))
            .collect(),
        coverage,
        coverage_left_out,
        backfills: backfills
            .into_iter()
            .map(|backfill| Running {
                operation: backfill.id.to_string(),
                project: backfill.project,
                iteration: backfill.iteration,
                iterations: backfill.iterations,
                rounds: backfill.rounds,
            })
            .collect(),
        throughput: Throughput {
            hour: windows.hour,
            day: windows.day,
        },
        failures: failures
            .into_iter()
            .map(|failure| Reason {
                reason: failure.reason,
                count: failure.count,
            })
            .collect(),
        endpoints: store.rests_of(reach).await?,
        paused: Paused {
            all: !mine.is_empty() && mine.iter().all(|project| project.paused),
            projects: mine
                .iter()
                .filter(|project| project.paused)
                .map(|project| project.name.clone())
                .collect(),
        },
        recent_jobs,
        role: caller.role,
        projects: reach.projects().map(<[String]>::to_vec),
    })
}
