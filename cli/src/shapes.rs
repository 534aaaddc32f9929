//! What verbs show: the field names that scripts may rely on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Jobs by what they wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStats {
    pub pending: u64,
    pub processing: u64,
    pub completed: u64,
    pub failed: u64,
}

/// A job; ids are strings, since they outgrow what a script's numbers hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    pub id: String,
    pub job_type: String,
    pub project: String,
    pub status: String,
    pub priority: i32,
    pub attempts: i32,
    pub max_attempts: i32,
    pub progress: Option<Progress>,
    pub result: Option<Value>,
    /// RFC 3339, as all times here.
    pub scheduled_for: String,
    pub created_at: String,
    pub started_at: Option<String>,
    pub completed_at: Option<String>,
}

impl Job {
    /// Neither waiting nor being worked on.
    pub fn has_ended(&self) -> bool {
        matches!(self.status.as_str(), "COMPLETED" | "FAILED" | "CANCELLED")
    }

    /// Why it failed.
    pub fn error(&self) -> Option<&str> {
        self.result.as_ref()?.get("error")?.as_str()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub current: u64,
    pub total: u64,
    #[serde(default)]
    pub message: String,
}

/// `status`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub queue_stats: QueueStats,
    pub recent_jobs: Vec<Job>,
    pub oldest_pending_job: Option<OldestPending>,
    pub workers: Vec<Worker>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OldestPending {
    pub id: String,
    pub created_at: String,
    pub age_minutes: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    pub name: String,
    pub last_seen_at: String,
    pub last_duration_ms: Option<i64>,
    pub last_result: Option<Value>,
}

/// `coverage`, a line a project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    pub project: String,
    pub total: u64,
    pub embedded: u64,
    pub pending: u64,
    pub quarantined: u64,
    /// Embedded of total; of an empty project 100.
    pub percent: f64,
}

/// `projects list`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    pub name: String,
    pub provider: String,
    pub model: String,
    pub dimensions: u32,
    pub lanes: u16,
    pub paused: bool,
    pub created_at: String,
}

/// A record that a search found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    pub id: String,
    pub ordinal: i32,
    pub content: String,
    pub metadata: Value,
    pub score: f64,
    pub stale: bool,
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

/// The result of an INGEST_DATA job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngestResult {
    pub saved_count: u64,
    pub skipped_count: u64,
    pub rejected: Vec<Rejected>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    pub line: u64,
    pub id: Option<String>,
    pub reason: String,
}

/// `migrate status`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Migration {
    pub version: i32,
    pub name: String,
    pub applied_at: Option<String>,
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
