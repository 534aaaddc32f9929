//! `GET /api/admin/figures` and `GET /api/admin/failures/details`: what `cronvec stats` and `cronvec failed --details` show.

use axum::Json;
use axum::extract::State;
use cronvec_store::quarantine::QuarantineFilter;
use cronvec_store::selection::{FailedGroup, JobFilter};
use cronvec_store::stats::{MOST_HOURS, Stats};
use serde::Deserialize;
use utoipa::IntoParams;

use super::job_type;
use crate::identity::Watches;
use crate::request::Params;
use crate::{Admin, Refusal};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct WantedStats {
    #[serde(rename = "type")]
    #[param(example = "VECTORIZE")]
    kind: Option<String>,
    /// Needed by a token that is limited to several.
    #[param(example = "articles")]
    project: Option<String>,
    /// So many hours, hour by hour; 24 unless told otherwise.
    #[param(minimum = 1, maximum = 720)]
    hours: Option<i64>,
}

/// The queue's numbers by type, and hour by hour.
#[utoipa::path(get, path = "/api/admin/figures", tag = "queue", operation_id = "figures", params(WantedStats),
    responses((status = 200, description = "Counted up to 10,000 each.", body = Stats),
        (status = 404, description = "No such project.", body = crate::openapi::Error)))]
pub(crate) async fn stats(
    Watches(caller): Watches,
    State(admin): State<Admin>,
    Params(wanted): Params<WantedStats>,
) -> Result<Json<Stats>, Refusal> {
    let hours = match wanted.hours {
        Some(hours) if !(1..=i64::from(MOST_HOURS)).contains(&hours) => {
            return Err(Refusal::field(
                "hours",
                format_args!("it is a number from 1 to {MOST_HOURS}"),
            ));
        }
        hours => i32::try_from(hours.unwrap_or(24)).unwrap_or(MOST_HOURS),
    };
    let reach = caller.narrowed(wanted.project.as_deref())?;
    let project = match reach.projects() {
        None => None,
        Some([only]) => Some(only.clone()),
        Some(_) => {
            return Err(Refusal::field(
                "project",
                "this token is limited to several projects: name one of them",
            ));
        }
    };
    let store = admin.store().await?;
    if let Some(name) = &wanted.project {
        store.project(name).await?;
    }
    let filter = JobFilter {
        status: None,
        job_type: job_type(wanted.kind.as_deref())?,
        project,
    };
    Ok(Json(store.stats(&filter, hours).await?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct WantedGroups {
    #[serde(rename = "type")]
    #[param(example = "VECTORIZE")]
    kind: Option<String>,
    #[param(example = "articles")]
    project: Option<String>,
}

/// Failed jobs, and then records that stand aside, by reason and project.
#[utoipa::path(get, path = "/api/admin/failures/details", tag = "queue", operation_id = "failureDetails",
    params(WantedGroups),
    responses((status = 200, description = "The most frequent first.", body = Vec<FailedGroup>),
        (status = 404, description = "No such project.", body = crate::openapi::Error)))]
pub(crate) async fn groups(
    Watches(caller): Watches,
    State(admin): State<Admin>,
    Params(wanted): Params<WantedGroups>,
) -> Result<Json<Vec<FailedGroup>>, Refusal> {
    let kind = job_type(wanted.kind.as_deref())?;
    let store = admin.store().await?;
    let reach = caller.chosen(store, wanted.project.as_deref()).await?;
    let (mut jobs, mut records) = (Vec::new(), Vec::new());
    for project in reach.each() {
        let aside = QuarantineFilter {
            project: project.clone(),
            ..QuarantineFilter::default()
        };
        let filter = JobFilter {
            status: None,
            job_type: kind,
            project,
        };
        jobs.extend(store.failed_jobs_by_reason(&filter).await?);
        records.extend(store.quarantined_by_reason(&aside).await?);
    }
    jobs.append(&mut records);
    Ok(Json(jobs))
}
