//! `clear`

use anyhow::Result;
use cronvec_nouns::job::{JobStatus, JobType};
use cronvec_store::StoreError;
use cronvec_store::selection::JobFilter;
use serde_json::json;

use super::{left_as_it_is, projects_or_all, ready};
use crate::Context;
use crate::app::App;
use crate::exit::Ended;
use crate::filters::Scope;
use crate::output::count;

/// Jobs that are asked for at once.
const PAGE: i64 = 1000;

pub(crate) async fn run(scope: Scope, context: &Context) -> Result<Ended> {
    let app = ready().await?;
    let filter = scope.checked(&app).await?;
    let of = filter
        .project
        .as_ref()
        .map_or_else(|| "every project".to_owned(), |name| format!("project {name}"));
    let question = format!(
        "Empty the queue of {of}? Records of waiting INGEST_DATA jobs stay unstored until `cronvec retry`, \
         pending records unembedded until `cronvec backfill`."
    );
    if !context.confirm(&question)? {
        return left_as_it_is(context);
    }
    let wants = |kind| filter.job_type.is_none_or(|wanted| wanted == kind);
    let mut cancelled = Vec::new();
    if wants(JobType::IngestData) {
        cancelled = cancel_waiting(&app, filter.project.clone()).await?;
    }
    let mut withdrawn = 0;
    if wants(JobType::Vectorize) {
        let named: Vec<String> = filter.project.clone().into_iter().collect();
        for project in projects_or_all(&app, &named).await? {
            for space in [Some(project.live_space), project.next_space].into_iter().flatten() {
                withdrawn += app.store().withdraw(space, project.id, None).await?;
            }
            app.store().end_idle_jobs(project.id).await?;
        }
    }
    app.audit(
        "queue",
        &format!(
            "queue of {of} emptied: {withdrawn} pending records withdrawn, {} jobs cancelled",
            cancelled.len()
        ),
        &cancelled,
        None,
    )
    .await;
    context.output.show(
        &json!({"success": true, "cancelledJobs": cancelled.len(), "withdrawnRecords": withdrawn}),
        || {
            format!(
                "{} jobs cancelled, {} pending records withdrawn",
                count(cancelled.len() as u64),
                count(withdrawn)
            )
        },
    )?;
    Ok(Ended::Well)
}

async fn cancel_waiting(app: &App, project: Option<String>) -> Result<Vec<String>> {
    let waiting = JobFilter {
        status: Some(JobStatus::Pending),
        job_type: Some(JobType::IngestData),
        project,
    };
    let mut cancelled = Vec::new();
    let mut after = 0;
    loop {
        let ids = app.store().job_ids(&waiting, after, PAGE).await?;
        let Some(last) = ids.last() else {
            return Ok(cancelled);
        };
        after = *last;
        for id in ids {
            match app.cancel(id).await {
                Ok(()) => cancelled.push(id.to_string()),
                // It ended meanwhile.
                Err(error) if matches!(error.downcast_ref(), Some(StoreError::Invalid(_))) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
