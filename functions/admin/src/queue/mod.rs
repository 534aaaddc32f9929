//! The queue: its numbers, its jobs, what stands aside, and the acts on them.

pub(crate) mod act;
pub(crate) mod failures;
pub(crate) mod figures;
pub(crate) mod jobs;
pub(crate) mod pause;
pub(crate) mod quarantine;
pub(crate) mod stats;

use std::time::Duration;

use cronvec_nouns::job::{JobStatus, JobType};
use serde::Serialize;
use utoipa::ToSchema;

use crate::Refusal;

/// After this a call on many acts no more, so that what it has done is logged and told before its request's time is over. The
/// next call goes on.
const ACTING: Duration = Duration::from_secs(10);

/// What an act on many came to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Done {
    pub success: bool,
    pub count: usize,
    pub ids: Vec<String>,
    /// Jobs that it could not be done to, such as those whose lane has another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passed_over: Option<usize>,
    /// There may be more of them: call again.
    pub more: bool,
}

fn status(text: Option<&str>) -> Result<Option<JobStatus>, Refusal> {
    let parse = |text: &str| {
        text.to_uppercase()
            .parse()
            .map_err(|_| Refusal::field("status", "it is PENDING, PROCESSING, COMPLETED, FAILED or CANCELLED"))
    };
    text.map(parse).transpose()
}

fn job_type(text: Option<&str>) -> Result<Option<JobType>, Refusal> {
    let parse = |text: &str| {
        text.to_uppercase()
            .parse()
            .map_err(|_| Refusal::field("type", "it is INGEST_DATA or VECTORIZE"))
    };
    text.map(parse).transpose()
}
