//! Owns one job from its claim to its end: reads slices ahead, keeps batches in flight, ends the job when all of it is
//! written. Refuses to choose which job.

mod end;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, JoinSet};
use tracing::Instrument;

pub use self::end::{Remember, Remembered, RunEnd};
use super::batch::Packer;
use super::item::Item;
use super::prepare::prepare;
use super::state::{Shared, Trouble};
use super::texts::{Announced, Asking, Waiting};
use super::writer::write_all;
use super::{Invocation, Named, Served, Tally, send};
use cronvec_nouns::job::ClaimedJob;
use cronvec_store::StoreError;
use cronvec_store::charges::Charge;
use cronvec_store::chunks::Known;
use cronvec_store::pending::{PendingSlice, Place};
use cronvec_store::suspicions::Suspicion;
use cronvec_store::vectors::NewChunk;

/// Text that a slice reads at most, unless one record alone has more.
const BYTES_PER_SLICE: i64 = 4 << 20;
/// Counting what is due stops here; it is for a progress bar.
const COUNT_CAP: i64 = 10_000;

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

/// A run that is dropped takes its writer with it.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
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
        let total = match &job.progress {
            Some(progress) => progress.total,
            None => invocation.store.count_due(&job, COUNT_CAP).await?,
        };
        // Known from now on: the writer gives up waiting for a connection again and again, and would give this question up, too.
        invocation.store.learn_vector_types().await?;
        let space_use = invocation.store.space_use(job.project_id, job.space_id).await?;
        let packer = Packer::new(served.provider.limits(), invocation.bounds.batch_size);
        let shared = Arc::new(Shared::new(invocation, served, job, total, space_use, alone_until));
        let (items, receiver) = unbounded_channel();
        let writer = AbortOnDrop(tokio::spawn(
            write_all(Arc::clone(&shared), receiver).instrument(shared.span.clone()),
        ));
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
            self.shared.note_ended(ended);
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
                Some(ended) = self.batches.join_next() => self.shared.note_ended(ended),
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
        let has_left = self.shared.has_left.load(Ordering::Relaxed);
        let store = &self.shared.invocation.store;
        let known = store.known_texts(self.shared.job.space_id, &hashes, has_left).await?;
        for asking in announced {
            match known.get(&asking.hash()) {
                Some(Known::Stored) => {
                    asking.found();
                    continue;
                }
                Some(Known::Left(vector)) => {
                    asking.answered(vector.clone());
                    continue;
                }
                None => {}
            }
            if let Some(suspicion) = suspicions.get(asking.record_id()) {
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
}
