//! `--status`, `--type` and `--project`, wherever a verb is about many jobs; which records, where it is about those that
//! stand aside.

use anyhow::Result;
use cronvec_nouns::job::{JobStatus, JobType};
use cronvec_store::quarantine::{COUNTED, QuarantineFilter};
use cronvec_store::selection::JobFilter;
use serde::Deserialize;
use serde_json::json;

use crate::app::App;
use crate::output::count;
use crate::remote::Remote;
use crate::verbs::{names_at, project_or_only_of};

#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Filters {
    /// Only jobs of this status: pending, processing, completed, failed, cancelled
    #[arg(long, value_name = "STATUS", value_parser = status)]
    pub status: Option<JobStatus>,
    #[command(flatten)]
    pub scope: Scope,
}

/// For verbs whose jobs have one status anyway.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Scope {
    /// Only jobs of this type: INGEST_DATA, VECTORIZE
    #[arg(long = "type", value_name = "TYPE", value_parser = job_type)]
    pub job_type: Option<JobType>,
    /// Only this project
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,
}

#[derive(Deserialize)]
struct Done {
    count: usize,
    more: bool,
}

/// Records that stand aside.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Aside {
    /// These records; else all that the options choose
    pub records: Vec<String>,
    /// Only those that stand aside for this reason
    #[arg(long)]
    pub reason: Option<String>,
    /// Only of this project
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,
}

impl Aside {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.reason.is_none() && self.project.is_none()
    }

    /// Replays or purges them at a deployment, and gives how many. A call acts on so many at most: it is repeated while
    /// there are more.
    pub async fn act_at(self, remote: &Remote, act: &str) -> Result<usize> {
        let mut bodies = vec![json!({})];
        if self.is_empty() {
            bodies = names_at(remote)
                .await?
                .iter()
                .map(|name| json!({"project": name}))
                .collect();
        } else if !self.records.is_empty() {
            // Ids are those of one project.
            bodies[0]["project"] = project_or_only_of(remote, self.project).await?.into();
            bodies[0]["ids"] = self.records.into();
        } else if let Some(project) = self.project {
            bodies[0]["project"] = project.into();
        }
        let mut records = 0;
        for mut body in bodies {
            if let Some(reason) = &self.reason {
                body["reason"] = reason.as_str().into();
            }
            loop {
                let done: Done = remote.post(&format!("api/admin/quarantine/{act}"), &[], &body).await?;
                records += done.count;
                if !done.more || done.count == 0 {
                    break;
                }
            }
        }
        Ok(records)
    }

    /// As the store wants it; a project that is named exists.
    pub async fn checked(self, app: &App) -> Result<QuarantineFilter> {
        if let Some(name) = &self.project {
            app.store().project(name).await?;
        }
        Ok(QuarantineFilter {
            project: self.project,
            reason: self.reason,
            records: (!self.records.is_empty()).then_some(self.records),
            older_than_days: None,
        })
    }
}

/// So many records stand aside, `there` of them counted, in words.
pub(crate) fn aside_in_words(wanted: i64, there: i64) -> String {
    let more = if there >= COUNTED { " or more" } else { "" };
    format!("{}{more} records", count(wanted))
}

impl Filters {
    pub fn is_empty(&self) -> bool {
        self.status.is_none() && self.scope.job_type.is_none() && self.scope.project.is_none()
    }

    /// As the store wants it; a project that is named exists.
    pub async fn checked(self, app: &App) -> Result<JobFilter> {
        let filter = self.scope.checked(app).await?;
        Ok(JobFilter {
            status: self.status,
            ..filter
        })
    }
}

impl Scope {
    /// As the HTTP API wants it.
    pub fn query(&self) -> Vec<(&str, &str)> {
        let kind = self.job_type.map(|kind| ("type", kind.as_str()));
        let project = self.project.as_deref().map(|name| ("project", name));
        kind.into_iter().chain(project).collect()
    }

    pub async fn checked(self, app: &App) -> Result<JobFilter> {
        if let Some(name) = &self.project {
            app.store().project(name).await?;
        }
        Ok(JobFilter {
            status: None,
            job_type: self.job_type,
            project: self.project,
        })
    }
}

pub(crate) fn status(text: &str) -> Result<JobStatus, String> {
    text.to_uppercase().parse()
}

pub(crate) fn job_type(text: &str) -> Result<JobType, String> {
    text.to_uppercase().replace('-', "_").parse()
}
