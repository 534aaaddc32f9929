//! Owns the writing of one job: takes what has been answered, many at a time, into the fenced write. Refuses to go on
//! once the lease is lost.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use super::Tally;
use super::run::{Shared, Trouble};
use crate::job::Progress;
use crate::record::ContentHash;
use crate::store::cuts::Recut;
use crate::store::vectors::{Charge, Holding, NewChunk};
use crate::store::{Connection, StoreError};

/// Chunks that one write carries at most.
const CHUNKS_PER_WRITE: usize = 300;
/// A second write goes beside the first only with so many: small ones cost more than they save.
const CHUNKS_AHEAD: usize = 200;
/// Writes that follow one another on the same connections before others may have them.
const WRITES_IN_A_ROW: usize = 50;
/// While there is something to write, the lease is renewed and the progress told so often.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// A lease that nothing renewed for so long is renewed by itself.
const RENEW_AFTER: Duration = Duration::from_secs(20);

/// Something to write.
pub(super) enum Item {
    Chunk(Ready),
    Fault(Charge),
    /// One of its chunks is too long.
    Recut(Recut),
    /// The record was deleted; what is left of it goes.
    Gone(String, OwnedSemaphorePermit),
}

pub(super) struct Ready {
    pub chunk: NewChunk,
    /// Its text is announced in its name.
    pub owns_text: bool,
    pub _room: OwnedSemaphorePermit,
}

impl Item {
    fn record_id(&self) -> &str {
        match self {
            Self::Chunk(ready) => &ready.chunk.record_id,
            Self::Fault(charge) => &charge.record_id,
            Self::Recut(recut) => &recut.record_id,
            Self::Gone(id, _) => id,
        }
    }
}

/// Writes until all senders are gone.
pub(super) async fn write_all(run: Arc<Shared>, mut items: UnboundedReceiver<Item>) {
    let mut batch = Vec::new();
    loop {
        if batch.is_empty() {
            match timeout(RENEW_AFTER, items.recv_many(&mut batch, CHUNKS_PER_WRITE)).await {
                Ok(0) => return tell_end(&run).await,
                Ok(_) => {}
                Err(_) => {
                    renew(&run).await;
                    continue;
                }
            }
        }
        write_in_a_row(&run, &mut batch, &mut items).await;
    }
}

/// Two writes go beside each other, where there is a connection for the second. Each sees the database as it was when it
/// came, so no record is part of both. What is left in `batch` was received and isn't written.
async fn write_in_a_row(run: &Shared, batch: &mut Vec<Item>, items: &mut UnboundedReceiver<Item>) {
    let store = &run.invocation.store;
    let (one, other) = match store.connection().await {
        Ok(one) => {
            let other = store.spare_connection(&one).await;
            (Some(one), other)
        }
        Err(error) => {
            trouble(run, error);
            (None, None)
        }
    };
    let mut connections = [one.as_ref(), other.as_ref().or(one.as_ref())].into_iter().cycle();
    let mut under_way = FuturesUnordered::new();
    let mut left = WRITES_IN_A_ROW;
    let mut written: HashSet<String> = batch.iter().map(|item| item.record_id().to_owned()).collect();
    under_way.push(write(run, connections.next().flatten(), std::mem::take(batch)));
    while !under_way.is_empty() {
        let room = CHUNKS_PER_WRITE.saturating_sub(batch.len());
        tokio::select! {
            _ = under_way.next() => {}
            received = items.recv_many(batch, room), if left > 0 && room > 0 => {
                if received == 0 {
                    left = 0;
                }
            }
        }
        if under_way.len() == 1 && left > 0 && batch.len() >= CHUNKS_AHEAD {
            let (wait, next): (Vec<_>, Vec<_>) = batch.drain(..).partition(|item| written.contains(item.record_id()));
            *batch = wait;
            written = next.iter().map(|item| item.record_id().to_owned()).collect();
            under_way.push(write(run, connections.next().flatten(), next));
            left -= 1;
        }
    }
}

/// The last of the progress, which was told some while ago.
async fn tell_end(run: &Shared) {
    if run.is_lost() || run.settled.load(Ordering::Relaxed) == 0 {
        return;
    }
    let store = &run.invocation.store;
    let told = async { store.keep_job(&store.connection().await?, &holding(run)).await };
    if let Err(error) = told.await {
        trouble(run, error);
    }
}

async fn renew(run: &Shared) {
    if run.is_lost() {
        return;
    }
    let lease = run.invocation.clock.lease();
    if let Err(error) = run.invocation.store.renew_lease(run.job.lease, lease).await {
        trouble(run, error);
    }
}

/// What one write is about.
#[derive(Default)]
struct Parts {
    chunks: Vec<NewChunk>,
    /// Texts that are announced in these chunks' names.
    owned: Vec<ContentHash>,
    charges: Vec<Charge>,
    recuts: Vec<Recut>,
    gone: Vec<String>,
    room: Vec<OwnedSemaphorePermit>,
}

async fn write(run: &Shared, connection: Option<&Connection>, items: Vec<Item>) {
    let mut parts = sort(run, items);
    if !run.is_lost()
        && let Some(connection) = connection
        && let Err(error) = write_parts(run, connection, &mut parts).await
    {
        trouble(run, error);
    }
    for hash in parts.owned {
        run.invocation.texts.settled(run.job.space_id, hash);
    }
}

fn sort(run: &Shared, items: Vec<Item>) -> Parts {
    let mut parts = Parts::default();
    let mut ready = Vec::new();
    for item in items {
        match item {
            Item::Chunk(chunk) => ready.push(chunk),
            Item::Fault(charge) => parts.charges.push(charge),
            Item::Recut(recut) => parts.recuts.push(recut),
            Item::Gone(id, permit) => {
                parts.gone.push(id);
                parts.room.push(permit);
            }
        }
    }
    let mut former = run.former_cuts.lock().unwrap_or_else(PoisonError::into_inner);
    let recuts = parts.recuts.iter();
    former.extend(recuts.map(|recut| (recut.record_id.clone(), recut.record_hash, recut.of)));
    for Ready {
        chunk,
        owns_text,
        _room,
    } in ready
    {
        if owns_text {
            parts.owned.push(chunk.hash);
        }
        parts.room.push(_room);
        // Stored now, a chunk of a former cut would stand among those of the next.
        if former.is_empty() || !former.contains(&(chunk.record_id.clone(), chunk.record_hash, chunk.of)) {
            parts.chunks.push(chunk);
        }
    }
    parts
}

async fn write_parts(run: &Shared, connection: &Connection, parts: &mut Parts) -> Result<(), StoreError> {
    let Parts {
        chunks,
        charges,
        recuts,
        gone,
        ..
    } = parts;
    let (store, tally, clock) = (&run.invocation.store, &run.invocation.tally, &run.invocation.clock);
    if !chunks.is_empty() {
        let began = Instant::now();
        let written = store.write_chunks(connection, &holding(run), &*chunks).await?;
        clock.note_write(began.elapsed());
        run.settled.fetch_add(written.complete, Ordering::Relaxed);
        run.stored.fetch_add(written.stored, Ordering::Relaxed);
        Tally::add(&tally.records, written.complete);
        Tally::add(&tally.chunks, written.stored);
        let copied = chunks.iter().filter(|chunk| chunk.vector.is_none()).count() as u64;
        Tally::add(&tally.reused, copied);
        Tally::add(&tally.passed_over, written.passed_over);
        if run.is_to_be_kept(KEEP_EVERY) {
            store.keep_job(connection, &holding(run)).await?;
        }
    }
    if !charges.is_empty() {
        {
            let mut seen = run.charged.lock().unwrap_or_else(PoisonError::into_inner);
            charges.retain(|charge| seen.insert(charge.record_id.clone()));
        }
        let charged = store.charge_records(connection, &run.job, charges).await?;
        run.settled
            .fetch_add(charged.quarantined + charged.to_retry, Ordering::Relaxed);
        run.failed
            .fetch_add(charged.quarantined + charged.to_retry, Ordering::Relaxed);
        Tally::add(&tally.failed, charged.quarantined + charged.to_retry);
        Tally::add(&tally.quarantined, charged.quarantined);
    }
    if !recuts.is_empty() {
        let told = store.cut_smaller(connection, &run.job, recuts).await?;
        run.recut.fetch_add(told, Ordering::Relaxed);
    }
    if !gone.is_empty() {
        let ids: Vec<&str> = gone.iter().map(String::as_str).collect();
        let purged = store.purge_deleted(connection, &holding(run), &ids).await?;
        run.settled.fetch_add(purged, Ordering::Relaxed);
        Tally::add(&tally.purged, purged);
    }
    Ok(())
}

fn holding(run: &Shared) -> Holding<'_> {
    let current = run.settled_before + run.settled.load(Ordering::Relaxed);
    Holding {
        job: &run.job,
        lease: run.invocation.clock.lease(),
        progress: Progress {
            current,
            total: run.total.max(current),
            message: Some("embedding".into()),
        },
        column: run.column,
    }
}

fn trouble(run: &Shared, error: StoreError) {
    match error {
        StoreError::LeaseLost => {
            tracing::warn!(
                job.id = run.job.lease.job_id,
                "the lease is lost; what isn't written is dropped"
            );
            Tally::add(&run.invocation.tally.lost_leases, 1);
            run.end(Trouble::LeaseLost);
        }
        error if error.is_cancelled() => {
            tracing::warn!(job.id = run.job.lease.job_id, "a write didn't end in time");
            run.end(Trouble::Deadline);
        }
        error if error.is_outage() => {
            tracing::error!(job.id = run.job.lease.job_id, error = %error, "the database went away");
            run.end(Trouble::Database(error.to_string()));
        }
        error => {
            tracing::error!(job.id = run.job.lease.job_id, error = %error, "a write failed");
            run.end(Trouble::Job(error.to_string()));
        }
    }
}
