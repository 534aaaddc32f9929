//! What verbs show that isn't already a shape of the store's: the field names that scripts may rely on.

use std::collections::BTreeMap;

use cronvec_store::endpoints::Pause;
use cronvec_store::jobs::QueueStats;
use cronvec_store::workers::WorkerStatus;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `status`
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    #[serde(flatten)]
    pub queue: QueueStats,
    pub workers: Vec<WorkerStatus>,
    /// Endpoints that nobody asks now.
    pub pauses: Vec<Pause>,
    /// Counted up to a bound, which is then named in `capped`.
    pub pending_records: i64,
    /// Projects that are stopped.
    pub stopped: Vec<String>,
}

/// What an invocation of a worker answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TickReport {
    pub success: bool,
    /// Jobs.
    pub processed: u64,
    /// Milliseconds.
    pub duration: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining: Option<bool>,
    /// Of a deployment: as many passes are on as may be, and this call began none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub already_running: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_because: Option<String>,
    /// What else a worker has to say, such as cleanup's `deletedCount`.
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}

/// A job that `ingest` put into the queue, a line a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enqueued {
    pub job_id: String,
    pub records: u64,
}

/// What became of a file's records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IngestResult {
    pub saved_count: u64,
    pub skipped_count: u64,
    /// The first ones, by line.
    pub rejected: Vec<Rejected>,
    /// All of them, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected_count: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected_by_reason: BTreeMap<String, u64>,
    /// Jobs that didn't get to their end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedJob>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Rejected {
    pub line: u64,
    pub id: Option<String>,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedJob {
    pub job_id: String,
    pub status: String,
    pub error: String,
    /// Of an INGEST_DATA job: the records between these lines may not all be stored.
    #[serde(flatten)]
    pub lines: Option<Lines>,
    /// Of a VECTORIZE job: so many of the project's records wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lines {
    pub first_line: i32,
    pub last_line: i32,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cleanup_report_keeps_its_own_field() {
        let answer = json!({"success": true, "processed": 0, "duration": 12, "deletedCount": 7});
        let report: TickReport = serde_json::from_value(answer.clone()).unwrap();
        assert_eq!(serde_json::to_value(report).unwrap(), answer);
    }
}
