//! `status`

use anyhow::Result;
use cronvec_store::endpoints::Pause;
use cronvec_store::jobs::{Counts, OldestPending, QueueStats};
use cronvec_store::workers::WorkerStatus;
use serde::Deserialize;
use time::OffsetDateTime;

use super::job_table::jobs;
use super::{ready, recent};
use crate::Context;
use crate::exit::Ended;
use crate::filters::Scope;
use crate::output::{Align, Table, brief, count};
use crate::remote::Remote;
use crate::shapes::Status;

/// As many as the database is asked for.
const RECENT: usize = 50;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// So many of the recent jobs
    #[arg(long, default_value_t = 10)]
    limit: usize,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let mut status = match &context.remote {
        Some(remote) => of_deployment(remote, args.limit).await?,
        None => ready().await?.status().await?,
    };
    status.queue.recent_jobs.truncate(args.limit);
    context.output.show(&status, || in_words(&status))?;
    Ok(Ended::Well)
}

/// What a deployment's page shows of it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Monitor {
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    queue_stats: Counts,
    capped: Vec<String>,
    oldest_pending_job: Option<OldestPending>,
    workers: Vec<WorkerStatus>,
    endpoints: Vec<Rest>,
    coverage: Vec<Covered>,
    paused: Paused,
}

#[derive(Deserialize)]
struct Covered {
    pending: Option<i64>,
}

#[derive(Deserialize)]
struct Paused {
    projects: Vec<String>,
}

#[derive(Deserialize)]
struct Rest {
    endpoint: String,
    #[serde(with = "time::serde::rfc3339")]
    until: OffsetDateTime,
    circuit: bool,
    why: String,
}

async fn of_deployment(remote: &Remote, limit: usize) -> Result<Status> {
    let monitor: Monitor = remote.get("api/admin/monitor", &[]).await?;
    // Those of the page lack what was rejected.
    let limit = i64::try_from(limit.min(RECENT)).unwrap_or(i64::MAX);
    let recent_jobs = recent::of_deployment(remote, None, &Scope::default(), limit).await?;
    let of_ours = ["pending", "processing", "completed", "failed"].into_iter();
    Ok(Status {
        queue: QueueStats {
            queue_stats: monitor.queue_stats,
            capped: of_ours
                .filter(|name| monitor.capped.iter().any(|capped| capped == name))
                .collect(),
            recent_jobs,
            oldest_pending_job: monitor.oldest_pending_job,
        },
        workers: monitor.workers,
        pauses: monitor
            .endpoints
            .into_iter()
            .map(|rest| Pause {
                endpoint: rest.endpoint,
                seconds_left: (rest.until - monitor.at).as_seconds_f64(),
                circuit: rest.circuit,
                message: rest.why,
            })
            .collect(),
        pending_records: monitor.coverage.iter().filter_map(|covered| covered.pending).sum(),
        stopped: monitor.paused.projects,
    })
}

fn in_words(status: &Status) -> String {
    let stats = &status.queue.queue_stats;
    let mut text = format!(
        "jobs: {} pending, {} processing, {} completed, {} failed\n",
        count(stats.pending),
        count(stats.processing),
        count(stats.completed),
        count(stats.failed)
    );
    let at_least = if status.queue.capped.contains(&"pendingRecords") {
        "+"
    } else {
        ""
    };
    text.push_str(&format!(
        "records: {}{at_least} pending\n",
        count(status.pending_records)
    ));
    text.extend(stopped(&status.stopped));
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

/// The projects that are stopped, in a line; none: nothing.
fn stopped(projects: &[String]) -> Option<String> {
    let first = projects.first()?;
    let named = brief(&projects.join(", "), 200);
    Some(format!(
        "stopped: {named}\n  to let workers at them again: cronvec start {first}\n"
    ))
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
