//! Runs the workers here, tick after tick, until jobs have ended and their records are embedded.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use cronvec_nouns::job::{JobStatus, JobType};
use cronvec_store::jobs::JobView;
use cronvec_store::projects::Coverage;
use cronvec_store::selection::JobFilter;

use cronvec_call::CallOptions;

use crate::Context;
use crate::app::{App, Worker};
use crate::output::Output;
use crate::progress::Progress;
use crate::reading::{Piece, Pieces};
use crate::rejects::Rejects;
use crate::shapes::{FailedJob, IngestResult, Lines};

/// So many ticks in a row that move nothing end the wait.
const IDLE_TICKS: u32 = 3;
/// Between them.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// Rejected lines that are asked for at once.
const REJECTS_A_PAGE: i64 = 1000;

/// How often progress is looked at while a tick runs.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A job that was handed in.
#[derive(Clone, Debug)]
pub(crate) struct Handed {
    pub job_id: i64,
    pub records: u64,
    /// Of the file.
    pub first_line: i32,
    pub last_line: i32,
}

/// Hands the pieces in, a job each: `hand` makes it and gives its id. An error among them leaves the jobs before it in the
/// queue.
pub(crate) async fn enqueue(
    hand: impl AsyncFn(&Piece) -> Result<i64>,
    pieces: &mut Pieces,
    rejects: &mut Rejects,
) -> (Vec<Handed>, Result<()>) {
    let mut handed: Vec<Handed> = Vec::new();
    let ended = hand_in(hand, pieces, rejects, &mut handed).await;
    let ended = ended.map_err(|error| match handed.last() {
        None => error,
        Some(last) => error.context(format!(
            "the records up to line {} are in the queue, the last of them in job {}; \
             handing the file in again does no harm",
            last.last_line, last.job_id
        )),
    });
    (handed, ended)
}

async fn hand_in(
    hand: impl AsyncFn(&Piece) -> Result<i64>,
    pieces: &mut Pieces,
    rejects: &mut Rejects,
    handed: &mut Vec<Handed>,
) -> Result<()> {
    while let Some(piece) = pieces.recv().await {
        let piece = piece?;
        for unreadable in &piece.unreadable {
            rejects.unreadable(unreadable)?;
        }
        if rejects.whole(&piece)? {
            continue;
        }
        if let (Some(first), Some(last)) = (piece.lines.first(), piece.lines.last()) {
            handed.push(Handed {
                job_id: hand(&piece).await?,
                records: piece.lines.len() as u64,
                first_line: *first,
                last_line: *last,
            });
        }
    }
    Ok(())
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JobResult {
    saved_count: u64,
    skipped_count: u64,
}

/// Runs ingestion until these jobs have ended, and adds their results up. A job that failed doesn't end the others.
pub(crate) async fn ingest(
    app: &App,
    handed: &[Handed],
    project: &str,
    rejects: &mut Rejects,
    context: &Context,
) -> Result<IngestResult> {
    let options = CallOptions {
        project: Some(project.to_owned()),
        ..CallOptions::default()
    };
    let total = handed.iter().map(|handed| handed.records).sum();
    let mut progress = Progress::new("stored", context.output);
    let mut sum = IngestResult::default();
    let mut stored = 0;
    let mut patience = Patience::default();
    for Handed {
        job_id,
        records,
        first_line,
        last_line,
    } in handed
    {
        let job = loop {
            let job = app.job(*job_id).await?;
            if has_ended(&job) {
                break job;
            }
            let report = app.tick(Worker::Ingestion, &options, &context.interrupt).await?;
            let moved = report.processed > 0;
            let waits_for = if job.status.parse() == Ok(JobStatus::Processing) {
                Some(WaitsFor::Lease)
            } else if !moved && app.is_scheduled(*job_id).await? {
                Some(WaitsFor::Time)
            } else {
                None
            };
            if !patience.lasts(moved, waits_for, context.output).await {
                bail!("job {job_id} doesn't move: see `cronvec job {job_id}`");
            }
        };
        if job.status == "COMPLETED" {
            let result: JobResult = serde_json::from_value(job.result.clone().unwrap_or_default())
                .with_context(|| format!("the result of job {job_id} can't be read"))?;
            sum.saved_count += result.saved_count;
            sum.skipped_count += result.skipped_count;
        } else {
            sum.failed.push(FailedJob {
                lines: Some(Lines {
                    first_line: *first_line,
                    last_line: *last_line,
                }),
                ..failed(&job)
            });
        }
        take_rejects(app, *job_id, rejects).await?;
        stored += records;
        progress.update(stored, total);
    }
    progress.end();
    rejects.add_to(&mut sum);
    Ok(sum)
}

/// All that a job rejected; its result has the first ones only.
async fn take_rejects(app: &App, job_id: i64, rejects: &mut Rejects) -> Result<()> {
    let mut after = 0;
    loop {
        let page = app.rejects(job_id, after, REJECTS_A_PAGE).await?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        after = last.line;
        for (rejection, raw) in &page {
            rejects.rejected(rejection, raw.as_deref())?;
        }
    }
}

/// Why a job failed.
pub(crate) fn error(job: &JobView) -> Option<&str> {
    job.result.as_ref()?.get("error")?.as_str()
}

fn failed(job: &JobView) -> FailedJob {
    FailedJob {
        job_id: job.id.clone(),
        status: job.status.clone(),
        error: error(job).unwrap_or("no reason given").to_owned(),
        lines: None,
        left: None,
    }
}

/// How an embedding run went.
#[derive(Clone, Debug)]
pub(crate) struct Embedded {
    pub records: u64,
    pub elapsed: Duration,
    /// Jobs that ended otherwise than well and keep what is left from being embedded.
    pub failed: Vec<FailedJob>,
}

impl Embedded {
    pub fn per_second(&self) -> f64 {
        // Counts of records stay far below 2^53.
        self.records as f64 / self.elapsed.as_secs_f64().max(0.001)
    }
}

/// The ended jobs that hold lanes of the project, with their reasons.
async fn holders(app: &App, project: &str, left: u64) -> Result<Vec<FailedJob>> {
    let filter = JobFilter {
        job_type: Some(JobType::Vectorize),
        project: Some(project.to_owned()),
        status: None,
    };
    let mut holders = Vec::new();
    for stuck in app.store().stuck(&filter, f64::from(u16::MAX)).await? {
        if stuck.kind == "lane_held" {
            let job = app.job(stuck.job_id.parse()?).await?;
            holders.push(FailedJob {
                left: Some(left),
                ..failed(&job)
            });
        }
    }
    Ok(holders)
}

/// Runs vectorization until nothing of the project is left to embed, or a job that ended keeps it from that.
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
                failed: Vec::new(),
            });
        }
        let waits_for = if app.is_being_embedded(project).await? {
            Some(WaitsFor::Lease)
        } else if app.is_embedding_scheduled(project).await? {
            Some(WaitsFor::Time)
        } else {
            None
        };
        if moved == 0 && waits_for.is_none() {
            let failed = holders(app, project, number(seen.pending)).await?;
            if !failed.is_empty() {
                progress.end();
                return Ok(Embedded {
                    records,
                    elapsed: started.elapsed(),
                    failed,
                });
            }
        }
        if !patience.lasts(moved > 0, waits_for, context.output).await {
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
    told: Option<WaitsFor>,
}

/// What moves without a tick of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitsFor {
    Lease,
    Time,
}

impl Patience {
    /// After a tick: false when there is nothing to wait for. What somebody else's worker holds moves without us; if that
    /// worker is dead, it is free again when the lease ends.
    async fn lasts(&mut self, moved: bool, waits_for: Option<WaitsFor>, output: Output) -> bool {
        if moved {
            self.idle = 0;
            self.told = None;
            return true;
        }
        match waits_for {
            None => self.idle += 1,
            told if self.told == told => {}
            Some(WaitsFor::Lease) => output
                .note("another worker holds the job: waiting for its end, or that of its lease (a minute at most)"),
            Some(WaitsFor::Time) => output.note("the job failed and is tried again after a while: waiting for that"),
        }
        self.told = waits_for.or(self.told);
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
