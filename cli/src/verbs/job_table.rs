//! Jobs as a person reads them, a row each.

use cronvec_nouns::job::Progress;
use cronvec_store::jobs::JobView;

use crate::drain::error;
use crate::output::{Align, Table, brief, count};

pub(super) fn jobs(jobs: &[JobView]) -> Table {
    let columns = [
        ("job", Align::Right),
        ("type", Align::Left),
        ("project", Align::Left),
        ("status", Align::Left),
        ("attempts", Align::Right),
        ("created", Align::Left),
        ("", Align::Left),
    ];
    let mut table = Table::new(&columns, "no jobs yet");
    for job in jobs {
        let remark = match error(job) {
            Some(error) => brief(error, 60),
            None => progress(job).unwrap_or_default(),
        };
        table.row([
            job.id.clone(),
            job.job_type.clone(),
            brief(&job.project, 30),
            job.status.clone(),
            format!("{}/{}", job.attempts, job.max_attempts),
            job.created_at.clone(),
            remark,
        ]);
    }
    table
}

/// How far a job has come, in words.
pub(super) fn progress(job: &JobView) -> Option<String> {
    let Progress {
        current,
        total,
        message,
    } = serde_json::from_value(job.progress.clone()?).ok()?;
    let counts = format!("{} of {}", count(current), count(total));
    Some(message.map_or(counts.clone(), |message| format!("{counts}, {message}")))
}
