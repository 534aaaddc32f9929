//! `GET /api/admin/queue/stats`

use axum::Json;
use axum::extract::State;
use cronvec_store::jobs::{Counts, JobView, OldestPending};
use cronvec_store::listing::Listing;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::identity::Watches;
use crate::{Admin, Refusal};

const RECENT: i64 = 50;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    queue_stats: Counts,
    /// Those of `queueStats` that are at least so many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, example = json!(["completed"]))]
    capped: Vec<&'static str>,
    recent_jobs: Vec<RecentJob>,
    /// Of those that could be claimed now.
    oldest_pending_job: Option<OldestPending>,
}

/// A job, without its project.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RecentJob {
    id: String,
    #[schema(example = "INGEST_DATA")]
    job_type: String,
    #[schema(example = "COMPLETED")]
    status: String,
    priority: i32,
    attempts: i32,
    max_attempts: i32,
    #[schema(value_type = Option<Object>, example = json!({"current": 40, "total": 100, "message": "storing"}))]
    progress: Option<Value>,
    #[schema(value_type = Option<Object>, example = json!({"error": "why it failed"}))]
    result: Option<Value>,
    created_at: String,
    started_at: Option<String>,
    completed_at: Option<String>,
}

impl From<JobView> for RecentJob {
    fn from(job: JobView) -> Self {
        Self {
            id: job.id,
            job_type: job.job_type,
            status: job.status,
            priority: job.priority,
            attempts: job.attempts,
            max_attempts: job.max_attempts,
            progress: job.progress,
            result: job.result,
            created_at: job.created_at,
            started_at: job.started_at,
            completed_at: job.completed_at,
        }
    }
}

/// The queue's numbers and its latest jobs.
#[utoipa::path(get, path = "/api/admin/queue/stats", tag = "queue", operation_id = "queueStats",
    responses((status = 200, description = "Counted up to 10,000 each.", body = Stats)))]
pub(crate) async fn stats(Watches(caller): Watches, State(admin): State<Admin>) -> Result<Json<Stats>, Refusal> {
    let store = admin.store().await?;
    let (queue_stats, capped) = store.counts_of(&caller.reach).await?;
    let listing = Listing {
        status: None,
        job_type: None,
        reach: caller.reach.clone(),
        id: None,
    };
    let recent = store.jobs_page(&listing, None, RECENT).await?;
    Ok(Json(Stats {
        queue_stats,
        capped,
        recent_jobs: recent.into_iter().map(|listed| listed.job.into()).collect(),
        oldest_pending_job: store.oldest_pending_of(&caller.reach).await?,
    }))
}
