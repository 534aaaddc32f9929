//! `status`

use anyhow::Result;
use shared::job::Progress;
use shared::store::endpoints::Pause;
use shared::store::jobs::JobView;

use super::ready;
use crate::Context;
use crate::drain::error;
use crate::exit::Ended;
use crate::output::{Align, Table, brief, count};
use crate::shapes::Status;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// So many of the recent jobs
    #[arg(long, default_value_t = 10)]
    limit: usize,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let mut status = ready().await?.status().await?;
    status.queue.recent_jobs.truncate(args.limit);
    context.output.show(&status, || in_words(&status))?;
    Ok(Ended::Well)
}

fn in_words(status: &Status) -> String {
    let stats = &status.queue.queue_stats;
    let mut text = format!(
        "{} pending, {} processing, {} completed, {} failed\n",
        count(stats.pending),
        count(stats.processing),
        count(stats.completed),
        count(stats.failed)
    );
    if let Some(oldest) = &status.queue.oldest_pending_job {
        text.push_str(&format!(
            "oldest pending: job {}, {:.0} minutes\n",
            oldest.id, oldest.age_minutes
        ));
    }
    text.push('\n');
    text.push_str(&jobs(&status.queue.recent_jobs).render());
    text.push('\n');
    let columns = [
        ("worker", Align::Left),
        ("last seen", Align::Left),
        ("took ms", Align::Right),
    ];
    let mut workers = Table::new(&columns, "no worker has run yet");
    for worker in &status.workers {
        let took = worker.last_duration_ms.map_or_else(String::new, count);
        let seen = worker.last_seen_at.truncate_to_second().to_string();
        workers.row([worker.name.clone(), seen, took]);
    }
    text.push_str(&workers.render());
    for pause in &status.pauses {
        text.push_str(&format!("\n{}\n", rests(pause)));
    }
    text
}

fn rests(pause: &Pause) -> String {
    let Pause {
        endpoint,
        seconds_left,
        circuit,
        message,
    } = pause;
    match circuit {
        true => format!("{endpoint} is shut off: {message}\n  mend it, then run: cronvec provider test"),
        false => format!("{endpoint} rests for {seconds_left:.0} s: {message}"),
    }
}

/// Jobs, a row each.
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
