//! `GET /api/admin/coverage`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use shared::store::coverage_counts::Counted;
use shared::store::monitor::Flow;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use super::throughput::Windows;
use crate::identity::{Caller, Watches};
use crate::{Admin, Refusal};

/// Minutes whose pace an estimate goes by.
const PACE_OF: usize = 10;

/// How much of a project is embedded.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Covered {
    project: String,
    total: i64,
    embedded: i64,
    pending: i64,
    quarantined: i64,
    percent: f64,
    /// Until nothing is pending at the pace of the last minutes, projects taking turns; null: nothing moves.
    eta_seconds: Option<i64>,
    /// When it was counted: a project of many records is counted more rarely.
    counted_at: String,
}

/// The coverage of each project.
#[utoipa::path(get, path = "/api/admin/coverage", tag = "overview", operation_id = "coverage",
    responses((status = 200, description = "By project.", body = Vec<Covered>)))]
pub(crate) async fn list(Watches(caller): Watches, State(admin): State<Admin>) -> Result<Json<Vec<Covered>>, Refusal> {
    let windows = admin.windows(&caller.reach).await?;
    Ok(Json(covered(&admin, &caller, &windows).await?))
}

pub(super) async fn covered(admin: &Admin, caller: &Caller, windows: &Windows) -> Result<Vec<Covered>, Refusal> {
    let counted = admin.store().await?.counted_coverage(&caller.reach).await?;
    let pending: Vec<i64> = counted
        .iter()
        .map(|one| one.coverage.pending)
        .filter(|pending| *pending > 0)
        .collect();
    let rate = rate(&windows.hour);
    Ok(counted.into_iter().map(|one| of(one, &pending, rate)).collect())
}

/// Records a second, of the latest minutes in which anything moved.
#[allow(clippy::cast_precision_loss, reason = "a pace")]
fn rate(hour: &[Flow]) -> f64 {
    let latest: Vec<&Flow> = hour.iter().rev().take(PACE_OF).collect();
    let records: f64 = latest.iter().map(|minute| minute.records).sum();
    records / (latest.len().max(1) as f64 * 60.0)
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "an estimate"
)]
fn of(counted: Counted, pending: &[i64], rate: f64) -> Covered {
    let coverage = counted.coverage;
    // Of projects that take turns each gets its share, until the smaller ones are through.
    let before: i64 = pending.iter().map(|other| (*other).min(coverage.pending)).sum();
    let eta_seconds = match coverage.pending {
        0 => Some(0),
        _ if rate > 0.0 => Some((before as f64 / rate).ceil() as i64),
        _ => None,
    };
    Covered {
        project: coverage.project,
        total: coverage.total,
        embedded: coverage.embedded,
        pending: coverage.pending,
        quarantined: coverage.quarantined,
        percent: coverage.percent,
        eta_seconds,
        counted_at: counted.at.format(&Rfc3339).unwrap_or_default(),
    }
}
