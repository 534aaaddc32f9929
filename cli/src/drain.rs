//! Runs the workers here, tick after tick, until jobs have ended and their records are embedded.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use shared::job::JobStatus;
use shared::store::jobs::JobView;
use shared::store::projects::Coverage;

use shared::call::CallOptions;

use crate::Context;
use crate::app::{App, IngestOptions, Worker};
use crate::output::Output;
use crate::progress::Progress;
use crate::reading::Pieces;
use crate::shapes::{IngestResult, Rejected};

/// So many ticks in a row that move nothing end the wait.
const IDLE_TICKS: u32 = 3;
/// Between them.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// How often progress is looked at while a tick runs.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Hands the pieces in, a job each. An error among them leaves the jobs before it in the queue.
pub(crate) async fn enqueue(app: &App, options: &IngestOptions, pieces: &mut Pieces) -> Result<Vec<Handed>> {
    let mut handed: Vec<Handed> = Vec::new();
    while let Some(piece) = pieces.recv().await {
        let job_id = match piece {
            Ok(piece) => app.enqueue(options, &piece).await.map(|job_id| (job_id, piece.lines)),
            Err(error) => Err(error),
        };
        match (job_id, handed.last()) {
            (Ok((job_id, lines)), _) => handed.push(Handed { job_id, lines }),
            (Err(error), None) => return Err(error),
            (Err(error), Some(last)) => {
                let line = last.lines.last().copied().unwrap_or_default();
                return Err(error.context(format!(
                    "the records up to line {line} are in the queue, the last of them in job {}; \
                     handing the file in again does no harm",
                    last.job_id
                )));
            }
        }
    }
    Ok(handed)
}

/// A job that was handed in, and where its records stood.
#[derive(Clone, Debug)]
pub(crate) struct Handed {
    pub job_id: i64,
    pub lines: Vec<i32>,
}

/// Runs ingestion until these jobs have ended, and adds their results up, with lines as the file has them.
pub(crate) async fn ingest(app: &App, handed: &[Handed], project: &str, context: &Context) -> Result<IngestResult> {
    let options = CallOptions {
        project: Some(project.to_owned()),
        ..CallOptions::default()
    };
    let total = handed.iter().map(|handed| handed.lines.len() as u64).sum();
    let mut progress = Progress::new("stored", context.output);
    let mut sum = IngestResult::default();
    let mut stored = 0;
    let mut patience = Patience::default();
    for Handed { job_id, lines } in handed {
        let job = loop {
            let job = app.job(*job_id).await?;
            if has_ended(&job) {
                break job;
            }
            let report = app.tick(Worker::Ingestion, &options, &context.interrupt).await?;
            let held = job.status.parse() == Ok(JobStatus::Processing);
            if !patience.lasts(report.processed > 0, held, context.output).await {
                bail!("job {job_id} doesn't move: see `cronvec job {job_id}`");
            }
        };
        let result = result(&job)?;
        sum.saved_count += result.saved_count;
        sum.skipped_count += result.skipped_count;
        sum.rejected
            .extend(result.rejected.into_iter().map(|rejected| in_file(rejected, lines)));
        stored += lines.len() as u64;
        progress.update(stored, total);
    }
    progress.end();
    Ok(sum)
}

/// A job counts its own records from 1; a person looks for the line in the file.
fn in_file(rejected: Rejected, lines: &[i32]) -> Rejected {
    let place = usize::try_from(rejected.line).ok().and_then(|nth| nth.checked_sub(1));
    let line = place.and_then(|place| u64::try_from(*lines.get(place)?).ok());
    Rejected {
        line: line.unwrap_or(rejected.line),
        ..rejected
    }
}

/// Why a job failed.
pub(crate) fn error(job: &JobView) -> Option<&str> {
    job.result.as_ref()?.get("error")?.as_str()
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
pub(crate) async fn embed(app: &App, project: &str, context: &Context) -> Result<Embedded> {
    let options = CallOptions {
        project: Some(project.to_owned()),
        ..CallOptions::default()
    };
    let mut progress = Progress::new("embedded", context.output);
    let started = Instant::now();
    let mut records = 0;
    let mut patience = Patience::default();
    loop {
        let report = {
            let tick = app.tick(Worker::Vectorization, &options, &context.interrupt);
            tokio::pin!(tick);
            loop {
                tokio::select! {
                    report = &mut tick => break report?,
                    () = tokio::time::sleep(LOOK_EVERY) => {
                        let seen = coverage(app, project).await?;
                        progress.update(settled(&seen), number(seen.total));
                    }
                }
            }
        };
        let moved = report.records.unwrap_or(0);
        records += moved;
        let seen = coverage(app, project).await?;
        progress.update(settled(&seen), number(seen.total));
        if seen.pending == 0 {
            progress.end();
            return Ok(Embedded {
                records,
                elapsed: started.elapsed(),
            });
        }
        let held = app.is_being_embedded(project).await?;
        if !patience.lasts(moved > 0, held, context.output).await {
            progress.end();
            let why = report.stopped_because.as_deref().unwrap_or("unknown");
            bail!(
                "{} records are left and nothing moves ({why}): see `cronvec status`",
                seen.pending
            );
        }
    }
}

/// Judges whether it is any use to wait.
#[derive(Debug, Default)]
struct Patience {
    idle: u32,
    told: bool,
}

impl Patience {
    /// After a tick: false when there is nothing to wait for. Work that is `held` by somebody else's worker moves
    /// without us; if that worker is dead, it is free again when the lease ends.
    async fn lasts(&mut self, moved: bool, held: bool, output: Output) -> bool {
        if moved {
            self.idle = 0;
            return true;
        }
        if held {
            if !self.told {
                output
                    .note("another worker holds the job: waiting for its end, or that of its lease (a minute at most)");
                self.told = true;
            }
        } else {
            self.idle += 1;
        }
        if self.idle >= IDLE_TICKS {
            return false;
        }
        tokio::time::sleep(IDLE_PAUSE).await;
        true
    }
}

/// Records that nothing more will be done about.
fn settled(seen: &Coverage) -> u64 {
    number(seen.embedded + seen.quarantined)
}

/// Counts are never negative.
fn number(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// The coverage of a project that exists.
pub(crate) async fn coverage(app: &App, project: &str) -> Result<Coverage> {
    let mut lines = app.coverage(Some(project)).await?;
    lines.pop().with_context(|| format!("there is no project '{project}'"))
}

fn has_ended(job: &JobView) -> bool {
    job.status.parse().is_ok_and(JobStatus::has_ended)
}

fn result(job: &JobView) -> Result<IngestResult> {
    if job.status != "COMPLETED" {
        bail!(
            "job {} ended {}: {}",
            job.id,
            job.status,
            error(job).unwrap_or("no reason given")
        );
    }
    let result = job
        .result
        .clone()
        .with_context(|| format!("job {} has no result", job.id))?;
    serde_json::from_value(result).with_context(|| format!("the result of job {} can't be read", job.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_record_is_told_by_its_line_in_the_file() {
        let rejected = |line| Rejected {
            line,
            id: None,
            reason: "no text".to_owned(),
        };
        assert_eq!(in_file(rejected(2), &[1_001, 1_003]).line, 1_003);
        assert_eq!(in_file(rejected(9), &[1_001, 1_003]).line, 9);
    }
}
