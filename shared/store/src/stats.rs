//! Owns the queue's numbers by type and by hour, together, with the caps that are told. Refuses to count beyond them.

use serde::{Deserialize, Serialize};

use super::figures::{CAP, Hour, OfType};
use super::quarantine::QuarantineFilter;
use super::selection::JobFilter;
use super::{Store, StoreError};

/// Hours that may be asked for.
pub const MOST_HOURS: i32 = 720;

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
// The document has other ones of that name.
#[cfg_attr(feature = "openapi", schema(as = Figures))]
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    pub jobs: Vec<OfType>,
    /// Numbers that are at least so many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capped: Vec<String>,
    pub pending_records: i64,
    pub quarantined: i64,
    pub hours: Vec<Hour>,
}

impl Store {
    pub async fn stats(&self, filter: &JobFilter, hours: i32) -> Result<Stats, StoreError> {
        let aside = QuarantineFilter {
            project: filter.project.clone(),
            ..QuarantineFilter::default()
        };
        let mut stats = Stats {
            jobs: self.jobs_by_type(filter).await?,
            capped: Vec::new(),
            pending_records: self.count_pending(filter.project.as_deref()).await?,
            quarantined: self.count_quarantined(&aside).await?,
            hours: self.hours(filter, hours).await?,
        };
        cap(&mut stats);
        Ok(stats)
    }
}

/// Names what was counted no further.
fn cap(stats: &mut Stats) {
    for of in &mut stats.jobs {
        for (name, number) in [
            ("pending", &mut of.pending),
            ("processing", &mut of.processing),
            ("completed", &mut of.completed),
            ("failed", &mut of.failed),
            ("cancelled", &mut of.cancelled),
        ] {
            if *number > CAP {
                *number = CAP;
                stats.capped.push(format!("{}.{name}", of.job_type));
            }
        }
    }
    if stats.pending_records > CAP {
        stats.pending_records = CAP;
        stats.capped.push("pendingRecords".to_owned());
    }
}
