//! Runs the workers here, tick after tick, until a job has ended and its records are embedded.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::app::{App, TickOptions, Worker};
use crate::output::Output;
use crate::progress::Progress;
use crate::shapes::{Coverage, IngestResult, Job};

/// So many ticks in a row that move nothing end the wait.
const IDLE_TICKS: u32 = 3;

/// How often progress is looked at while a tick runs.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs ingestion until this job has ended, and gives its result.
pub(crate) async fn ingest(app: &App, job_id: i64, project: &str) -> Result<IngestResult> {
    let options = TickOptions {
        project: Some(project.to_owned()),
        ..TickOptions::default()
    };
    let mut idle = 0;
    loop {
        let job = find(app, job_id).await?;
        if job.has_ended() {
            return result(&job);
        }
        let report = app.tick(Worker::Ingestion, &options).await?;
        idle = if report.processed == 0 { idle + 1 } else { 0 };
        if idle >= IDLE_TICKS && !find(app, job_id).await?.has_ended() {
            bail!("job {job_id} doesn't move: see `cronvec job {job_id}`");
        }
        if idle > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// How an embedding run went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Embedded {
    pub records: u64,
    pub elapsed: Duration,
}

impl Embedded {
    pub fn per_second(&self) -> f64 {
        // Counts of records stay far below 2^53.
        self.records as f64 / self.elapsed.as_secs_f64().max(0.001)
    }
}

/// Runs vectorization until nothing of the project is left to embed.
pub(crate) async fn embed(app: &App, project: &str, output: Output) -> Result<Embedded> {
    let options = TickOptions {
        project: Some(project.to_owned()),
        ..TickOptions::default()
    };
    let mut progress = Progress::new("embedded", output);
    let started = Instant::now();
    let mut records = 0;
    let mut idle = 0;
    loop {
        let report = {
            let tick = app.tick(Worker::Vectorization, &options);
            tokio::pin!(tick);
            loop {
                tokio::select! {
                    report = &mut tick => break report?,
                    () = tokio::time::sleep(LOOK_EVERY) => {
                        let seen = coverage(app, project).await?;
                        progress.update(seen.embedded + seen.quarantined, seen.total);
                    }
                }
            }
        };
        let moved = report.records.unwrap_or(0);
        records += moved;
        let seen = coverage(app, project).await?;
        progress.update(seen.embedded + seen.quarantined, seen.total);
        if seen.pending == 0 {
            progress.end();
            return Ok(Embedded {
                records,
                elapsed: started.elapsed(),
            });
        }
        idle = if moved == 0 { idle + 1 } else { 0 };
        if idle >= IDLE_TICKS {
            progress.end();
            let why = report.stopped_because.as_deref().unwrap_or("unknown");
            bail!(
                "{} records are left and nothing moves ({why}): see `cronvec status`",
                seen.pending
            );
        }
        if idle > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// The coverage of a project that exists.
pub(crate) async fn coverage(app: &App, project: &str) -> Result<Coverage> {
    let mut lines = app.coverage(Some(project)).await?;
    lines.pop().with_context(|| format!("there is no project '{project}'"))
}

async fn find(app: &App, id: i64) -> Result<Job> {
    app.job(id).await?.with_context(|| format!("job {id} is gone"))
}

fn result(job: &Job) -> Result<IngestResult> {
    if job.status != "COMPLETED" {
        bail!(
            "job {} ended {}: {}",
            job.id,
            job.status,
            job.error().unwrap_or("no reason given")
        );
    }
    let result = job
        .result
        .clone()
        .with_context(|| format!("job {} has no result", job.id))?;
    serde_json::from_value(result).with_context(|| format!("the result of job {} can't be read", job.id))
}
