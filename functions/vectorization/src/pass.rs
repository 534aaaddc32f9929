//! One pass: a few slots, each reading slices of the job whose turn it is, while the jobs before it finish writing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cronvec_call::Work as _;
use cronvec_nouns::job::{ClaimedJob, End, JobType, Lease};
use cronvec_pipeline::{Invocation, Run, RunEnd, Served, ServedSpaces, Tally, canary};
use cronvec_store::StoreError;
use cronvec_store::claim::ClaimWish;
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::finishing::Finishing;
use crate::report::{Report, StoppedBecause};
use crate::seen::Seen;
use crate::spare;
use crate::suspects::Suspects;

/// Nobody was due: others who became due since wait so much longer for the slot.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// A job that lost its worker begins no request after being alone for so long, nor for more than a sixth of the pass; then
/// others have as long.
const ALONE: Duration = Duration::from_secs(10);
/// While others work, a slot looks so often whether there is something for it but a job that has just been alone.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// What the last report of a pass needs.
const REPORT: Duration = Duration::from_millis(30);

/// A job, and how many of its records may be read.
type Claimed = (ClaimedJob, usize);

pub(crate) struct Pass {
    pub invocation: Arc<Invocation>,
    pub served: ServedSpaces,
    pub project_id: Option<i32>,
    pub slots: usize,
    pub max_records: Option<u64>,
    /// Of new jobs.
    pub max_attempts: i32,
    pub backoff_ms: i32,
    /// Shared by the jobs that run beside each other; taken alone by one that lost its worker.
    pub company: Arc<RwLock<()>>,
    /// One waits to be alone: the others part from their jobs after the slice.
    pub alone_wanted: AtomicBool,
    /// Jobs that were alone, and until when it is the others' turn.
    pub had_their_turn: Mutex<HashMap<i64, Instant>>,
    /// Slots that read a job beside others.
    pub reading: AtomicUsize,
}

impl Pass {
    pub async fn run(self) -> Result<Report, StoreError> {
        let pass = Arc::new(self);
        let seen = Arc::new(Seen::default());
        let left = Arc::new(AtomicU64::new(pass.max_records.unwrap_or(u64::MAX)));
        let end_of_work = tokio::time::Instant::from_std(pass.invocation.clock.end_of_work());
        let all = Arc::clone(&pass).rounds(Arc::clone(&seen), Arc::clone(&left));
        let outcome = tokio::time::timeout_at(end_of_work, all).await;
        // Whichever way it ended: what is still leased goes back, and nobody takes this worker for dead.
        let deadline = pass.invocation.clock.deadline();
        let leases = &pass.invocation.leases;
        leases
            .release_all(deadline.checked_sub(REPORT).unwrap_or(deadline))
            .await;
        match outcome {
            Ok(outcome) => outcome?,
            Err(_) => {
                // A last resort: what was on its way is dropped.
                tracing::warn!("a pass was cut off at its deadline");
                return Ok(pass.report_of(&seen, true, StoppedBecause::Deadline));
            }
        }
        match tokio::time::timeout_at(end_of_work, pass.report(&seen, left.load(Ordering::Relaxed))).await {
            Ok(report) => report,
            Err(_) => Ok(pass.report_of(&seen, true, StoppedBecause::Deadline)),
        }
    }

    /// A round ends when nothing can be claimed and everything is written; a job that has new work by then gets
    /// another. A record that is written while its job ends found an active job and is seen by none: who ended jobs
    /// looks once more.
    async fn rounds(self: Arc<Self>, seen: Arc<Seen>, left: Arc<AtomicU64>) -> Result<(), StoreError> {
        self.invocation.leases.report_earlier().await;
        canary::try_circuits(&self.invocation, &self.served).await?;
        spare::take_notes(&self.invocation, self.project_id).await?;
        self.ensure_jobs().await?;
        Arc::clone(&self).work(&seen, &left).await?;
        if !self.must_end(&seen, &left) && spare::reconcile(&self.invocation, self.project_id).await? > 0 {
            self.ensure_jobs().await?;
            self.work(&seen, &left).await?;
        }
        Ok(())
    }

    async fn work(self: Arc<Self>, seen: &Arc<Seen>, left: &Arc<AtomicU64>) -> Result<(), StoreError> {
        loop {
            seen.continuing.store(0, Ordering::Relaxed);
            seen.claimed.store(0, Ordering::Relaxed);
            let mut slots = JoinSet::new();
            for _ in 0..self.slots.max(1) {
                slots.spawn(
                    Arc::clone(&self)
                        .slot(Arc::clone(seen), Arc::clone(left))
                        .in_current_span(),
                );
            }
            let mut outcome = Ok(());
            while let Some(ended) = slots.join_next().await {
                let ended = ended.map_err(|panic| StoreError::Unreadable(format!("a slot broke off: {panic}")));
                outcome = outcome.and(ended.and_then(|ended| ended));
            }
            outcome?;
            let (continuing, claimed) = (&seen.continuing, &seen.claimed);
            if self.must_end(seen, left) || claimed.load(Ordering::Relaxed) == 0 {
                return Ok(());
            }
            if continuing.load(Ordering::Relaxed) == 0 && self.ensure_jobs().await? == 0 {
                return Ok(());
            }
        }
    }

    async fn ensure_jobs(&self) -> Result<u64, StoreError> {
        let store = &self.invocation.store;
        store.ensure_vectorize_jobs(self.max_attempts, self.backoff_ms).await
    }

    fn must_end(&self, seen: &Seen, left: &AtomicU64) -> bool {
        self.invocation.is_stopped()
            || seen.out_of_time.load(Ordering::Relaxed)
            || left.load(Ordering::Relaxed) == 0
            || self.invocation.clock.time_for_request().is_none()
    }

    /// One job after another. After each slice the slot goes to whoever is due; the job before it keeps its lease until
    /// its writes are done.
    async fn slot(self: Arc<Self>, seen: Arc<Seen>, left: Arc<AtomicU64>) -> Result<(), StoreError> {
        let mut finishing = Finishing::new(&seen);
        let mut next = finishing.claimed(self.claim_or_wait(&seen, &left).await);
        while let Some((job, limit)) = next.take() {
            let Some(served) = self.served.get(job.space_id).cloned() else {
                break;
            };
            if let Some(suspects) = Suspects::of(&job, self.in_flight()) {
                // What this slot has read before must be written, or it would wait for itself.
                finishing.wait().await;
                give_back(&left, limit);
                finishing.note(Ok(self.work_alone(served, job, suspects, &left).await));
            } else {
                let company = Arc::clone(&self.company).read_owned().await;
                let mut run = match Run::start(Arc::clone(&self.invocation), served, job).await {
                    Ok(run) => run,
                    Err(error) => {
                        finishing.note(Ok(Err(error)));
                        break;
                    }
                };
                let (other, trouble) = self.read_slices(&mut run, limit, &seen, &left).await;
                next = finishing.claimed(other);
                finishing.begin(run, trouble, company);
            }
            if next.is_none() && finishing.is_well() {
                // Others may have come while this one was read to its end.
                next = finishing.claimed(self.claim_or_wait(&seen, &left).await);
            }
        }
        finishing.wait().await;
        finishing.outcome()
    }

    /// Reads a job, beside others, to its end or until the slot is for somebody else. Gives the one that was claimed for it,
    /// and the job's own trouble; a claim that failed isn't that.
    async fn read_slices(
        &self,
        run: &mut Run,
        mut limit: usize,
        seen: &Seen,
        left: &AtomicU64,
    ) -> (Result<Option<Claimed>, StoreError>, Option<StoreError>) {
        let _reading = Counted::new(&self.reading);
        // At first after its first slice; later not after each of many that take no time.
        let mut asked = Instant::now() - ASK_AGAIN_AFTER;
        while limit > 0 {
            match run.advance(limit).await {
                Ok(read) => {
                    give_back(left, limit - read.min(limit));
                    if read == 0 {
                        break;
                    }
                }
                Err(error) => return (Ok(None), Some(error)),
            }
            if self.alone_wanted.load(Ordering::Relaxed) {
                break;
            }
            if asked.elapsed() >= ASK_AGAIN_AFTER {
                match self.claim(seen, left).await {
                    Ok(None) => asked = Instant::now(),
                    other => return (other, None),
                }
            }
            limit = take(left, self.invocation.bounds.records_per_slice);
        }
        (Ok(None), None)
    }

    /// Records that a worker may have in its requests, and in those whose answers it is about to write.
    fn in_flight(&self) -> usize {
        2 * self.invocation.bounds.batch_size * self.invocation.bounds.concurrent_requests
    }

    /// One slice of a job that lost its worker: no other job beside it, no reading ahead, one request in flight, and for a
    /// bounded time. Then it is the others' turn for as long.
    async fn work_alone(
        &self,
        served: Served,
        job: ClaimedJob,
        suspects: Suspects,
        left: &AtomicU64,
    ) -> Result<RunEnd, StoreError> {
        self.alone_wanted.store(true, Ordering::Relaxed);
        let alone = self.company.write().await;
        self.alone_wanted.store(false, Ordering::Relaxed);
        let lease = job.lease;
        let began = Instant::now();
        let until = began + ALONE.min(self.invocation.clock.total() / 6);
        let mut run = Run::start_alone(Arc::clone(&self.invocation), served, job, until).await?;
        let outcome = self.step_alone(&mut run, lease, suspects, left).await;
        let end = run.finish(outcome.err()).await;
        let mut turns = self.had_their_turn.lock().unwrap_or_else(PoisonError::into_inner);
        turns.insert(lease.job_id, Instant::now() + began.elapsed());
        drop(turns);
        drop(alone);
        end
    }

    /// Before anything is sent the job remembers what it is about: whoever finds it dead must know.
    async fn step_alone(
        &self,
        run: &mut Run,
        lease: Lease,
        mut suspects: Suspects,
        left: &AtomicU64,
    ) -> Result<(), StoreError> {
        if suspects.is_one() {
            suspects = suspects.facing(run.first().await?);
        }
        let remembered = suspects.remembered();
        match self.invocation.store.save_cursor(lease, &remembered.cursor).await {
            Err(StoreError::LeaseLost) => {
                run.lose();
                return Ok(());
            }
            saved => saved?,
        }
        if let Some(culprit) = suspects.culprit().cloned() {
            run.condemn(
                &culprit,
                "crashed_worker",
                "each worker that embedded this record, with no other beside it, died",
            )
            .await?;
            // Without time for the check, or without a provider, it is done by the next worker.
            run.leave_cursor(Box::new(|settled| match settled {
                None => suspects.cleared(),
                Some(_) => suspects.remembered(),
            }));
            return Ok(());
        }
        let limit = take(left, suspects.step());
        if limit == 0 {
            // `maxRecords` was reached: the suspects wait for the next call.
            return Ok(());
        }
        let read = run.advance(limit).await;
        give_back(left, limit - read.as_ref().map_or(0, |read| *read.min(&limit)));
        let read = read?;
        let at_the_end = read < limit;
        run.leave_cursor(Box::new(move |settled| match settled {
            None if at_the_end => suspects.cleared(),
            None => suspects.passed(read),
            Some(settled) => suspects.settled(usize::try_from(settled).unwrap_or(usize::MAX)),
        }));
        Ok(())
    }

    /// For a slot that has nothing else. While the others have their turn, it waits beside them rather than end: a job that
    /// has just been alone is all that there is for it.
    async fn claim_or_wait(&self, seen: &Seen, left: &AtomicU64) -> Result<Option<Claimed>, StoreError> {
        loop {
            let claimed = self.claim(seen, left).await?;
            if claimed.is_some() || self.their_turn().is_empty() || self.must_end(seen, left) {
                return Ok(claimed);
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    /// Jobs that were alone, while it is the turn of others that there are.
    fn their_turn(&self) -> Vec<i64> {
        if self.reading.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let now = Instant::now();
        let turns = self.had_their_turn.lock().unwrap_or_else(PoisonError::into_inner);
        turns
            .iter()
            .filter(|(_, until)| **until > now)
            .map(|(id, _)| *id)
            .collect()
    }

    /// The records that may be read are taken first: who can't read any mustn't take a turn.
    async fn claim(&self, seen: &Seen, left: &AtomicU64) -> Result<Option<Claimed>, StoreError> {
        if self.must_end(seen, left) {
            return Ok(None);
        }
        let limit = take(left, self.invocation.bounds.records_per_slice);
        if limit == 0 {
            return Ok(None);
        }
        let claimed = self.claim_one(seen).await;
        if !matches!(claimed, Ok(Some(_))) {
            give_back(left, limit);
        }
        Ok(claimed?.map(|job| (job, limit)))
    }

    async fn claim_one(&self, seen: &Seen) -> Result<Option<ClaimedJob>, StoreError> {
        let spaces = self.served.servable();
        let wish = ClaimWish {
            job_type: JobType::Vectorize,
            spaces: &spaces,
            limit: 1,
            lease: self.invocation.clock.lease(),
            worker: crate::Vectorization::KIND.as_str(),
            project_id: self.project_id,
        };
        let job = loop {
            let mut besides = self.invocation.idle_jobs();
            besides.extend(self.their_turn());
            let job = self.invocation.leases.claim(&wish, &besides).await?.pop();
            match job {
                // Another slot was through with it while this one asked.
                Some(job) if self.invocation.is_idle(job.lease.job_id) => {
                    let back = End::Released { progressed: false };
                    match self.invocation.leases.end(&job, back).await {
                        Ok(_) | Err(StoreError::LeaseLost) => {}
                        Err(error) => return Err(error),
                    }
                }
                other => break other,
            }
        };
        if let Some(job) = &job {
            seen.claimed.fetch_add(1, Ordering::Relaxed);
            let mut jobs = seen.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            if jobs.insert(job.lease.job_id) && job.crashes > 0 {
                Tally::add(&self.invocation.tally.rescued, 1);
            }
        }
        Ok(job)
    }

    async fn report(&self, seen: &Seen, left: u64) -> Result<Report, StoreError> {
        let store = &self.invocation.store;
        let ids = self.served.ids();
        let remaining = !ids.is_empty() && store.has_due_work(&ids, self.project_id).await?;
        let because = if self.invocation.is_stopped() {
            StoppedBecause::Terminated
        } else if seen.provider_trouble.load(Ordering::Relaxed) {
            StoppedBecause::Provider
        } else if remaining && left == 0 {
            StoppedBecause::Limit
        } else if remaining
            && (seen.out_of_time.load(Ordering::Relaxed) || self.invocation.clock.time_for_request().is_none())
        {
            StoppedBecause::Deadline
        } else if remaining && self.rests().await? {
            StoppedBecause::Paused
        } else {
            StoppedBecause::Drained
        };
        Ok(self.report_of(seen, remaining, because))
    }

    fn report_of(&self, seen: &Seen, remaining: bool, because: StoppedBecause) -> Report {
        let processed = seen.jobs.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        Report::of(&self.invocation.tally, processed, remaining, because)
    }

    /// Whether an endpoint or a project is what keeps the rest waiting.
    async fn rests(&self) -> Result<bool, StoreError> {
        let store = &self.invocation.store;
        let servable = self.served.servable();
        let endpoints: Vec<&str> = servable.iter().map(|space| space.endpoint.as_str()).collect();
        Ok(!store.pauses(Some(&endpoints)).await?.is_empty() || store.projects().await?.iter().any(|p| p.paused))
    }
}

/// Counts whoever has it.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes up to `wanted` of what is left.
fn take(left: &AtomicU64, wanted: usize) -> usize {
    let wanted = wanted as u64;
    let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        Some(left - left.min(wanted))
    });
    let taken = before.unwrap_or_else(|left| left).min(wanted);
    usize::try_from(taken).unwrap_or(usize::MAX)
}

fn give_back(left: &AtomicU64, unused: usize) {
    let _ = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        Some(left.saturating_add(unused as u64))
    });
}
