//! What a pass says it did.

use serde::Serialize;

/// Why a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoppedBecause {
    Drained,
    Deadline,
    Limit,
    Terminated,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Jobs.
    pub processed: u64,
    /// Records that were stored, new or changed.
    pub records: u64,
    /// Records that were there already, or had something newer.
    pub skipped: u64,
    pub rejected: u64,
    pub lost_leases: u64,
    pub stopped_because: StoppedBecause,
}
