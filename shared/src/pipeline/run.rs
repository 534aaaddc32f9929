//! Owns one job from its claim to its end: reads slices ahead, keeps batches in flight, ends the job when all of it is
//! written. Refuses to choose which job.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tracing::{Instrument, Span};

use super::batch::Packer;
use super::prepare::prepare;
use super::texts::{Announced, Asking, Waiting};
use super::writer::{Item, write_all};
use super::{Invocation, Named, Served, Tally, send};
use crate::job::{ClaimedJob, End, JobStatus};
use crate::record::ContentHash;
use crate::store::StoreError;
use crate::store::charges::Charge;
use crate::store::pending::{PendingSlice, Place};
use crate::store::suspicions::Suspicion;
use crate::store::vectors::NewChunk;

/// Text that a slice reads at most, unless one record alone has more.
const BYTES_PER_SLICE: i64 = 4 << 20;
/// Counting what is due stops here; it is for a progress bar.
const COUNT_CAP: i64 = 10_000;

/// Why a run ended before its work did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Somebody else holds the job, or nobody: nothing more is written.
    LeaseLost,
    /// The endpoint rests.
    Provider,
    /// Our time is over.
    Deadline,
    /// Its turn alone is over: others go on, and so will it.
    Turn,
    /// The database went away.
    Database(String),
    /// The job's own fault.
    Job(String),
}

/// What the reader, the batches and the writer of a run share.
pub(super) struct Shared {
    /// All that is done for the job.
    pub span: Span,
    pub invocation: Arc<Invocation>,
    pub served: Served,
    pub job: ClaimedJob,
    pub total: u64,
    /// The attached table whose own column gets the vectors, too.
    pub column: Option<i32>,
    /// No record that looked new has been met in the space.
    pub trusts_new: AtomicBool,
    /// Records that earlier invocations settled.
    pub settled_before: u64,
    pub settled: AtomicU64,
    pub stored: AtomicU64,
    pub failed: AtomicU64,
    /// Records that were charged in this run: once is enough, however many of their chunks failed.
    pub charged: std::sync::Mutex<HashSet<String>>,
    /// Records that are cut smaller next time, each with its hash and how many chunks it was cut into.
    pub former_cuts: std::sync::Mutex<HashSet<(String, ContentHash, i32)>>,
    /// So many were told so.
    pub recut: AtomicU64,
    /// One permit a request that asks for a place among those in flight. Were there more, a job with many batches would
    /// keep others waiting behind all of them.
    pub turns: Semaphore,
    /// Where a table's column is filled: one permit an input that is asked for, until it is written.
    pub unwritten: Option<Arc<Semaphore>>,
    /// Rejections in a row.
    pub rejections: AtomicU32,
    /// When the last canary that succeeded began.
    pub canary: Mutex<Option<Instant>>,
    /// Requests that were refused and told something about their inputs.
    pub learnt: AtomicU64,
    /// It lost its worker. Nothing is begun after this.
    pub alone_until: Option<Instant>,
    pub has_asked: AtomicBool,
    /// When the lease was renewed last.
    kept: std::sync::Mutex<Instant>,
    lost: AtomicBool,
    trouble: OnceLock<Trouble>,
}

impl Shared {
    /// Whether it is so long since the lease was renewed; then it counts from now.
    pub fn is_to_be_kept(&self, every: Duration) -> bool {
        let mut last = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.elapsed() >= every;
        if due {
            *last = Instant::now();
        }
        due
    }

    pub fn has_ended(&self) -> bool {
        self.trouble.get().is_some()
    }

    /// Its turn alone is over. One request it may send in any case, however long its texts took to be cut.
    pub fn is_over(&self) -> bool {
        self.has_asked.load(Ordering::Relaxed) && self.alone_until.is_some_and(|until| Instant::now() >= until)
    }

    /// No time is left to begin anything: of its turn, or of all.
    pub fn end_in_time(&self) {
        self.end(match self.is_over() {
            true => Trouble::Turn,
            false => Trouble::Deadline,
        });
    }

    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// The first trouble stands; a lost lease stops the writing, too.
    pub fn end(&self, trouble: Trouble) {
        if matches!(trouble, Trouble::LeaseLost | Trouble::Database(_) | Trouble::Job(_)) {
            self.lost.store(true, Ordering::Relaxed);
        }
        let _ = self.trouble.set(trouble);
    }
}

/// A job that is being worked on.
pub struct Run {
    shared: Arc<Shared>,
    packer: Packer<Asking>,
    place: Option<Place>,
    /// A slice that was looked at and not yet sent.
    read_ahead: Option<PendingSlice>,
    at_end: bool,
    items: UnboundedSender<Item>,
    batches: JoinSet<()>,
    writer: AbortOnDrop,
    /// Inputs that were refused before, by the request that they were refused in.
    suspects: HashMap<i64, (Suspicion, Vec<Asking>)>,
    remember: Option<Remember>,
}

/// What the job is to remember: given how many records this run has settled, or `None` if it came through.
pub type Remember = Box<dyn FnOnce(Option<u64>) -> Remembered + Send>;

/// What a job remembers of the search for a record that kills its workers.
#[derive(Debug)]
pub struct Remembered {
    pub cursor: serde_json::Value,
    /// Nobody is suspected any more.
    pub is_over: bool,
}

/// A run that is dropped takes its writer with it.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEnd {
    pub trouble: Option<Trouble>,
    /// What the job is now, where this run still had a say in it.
    pub status: Option<JobStatus>,
    pub moved: bool,
}

fn note_ended(run: &Shared, batch: Result<(), JoinError>) {
    if let Err(panic) = batch {
        run.end(Trouble::Job(format!("a batch broke off: {panic}")));
    }
}

impl Run {
    pub async fn start(invocation: Arc<Invocation>, served: Served, job: ClaimedJob) -> Result<Self, StoreError> {
        Self::begin(invocation, served, job, None).await
    }

    /// One request in flight at a time, none begun after `until`: for a job that lost its worker.
    pub async fn start_alone(
        invocation: Arc<Invocation>,
        served: Served,
        job: ClaimedJob,
        until: Instant,
    ) -> Result<Self, StoreError> {
        Self::begin(invocation, served, job, Some(until)).await
    }

    async fn begin(
        invocation: Arc<Invocation>,
        served: Served,
        job: ClaimedJob,
        alone_until: Option<Instant>,
    ) -> Result<Self, StoreError> {
        let before = job.progress.clone().unwrap_or_default();
        let total = match &job.progress {
            Some(progress) => progress.total,
            None => invocation.store.count_due(&job, COUNT_CAP).await?,
        };
        // Known from now on: the writer gives up waiting for a connection again and again, and would give this question up, too.
        invocation.store.vector_types().await?;
        let column = invocation.store.column_to_fill(job.project_id, job.space_id).await?;
        // Filling a column takes the database longer than the rest together. Before a fast provider the answers of a thousand
        // records would wait, and all of them be paid for again when the worker dies: no more wait than can be in flight.
        let unwritten = 2 * invocation.bounds.batch_size * invocation.bounds.concurrent_requests;
        let packer = Packer::new(served.provider.limits(), invocation.bounds.batch_size);
        let span =
            tracing::info_span!("job", job.id = job.lease.job_id, job.type = "VECTORIZE", job.project = job.project);
        let shared = Arc::new(Shared {
            span: span.clone(),
            turns: Semaphore::new(if alone_until.is_some() {
                1
            } else {
                invocation.bounds.concurrent_requests
            }),
            invocation,
            served,
            job,
            total,
            column,
            trusts_new: AtomicBool::new(true),
            settled_before: before.current,
            settled: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            charged: std::sync::Mutex::default(),
            former_cuts: std::sync::Mutex::default(),
            recut: AtomicU64::new(0),
            unwritten: column.map(|_| Arc::new(Semaphore::new(unwritten))),
            rejections: AtomicU32::new(0),
            canary: Mutex::new(None),
            learnt: AtomicU64::new(0),
            alone_until,
            has_asked: AtomicBool::new(false),
            kept: std::sync::Mutex::new(Instant::now()),
            lost: AtomicBool::new(false),
            trouble: OnceLock::new(),
        });
        let (items, receiver) = unbounded_channel();
        let writer = AbortOnDrop(tokio::spawn(write_all(Arc::clone(&shared), receiver).instrument(span)));
        Ok(Self {
            shared,
            packer,
            place: None,
            read_ahead: None,
            at_end: false,
            items,
            batches: JoinSet::new(),
            writer,
            suspects: HashMap::new(),
            remember: None,
        })
    }

    /// Reads one slice of at most `limit` records and sends it on its way. Returns how many it read; 0 at the end.
    pub async fn advance(&mut self, limit: usize) -> Result<usize, StoreError> {
        if self.at_end || self.shared.has_ended() {
            return Ok(0);
        }
        let invocation = Arc::clone(&self.shared.invocation);
        if invocation.is_stopped() || invocation.clock.time_for_request().is_none() || self.shared.is_over() {
            self.shared.end_in_time();
            return Ok(0);
        }
        let slice = match self.read_ahead.take() {
            Some(slice) => slice,
            None => {
                let store = &invocation.store;
                store
                    .read_slice(&self.shared.job, self.place.as_ref(), limit, BYTES_PER_SLICE)
                    .await?
            }
        };
        let read = slice.records.len();
        Tally::add(&invocation.tally.slices, u64::from(read > 0));
        self.at_end = slice.next.is_none();
        self.place = slice.next;
        let prepared = prepare(&self.shared, slice.records).await?;
        let step = invocation.bounds.records_per_slice.max(1);
        for gone in prepared.gone.chunks(step) {
            let mut room = self.room(gone.len()).await;
            for id in gone {
                let Some(room) = room.split(1) else { continue };
                // The writer is there as long as the run is.
                let _ = self.items.send(Item::Gone(id.clone(), room));
            }
        }
        for fault in prepared.faults {
            let _ = self.items.send(Item::Fault(fault));
        }
        let mut chunks = prepared.chunks.into_iter().peekable();
        while chunks.peek().is_some() && !self.shared.has_ended() {
            let some: Vec<NewChunk> = chunks.by_ref().take(step).collect();
            self.submit(some, &prepared.suspicions).await?;
        }
        self.flush_suspects();
        while let Some(ended) = self.batches.try_join_next() {
            note_ended(&self.shared, ended);
        }
        Ok(read)
    }

    /// The first record in line, which the next slice begins with. None if it was deleted, or there is none.
    pub async fn first(&mut self) -> Result<Option<Named>, StoreError> {
        let slice = self
            .shared
            .invocation
            .store
            .read_slice(&self.shared.job, None, 1, BYTES_PER_SLICE)
            .await?;
        let first = slice.records.first().and_then(|record| {
            let text = record.text.as_ref()?;
            Some(Named::new(&record.id, text.hash))
        });
        self.read_ahead = Some(slice);
        Ok(first)
    }

    /// Sets a record aside, unasked, after something harmless was asked for and came through.
    pub async fn condemn(&mut self, named: &Named, reason: &'static str, message: &str) -> Result<(), StoreError> {
        if !send::is_well_without(&self.shared).await {
            return Ok(());
        }
        let charge = Charge {
            record_id: named.id.clone(),
            record_hash: named
                .hash()
                .ok_or_else(|| StoreError::Unreadable("a suspect's hash".into()))?,
            reason,
            message: message.into(),
            permanent: true,
        };
        // The writer is there as long as the run is.
        let _ = self.items.send(Item::Fault(charge));
        Ok(())
    }

    /// The lease is found lost: nothing is done any more.
    pub fn lose(&self) {
        Tally::add(&self.shared.invocation.tally.lost_leases, 1);
        self.shared.end(Trouble::LeaseLost);
    }

    /// What the job is to remember when this run ends.
    pub fn leave_cursor(&mut self, remember: Remember) {
        self.remember = Some(remember);
    }

    /// Announces texts, looks up those that nobody asks for yet, and packs the unknown ones into requests. Room is taken
    /// for all of them at once, so that two jobs that compete for it still send full batches.
    async fn submit(
        &mut self,
        chunks: Vec<NewChunk>,
        suspicions: &HashMap<String, Suspicion>,
    ) -> Result<(), StoreError> {
        let invocation = Arc::clone(&self.shared.invocation);
        let mut room = self.room(chunks.len()).await;
        let mut announced = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let Some(room) = room.split(1) else { continue };
            let waiting = Waiting {
                chunk,
                writer: self.items.clone(),
                room,
                unwritten: None,
            };
            if let Announced::Yours(asking) = invocation.texts.announce(self.shared.job.space_id, waiting) {
                announced.push(asking);
            }
        }
        self.look_up(announced, suspicions).await
    }

    /// Waits for room. What waits in the open batch may be what everyone waits for: once nothing else of this run is on its
    /// way, it goes, full or not.
    async fn room(&mut self, inputs: usize) -> OwnedSemaphorePermit {
        let semaphore = Arc::clone(&self.shared.invocation.room);
        let permits = u32::try_from(inputs).unwrap_or(u32::MAX);
        if let Ok(room) = Arc::clone(&semaphore).try_acquire_many_owned(permits) {
            return room;
        }
        let mut acquired = pin!(semaphore.acquire_many_owned(permits));
        loop {
            if self.batches.is_empty() {
                self.flush();
            }
            tokio::select! {
                biased;
                room = &mut acquired => match room {
                    Ok(room) => return room,
                    // It is never closed.
                    Err(_) => unreachable!("the semaphore of an invocation is never closed"),
                },
                Some(ended) = self.batches.join_next() => note_ended(&self.shared, ended),
            }
        }
    }

    async fn look_up(
        &mut self,
        announced: Vec<Asking>,
        suspicions: &HashMap<String, Suspicion>,
    ) -> Result<(), StoreError> {
        if announced.is_empty() {
            return Ok(());
        }
        let hashes: Vec<_> = announced.iter().map(Asking::hash).collect();
        let known = self
            .shared
            .invocation
            .store
            .known_texts(self.shared.job.space_id, &hashes)
            .await?;
        for asking in announced {
            if known.contains(&asking.hash()) {
                asking.found();
            } else if let Some(suspicion) = suspicions.get(asking.record_id()) {
                let (_, inputs) = self
                    .suspects
                    .entry(suspicion.group)
                    .or_insert_with(|| (suspicion.clone(), Vec::new()));
                inputs.push(asking);
            } else {
                let size = self.shared.served.provider.size_in_request(asking.content());
                if let Some(batch) = self.packer.push(asking, size) {
                    self.spawn(batch);
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) {
        if let Some(batch) = self.packer.flush() {
            self.spawn(batch);
        }
        self.flush_suspects();
    }

    /// They go by themselves, those of one request together: others that went with them would be refused, too.
    fn flush_suspects(&mut self) {
        let most = self.shared.invocation.bounds.batch_size.max(1);
        for (suspicion, mut inputs) in std::mem::take(&mut self.suspects).into_values() {
            while !inputs.is_empty() {
                let rest = inputs.split_off(most.min(inputs.len()));
                let some = std::mem::replace(&mut inputs, rest);
                let sent = send::send_suspects(Arc::clone(&self.shared), some, suspicion.clone());
                self.batches.spawn(sent.instrument(self.shared.span.clone()));
            }
        }
    }

    fn spawn(&mut self, batch: Vec<Asking>) {
        let sent = send::send(Arc::clone(&self.shared), batch);
        self.batches.spawn(sent.instrument(self.shared.span.clone()));
    }

    /// Waits for all that is on its way, then parts from the job.
    pub async fn finish(mut self, error: Option<StoreError>) -> Result<RunEnd, StoreError> {
        if let Some(error) = error {
            // A statement that was ended by a timeout, or that waited too long for a lock, is no fault of the job either.
            self.shared.end(if error.is_temporary() {
                Trouble::Database(error.to_string())
            } else {
                Trouble::Job(error.to_string())
            });
        }
        self.flush();
        let Self {
            shared,
            items,
            mut batches,
            mut writer,
            at_end,
            remember,
            ..
        } = self;
        while let Some(ended) = batches.join_next().await {
            note_ended(&shared, ended);
        }
        drop(items);
        if let Err(panic) = (&mut writer.0).await {
            shared.end(Trouble::Job(format!("the writer broke off: {panic}")));
        }
        let (store, leases) = (&shared.invocation.store, &shared.invocation.leases);
        let settled = shared.settled.load(Ordering::Relaxed);
        let steps = [&shared.settled, &shared.stored, &shared.recut, &shared.learnt];
        let moved = steps.iter().any(|steps| steps.load(Ordering::Relaxed) > 0);
        if !moved {
            // Texts were changed under us, or users hold the rows: asking again at once would pay for the same answers
            // over and over. It isn't the job that waits, which may get new records any moment; this invocation leaves
            // it be. Said before the job's end, after which anyone may claim it.
            shared.invocation.note_idle(shared.job.lease.job_id);
        }
        let trouble = shared.trouble.get().cloned();
        // What is left of the search for a record that kills its workers. A slice that its time was too short for has
        // cleared those that it settled.
        let remembered = match &trouble {
            Some(Trouble::LeaseLost | Trouble::Database(_) | Trouble::Job(_)) => None,
            Some(Trouble::Provider | Trouble::Deadline | Trouble::Turn) => remember.map(|cursor| cursor(Some(settled))),
            None => remember.map(|cursor| cursor(None)),
        };
        let is_suspect = shared.alone_until.is_some();
        let is_cleared = remembered.as_ref().is_some_and(|remembered| remembered.is_over);
        let end = match &trouble {
            Some(Trouble::LeaseLost) => None,
            Some(Trouble::Job(error)) => Some(End::Failed { error: error.clone() }),
            // A connection that broke is replaced by the next question: the job goes back at once, if the database is
            // there, and nobody takes its worker for dead.
            Some(Trouble::Database(_)) => Some(End::Released {
                progressed: moved && !is_suspect,
            }),
            // A job that lost its worker is suspect until all that was suspected is through.
            Some(Trouble::Provider | Trouble::Deadline | Trouble::Turn) => Some(End::Released {
                progressed: if is_suspect { is_cleared } else { moved },
            }),
            None if remembered.is_some() && !at_end => Some(End::Released { progressed: true }),
            None if !at_end => Some(End::Released { progressed: moved }),
            None if !moved && store.count_due(&shared.job, 1).await? > 0 => Some(End::Released { progressed: false }),
            None => Some(End::Completed {
                result: shared.result(),
            }),
        };
        if let Some(Remembered { cursor, .. }) = &remembered {
            match store.save_cursor(shared.job.lease, cursor).await {
                Ok(()) | Err(StoreError::LeaseLost) => {}
                Err(error) => return Err(error),
            }
        }
        let status = match end {
            None => None,
            Some(end) => match leases.end(&shared.job, end).await {
                Ok(ended) => Some(ended.status),
                Err(StoreError::LeaseLost) => {
                    Tally::add(&shared.invocation.tally.lost_leases, 1);
                    None
                }
                Err(error) => return Err(error),
            },
        };
        Ok(RunEnd { trouble, status, moved })
    }
}

impl RunEnd {
    /// Nothing was done.
    pub fn nothing() -> Self {
        Self {
            trouble: None,
            status: None,
            moved: false,
        }
    }
}

impl Shared {
    fn result(&self) -> serde_json::Value {
        json!({
            "records": self.settled_before + self.settled.load(Ordering::Relaxed),
            "failed": self.failed.load(Ordering::Relaxed),
        })
    }
}
