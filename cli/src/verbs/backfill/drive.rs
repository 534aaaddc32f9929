//! A backfill under way: marks, lets the lanes tick, watches, goes round again, and sums up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use cronvec_call::CallOptions;
use cronvec_store::backfill::{Backfill, Left};
use cronvec_store::projects::{Coverage, Project};
use serde::Serialize;
use tokio::sync::watch;

use super::Options;
use super::via::Via;
use crate::Context;
use crate::app::App;
use crate::drain;
use crate::exit::Ended;
use crate::indexes;
use crate::output::count;
use crate::progress::Progress;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// With `--json` there is a line so often.
const LINE_EVERY: Duration = Duration::from_secs(2);
/// A look takes no more than this share of the time.
const LOOK_SHARE: u32 = 20;
const IDLE_PAUSE: Duration = Duration::from_millis(500);
/// So many ticks in a row that move nothing, with nothing to wait for, end it.
const IDLE_TICKS: u32 = 4;
/// What moves by itself later than this isn't waited for.
const LONGEST_WAIT: f64 = 300.0;

pub(super) struct Drive<'a> {
    app: App,
    context: &'a Context,
    options: Options,
    via: Via,
    backfill: Backfill,
    began: Instant,
    /// It ends: stopped, interrupted or given up.
    ending: watch::Sender<bool>,
    /// Nothing is left of the round.
    drained: AtomicBool,
    ticks: AtomicU64,
    /// The tick that the furthest lane is at.
    iteration: AtomicU64,
    records: AtomicU64,
    why: Mutex<Option<String>>,
    /// It ended early because something is wrong.
    gave_up: AtomicBool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    step: &'static str,
    operation: String,
    done: i64,
    total: i64,
    percent: f64,
    per_second: f64,
    /// Null: nothing moves.
    eta_seconds: Option<f64>,
    quarantined: i64,
    /// Why nothing can move.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    step: &'static str,
    operation: String,
    project: String,
    state: String,
    /// Why it ended before its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<String>,
    marked: i64,
    embedded: u64,
    quarantined: i64,
    left: i64,
    rounds: i32,
    ticks: u64,
    seconds: f64,
    per_second: f64,
    coverage: Coverage,
}

impl<'a> Drive<'a> {
    /// Begins a backfill, or goes on with the one that isn't over.
    pub async fn begin(app: App, context: &'a Context, options: Options, via: Via, project: &Project) -> Result<Self> {
        let store = app.store();
        let (backfill, is_new) = store.begin_backfill(project.id, options.priority).await?;
        let iterations = options.iterations.map(|most| i64::try_from(most).unwrap_or(i64::MAX));
        store.drive_backfill(backfill.id, iterations).await?;
        store.lift_holds(project.id).await?;
        store.raise_lanes(project.id, options.parallel).await?;
        let id = backfill.id.to_string();
        let said = if is_new {
            "backfill begun"
        } else {
            "backfill gone on with"
        };
        app.audit(
            "backfill",
            &format!("{said}: project {}", project.name),
            std::slice::from_ref(&id),
            Some(&id),
        )
        .await;
        context.output.note(format!("{said}, operation {id}"));
        Ok(Self {
            app,
            context,
            options,
            via,
            backfill,
            began: Instant::now(),
            ending: watch::Sender::new(false),
            drained: AtomicBool::new(false),
            ticks: AtomicU64::new(0),
            iteration: AtomicU64::new(0),
            records: AtomicU64::new(0),
            why: Mutex::default(),
            gave_up: AtomicBool::new(false),
        })
    }

    pub async fn run(self) -> Result<Ended> {
        // Held to the end: after a signal what follows still has its two seconds.
        let mut signal = self.context.interrupt.watch();
        let work = self.rounds();
        tokio::pin!(work);
        let outcome = tokio::select! {
            outcome = &mut work => outcome,
            _ = signal.wait_for(|raised| *raised) => {
                self.end("interrupted");
                work.await
            }
        };
        let ended_early = outcome.is_err() || self.is_ending();
        let state = if ended_early { "stopped" } else { "finished" };
        self.app.store().set_backfill(self.backfill.id, state, 0).await?;
        outcome?;
        self.sum_up().await
    }

    async fn rounds(&self) -> Result<()> {
        for round in 0..self.options.passes {
            let marked = self.mark().await?;
            if self.is_ending() || (round > 0 && marked == 0) {
                break;
            }
            self.drained.store(false, Ordering::Relaxed);
            let lanes = futures::future::try_join_all((0..self.options.parallel).map(|_| self.lane()));
            let watch = self.watch();
            tokio::pin!(lanes, watch);
            tokio::select! {
                ended = &mut lanes => ended.map(|_| ())?,
                ended = &mut watch => {
                    ended?;
                    // Told to end; the lanes part from their jobs.
                    lanes.await?;
                }
            }
            if self.is_ending() {
                break;
            }
        }
        Ok(())
    }

    /// One round over the records, or what is left of it.
    async fn mark(&self) -> Result<i64> {
        let mut marked = 0;
        while !self.is_ending() {
            match self
                .app
                .store()
                .mark_page(self.backfill.id, self.options.batch_size)
                .await?
            {
                None => self.end("stopped"),
                Some(page) => {
                    marked += page.marked;
                    if page.is_through {
                        break;
                    }
                }
            }
        }
        Ok(marked)
    }

    /// Tick after tick, until nothing is left that moves.
    async fn lane(&self) -> Result<()> {
        let options = CallOptions {
            project: Some(self.backfill.project.clone()),
            ..CallOptions::default()
        };
        let mut ending = self.ending.subscribe();
        let mut idle = 0;
        for nth in 0..self.options.iterations.unwrap_or(u64::MAX) {
            if self.is_ending() || self.drained.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.iteration.fetch_max(nth + 1, Ordering::Relaxed);
            let outcome = self.via.tick(&self.app, &options, &mut ending).await;
            let report = match outcome {
                Ok(report) => report,
                // The others part from their jobs before it is told.
                Err(error) => {
                    self.give_up("a tick failed");
                    return Err(error);
                }
            };
            self.ticks.fetch_add(1, Ordering::Relaxed);
            let moved = report.records.unwrap_or(0);
            self.records.fetch_add(moved, Ordering::Relaxed);
            if self.is_ending() {
                return Ok(());
            }
            let left = self.app.store().backfill_left(&self.backfill).await?;
            if left.records == 0 || (left.own == 0 && report.remaining == Some(false)) {
                self.drained.store(true, Ordering::Relaxed);
                return Ok(());
            }
            let mut pause = self.options.delay;
            if moved > 0 || report.failed.unwrap_or(0) > 0 {
                idle = 0;
            } else if report.already_running == Some(true) || self.is_worth_waiting(&left).await? {
                pause = pause.max(IDLE_PAUSE);
            } else {
                idle += 1;
                if idle >= IDLE_TICKS {
                    let because = report.stopped_because.as_deref().unwrap_or("unknown");
                    self.give_up(&format!(
                        "nothing moves any more ({because}): see `cronvec stuck` and `cronvec doctor`"
                    ));
                    return Ok(());
                }
                pause = pause.max(IDLE_PAUSE);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = ending.wait_for(|ending| *ending) => return Ok(()),
            }
        }
        self.end("its iterations are over");
        Ok(())
    }

    /// Whether something moves without us, soon.
    async fn is_worth_waiting(&self, left: &Left) -> Result<bool> {
        let store = self.app.store();
        let pauses = store.pauses(None).await?;
        if let Some(circuit) = pauses.iter().find(|pause| pause.circuit) {
            self.give_up(&format!(
                "{} is shut off: {}; mend it, then: cronvec provider test",
                circuit.endpoint, circuit.message
            ));
            return Ok(true);
        }
        let rests = pauses.iter().any(|pause| pause.seconds_left <= LONGEST_WAIT);
        let comes = left.waiting > 0 && left.seconds_to_first.is_some_and(|seconds| seconds <= LONGEST_WAIT);
        Ok(rests
            || comes
            || store.is_being_embedded(&self.backfill.project).await?
            || store.is_embedding_scheduled(&self.backfill.project).await?)
    }

    /// Shows how far it is; ends when somebody stopped it elsewhere, or with all others.
    async fn watch(&self) -> Result<()> {
        let mut ending = self.ending.subscribe();
        let mut progress = Progress::new("embedded", self.context.output);
        let (mut total, mut first, mut told) = (0, None, Instant::now());
        loop {
            let began = Instant::now();
            let left = self.app.store().backfill_left(&self.backfill).await?;
            let iteration = i64::try_from(self.iteration.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
            if !self.app.store().is_running(self.backfill.id, iteration).await? {
                self.end("stopped");
            }
            total = total.max(left.records);
            let done = total - left.records;
            let since = *first.get_or_insert(Instant::now());
            let blocked = self.app.store().outlook(&self.backfill.project).await?.blocked;
            progress.block(blocked.clone());
            progress.update(u64::try_from(done).unwrap_or(0), u64::try_from(total).unwrap_or(0));
            if self.context.output.json && told.elapsed() >= LINE_EVERY {
                told = Instant::now();
                self.context
                    .output
                    .show(&self.seen(done, total, &left, since.elapsed(), blocked), String::new)?;
            }
            if self.is_ending() {
                progress.end();
                return Ok(());
            }
            let pause = LOOK_EVERY.max(began.elapsed() * LOOK_SHARE);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = ending.wait_for(|ending| *ending) => {}
            }
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "rates of counts")]
    fn seen(&self, done: i64, total: i64, left: &Left, elapsed: Duration, blocked: Option<String>) -> Seen {
        let per_second = done as f64 / elapsed.as_secs_f64().max(0.001);
        Seen {
            step: "embedding",
            operation: self.backfill.id.to_string(),
            done,
            total,
            percent: (done as f64 / total.max(1) as f64 * 1e4).floor() / 1e2,
            per_second: (per_second * 10.0).round() / 10.0,
            eta_seconds: (per_second > 0.0 && blocked.is_none()).then(|| (left.records as f64 / per_second).round()),
            quarantined: left.quarantined,
            blocked,
        }
    }

    fn give_up(&self, because: &str) {
        self.gave_up.store(true, Ordering::Relaxed);
        self.end(because);
    }

    /// The first reason counts.
    fn end(&self, because: &str) {
        let mut why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.get_or_insert_with(|| because.to_owned());
        drop(why);
        self.ending.send_replace(true);
    }

    fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }

    #[allow(clippy::cast_precision_loss, reason = "a rate of counts")]
    async fn sum_up(&self) -> Result<Ended> {
        let store = self.app.store();
        let backfill = store.backfill(self.backfill.id).await?;
        let left = store.backfill_left(&backfill).await?;
        let seconds = self.began.elapsed().as_secs_f64();
        let embedded = self.records.load(Ordering::Relaxed);
        let because = self.why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let summary = Summary {
            step: "ended",
            operation: backfill.id.to_string(),
            project: backfill.project.clone(),
            state: backfill.state,
            because,
            marked: backfill.marked,
            embedded,
            quarantined: left.quarantined,
            left: left.records,
            rounds: backfill.rounds,
            ticks: self.ticks.load(Ordering::Relaxed),
            seconds: (seconds * 10.0).round() / 10.0,
            per_second: (embedded as f64 / seconds.max(0.001) * 10.0).round() / 10.0,
            coverage: drain::coverage(&self.app, &backfill.project).await?,
        };
        self.context.output.show(&summary, || summary.in_words())?;
        if embedded > 0
            && summary.state == "finished"
            && let Some(column) = indexes::of_project(&self.app, &summary.project).await?
            && let Some(offer) = indexes::after_filling(&column)
        {
            self.context.output.note(offer);
        }
        Ok(match self.gave_up.load(Ordering::Relaxed) {
            true => Ended::Unhealthy,
            false => Ended::Well,
        })
    }
}

impl Summary {
    fn in_words(&self) -> String {
        let mut text = format!(
            "backfill {} {}: {} embedded in {:.1} s, {:.1} a second, {} ticks; {} set aside, {} left\n",
            self.operation,
            self.state,
            count(self.embedded),
            self.seconds,
            self.per_second,
            count(self.ticks),
            count(self.quarantined),
            count(self.left),
        );
        if let Some(because) = &self.because {
            text.push_str(&format!("ended early: {because}; `cronvec backfill` goes on with it\n"));
        }
        text.push_str(&super::super::coverage::table(std::slice::from_ref(&self.coverage)).render());
        text
    }
}
