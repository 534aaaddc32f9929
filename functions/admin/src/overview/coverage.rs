//! `GET /api/admin/coverage`

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use cronvec_nouns::token::Reach;
use cronvec_store::coverage_counts::{Counted, Covered as Found, MOST};
use cronvec_store::monitor::Flow;
use cronvec_store::outlook::Outlook;
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};

use super::throughput::Windows;
use crate::identity::{Caller, Watches};
use crate::request::{Params, page_size};
use crate::{Admin, Refusal};

/// Minutes whose pace an estimate goes by.
const PACE_OF: usize = 10;
/// What is counted for one call of who wants to know it all.
const LOOK: Duration = Duration::from_secs(5);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// The last project of the page before: those behind it, by name.
    after: Option<String>,
    /// 1,000 unless told otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

/// How much of a project is embedded. Its numbers are null while nobody has counted it yet: the next call counts more.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Covered {
    project: String,
    total: Option<i64>,
    embedded: Option<i64>,
    pending: Option<i64>,
    quarantined: Option<i64>,
    percent: Option<f64>,
    /// Until nothing is pending at the pace of the last minutes, projects taking turns; null: nothing moves, or nothing can.
    eta_seconds: Option<i64>,
    /// Its own pace in records; null: nothing moves.
    per_second: Option<f64>,
    /// Why nothing can move: the project is stopped, a job holds its lane, a circuit is open.
    blocked: Option<String>,
    /// When it was counted: a project of many records is counted more rarely.
    counted_at: Option<String>,
}

/// The coverage of each project, by name. A page that isn't the last has a `Link` to the next.
#[utoipa::path(get, path = "/api/admin/coverage", tag = "overview", operation_id = "coverage", params(Wanted),
    responses((status = 200, description = "By project.", body = Vec<Covered>,
        headers(("Link" = String, description = "The next page, where there is one: `<coverage?after=…>; rel=\"next\"`.")))))]
pub(crate) async fn list(
    Watches(caller): Watches,
    State(admin): State<Admin>,
    Params(wanted): Params<Wanted>,
) -> Result<Response, Refusal> {
    let limit = page_size(wanted.limit, MOST, MOST)?;
    let windows = admin.windows(&caller.reach).await?;
    let store = admin.store().await?;
    let page = store
        .coverage_page(&caller.reach, wanted.after.as_deref(), limit, LOOK)
        .await?;
    let is_full = i64::try_from(page.len()).is_ok_and(|found| found == limit);
    let last = page.last().filter(|_| is_full).map(|one| one.project.clone());
    let page = page
        .into_iter()
        .map(|Found { project, counted, .. }| (project, counted))
        .collect();
    let answer = Json(covered(&admin, &caller.reach, page, &windows).await?);
    match last.map(|last| link(&last, limit)) {
        Some(Ok(link)) => Ok(([(header::LINK, link)], answer).into_response()),
        _ => Ok(answer.into_response()),
    }
}

fn link(last: &str, limit: i64) -> Result<HeaderValue, header::InvalidHeaderValue> {
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("after", last)
        .append_pair("limit", &limit.to_string())
        .finish();
    HeaderValue::from_str(&format!("<coverage?{query}>; rel=\"next\""))
}

/// Of the first projects those that were counted, and how many that leaves out.
pub(super) async fn glance(admin: &Admin, caller: &Caller, windows: &Windows) -> Result<(Vec<Covered>, i64), Refusal> {
    let store = admin.store().await?;
    let counted = store.counted_coverage(&caller.reach).await?;
    let left_out = store.count_projects(&caller.reach).await? - i64::try_from(counted.len()).unwrap_or(MOST);
    let all = counted
        .into_iter()
        .map(|counted| (counted.coverage.project.clone(), Some(counted)))
        .collect();
    Ok((covered(admin, &caller.reach, all, windows).await?, left_out.max(0)))
}

async fn covered(
    admin: &Admin,
    reach: &Reach,
    page: Vec<(String, Option<Counted>)>,
    windows: &Windows,
) -> Result<Vec<Covered>, Refusal> {
    let pending = page
        .iter()
        .filter_map(|(_, counted)| Some(counted.as_ref()?.coverage.pending));
    let pending: Vec<i64> = pending.filter(|pending| *pending > 0).collect();
    let rate = rate(&windows.hour);
    let mut outlooks = admin.store().await?.outlooks(reach).await?;
    let all = page.into_iter().map(|(project, counted)| {
        let outlook = outlooks.remove(&project).unwrap_or_default();
        of(project, counted, outlook, &pending, rate)
    });
    Ok(all.collect())
}

/// Records a second, of the latest minutes in which anything moved.
#[allow(clippy::cast_precision_loss, reason = "a pace")]
fn rate(hour: &[Flow]) -> f64 {
    let latest: Vec<&Flow> = hour.iter().rev().take(PACE_OF).collect();
    let records: f64 = latest.iter().map(|minute| minute.records).sum();
    records / (latest.len().max(1) as f64 * 60.0)
}

/// `pending` of all projects, and the pace of all together.
#[allow(clippy::cast_precision_loss, reason = "an estimate")]
fn of(project: String, counted: Option<Counted>, outlook: Outlook, pending: &[i64], rate: f64) -> Covered {
    let coverage = counted.as_ref().map(|counted| &counted.coverage);
    let eta = coverage.and_then(|coverage| {
        let own = outlook.eta_seconds(coverage.pending);
        // Of projects that take turns each gets its share, until the smaller ones are through.
        let before: i64 = pending.iter().map(|other| (*other).min(coverage.pending)).sum();
        let in_turn = || {
            let moves = outlook.per_second.is_none() && outlook.blocked.is_none() && rate > 0.0;
            moves.then(|| outlook.rest_seconds + before as f64 / rate)
        };
        own.or_else(in_turn)
    });
    #[allow(clippy::cast_possible_truncation, reason = "an estimate")]
    Covered {
        project,
        total: coverage.map(|coverage| coverage.total),
        embedded: coverage.map(|coverage| coverage.embedded),
        pending: coverage.map(|coverage| coverage.pending),
        quarantined: coverage.map(|coverage| coverage.quarantined),
        percent: coverage.map(|coverage| coverage.percent),
        eta_seconds: eta.map(|seconds| seconds.ceil() as i64),
        per_second: outlook.per_second.map(|rate| (rate * 10.0).round() / 10.0),
        blocked: outlook.blocked,
        counted_at: counted.and_then(|counted| counted.at.format(&Rfc3339).ok()),
    }
}
