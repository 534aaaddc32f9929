//! Owns what a job is: its type, states, lease and ends. Refuses to know where jobs are kept.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JobType {
    /// Stores the records of its payload.
    #[serde(rename = "INGEST_DATA")]
    IngestData,
    /// Brings the vectors of one project, space and lane in line with its records.
    #[serde(rename = "VECTORIZE")]
    Vectorize,
}

impl JobType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IngestData => "INGEST_DATA",
            Self::Vectorize => "VECTORIZE",
        }
    }
}

impl FromStr for JobType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = [Self::IngestData, Self::Vectorize];
        let found = known.into_iter().find(|kind| kind.as_str() == name);
        found.ok_or_else(|| format!("unknown job type '{name}'"))
    }
}

impl fmt::Display for JobType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a job stands. `docs/JOBS.md` says what moves it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum JobStatus {
    Pending,
    Processing,
    Completed,
    Failed,
    Cancelled,
}

impl JobStatus {
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Processing,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Processing => "PROCESSING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl FromStr for JobStatus {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|status| status.as_str() == name);
        known.ok_or_else(|| format!("unknown status '{name}'"))
    }
}

/// The right to work on a job. Every statement about the job shows it; without a live one nothing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub job_id: i64,
    pub token: Uuid,
}

/// A claimed job.
#[derive(Clone, Debug)]
pub struct ClaimedJob {
    pub lease: Lease,
    pub job_type: JobType,
    pub project: String,
    pub project_id: i32,
    /// 0 for INGEST_DATA.
    pub space_id: i32,
    pub lane: i16,
    pub lanes: i16,
    pub priority: i32,
    pub attempts: i32,
    pub max_attempts: i32,
    pub backoff_ms: i32,
    /// Workers that died holding it since it last got through a slice.
    pub crashes: i32,
    pub payload: Option<serde_json::Value>,
    pub cursor: Option<serde_json::Value>,
    pub progress: Option<Progress>,
}

/// How far a job has come, in records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub current: u64,
    pub total: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How a worker parts from a job that it holds.
#[derive(Clone, Debug)]
pub enum End {
    /// Nothing is left. A VECTORIZE job with due work goes back into the line instead.
    Completed { result: serde_json::Value },
    /// Work is left and nobody is to blame: to the end of the line. A job that got somewhere has its attempts anew.
    Released { progressed: bool },
    /// Work is left, but not before then.
    Snoozed { delay: Duration },
    /// The job's own fault; it costs an attempt.
    Failed { error: String },
    /// What it asks for isn't allowed, or can't be: trying it again by itself would change nothing. Its result is the error
    /// beside what is said else.
    Refused { error: String, result: serde_json::Value },
}

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub status: JobStatus,
    pub attempts: i32,
}
