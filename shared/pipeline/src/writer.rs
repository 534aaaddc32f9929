//! Owns the writing of one job: takes what has been answered, many at a time, into the fenced write. Refuses to go on
//! once the lease is lost.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, sleep_until};

use super::Tally;
use super::item::{Item, Ready};
use super::state::{Shared, Trouble};
use cronvec_nouns::job::Progress;
use cronvec_nouns::record::ContentHash;
use cronvec_store::charges::{Charge, Outcome};
use cronvec_store::cuts::Recut;
use cronvec_store::suspicions::Suspected;
use cronvec_store::vectors::{Holding, NewChunk};
use cronvec_store::{Connection, StoreError};

/// Chunks that one write carries at most.
pub(super) const CHUNKS_PER_WRITE: usize = 400;
/// A second write goes beside the first only with so many: small ones cost more than they save.
const CHUNKS_AHEAD: usize = 300;
/// The first waits so long for so many while answers are to come: what a write costs beside its chunks (planning, locks, the
/// job's row) is paid once for several answers. See docs/decisions/0026.
const GATHER: Duration = Duration::from_millis(20);
const CHUNKS_GATHERED: usize = 200;
/// While there is something to write, the lease is renewed and the progress told so often.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// A lease that nothing renewed for so long is renewed by itself.
const RENEW_AFTER: Duration = Duration::from_secs(20);

/// Writes until all senders are gone. Two writes go beside each other, where there is a connection for the second. Each
/// sees the database as it was when it came, so no record is part of both.
pub(super) async fn write_all(run: Arc<Shared>, mut items: UnboundedReceiver<Item>) {
    let run = &*run;
    let mut received = Vec::new();
    let mut batch: Vec<Item> = Vec::new();
    // These belong to records that are part of a write under way.
    let mut waiting: Vec<Item> = Vec::new();
    let mut records: HashSet<String> = HashSet::new();
    let mut under_way = FuturesUnordered::new();
    let mut is_open = true;
    // No more than the answers of all requests that may be in flight: others are asked for only then.
    let bounds = run.invocation.bounds;
    let enough = CHUNKS_GATHERED.min(bounds.batch_size * bounds.concurrent_requests);
    // When the oldest of the batch has waited long enough for others.
    let mut gathered = Instant::now();
    while is_open || !batch.is_empty() || !under_way.is_empty() {
        let is_gathering = is_open && batch.len() < enough && Instant::now() < gathered;
        let is_due = match under_way.len() {
            0 => !batch.is_empty() && !is_gathering,
            1 => batch.len() >= CHUNKS_AHEAD,
            _ => false,
        };
        let room = CHUNKS_PER_WRITE.saturating_sub(batch.len());
        tokio::select! {
            biased;
            Some::<HashSet<String>>(of) = under_way.next() => {
                records.retain(|record| !of.contains(record));
                batch.extend(waiting.extract_if(.., |item| !records.contains(item.record_id())));
            }
            count = items.recv_many(&mut received, room), if is_open && room > 0 => {
                is_open = count > 0;
                if batch.is_empty() {
                    gathered = Instant::now() + GATHER;
                }
                let (wait, go): (Vec<_>, Vec<_>) =
                    received.drain(..).partition(|item: &Item| records.contains(item.record_id()));
                waiting.extend(wait);
                batch.extend(go);
            }
            connection = run.invocation.store.connection(), if is_due => match connection {
                // The first is to give its connection back.
                Err(_) if !under_way.is_empty() => {}
                connection => {
                    let next = std::mem::take(&mut batch);
                    let of: HashSet<String> = next.iter().map(|item| item.record_id().to_owned()).collect();
                    records.extend(of.iter().cloned());
                    under_way.push(async move {
                        write(run, connection, next).await;
                        of
                    });
                }
            },
            () = sleep_until(gathered.into()), if is_gathering && !batch.is_empty() => {}
            () = sleep(RENEW_AFTER), if under_way.is_empty() => keep(run).await,
        }
    }
    // The last of the progress was told some while ago.
    if run.settled.load(Ordering::Relaxed) > 0 {
        keep(run).await;
    }
}

/// Renews the lease and tells the progress, when no write does.
async fn keep(run: &Shared) {
    if run.is_lost() {
        return;
    }
    let store = &run.invocation.store;
    let kept = async { store.keep_job(&store.connection().await?, &holding(run)).await };
    if let Err(error) = kept.await {
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
    /// By record, what was learnt last.
    suspects: HashMap<String, Suspected>,
    gone: Vec<String>,
    room: Vec<OwnedSemaphorePermit>,
}

/// Without a connection nothing is written.
async fn write(run: &Shared, connection: Result<Connection, StoreError>, items: Vec<Item>) {
    let mut parts = sort(run, items);
    if !run.is_lost() {
        let written = async { write_parts(run, &connection?, &mut parts).await };
        if let Err(error) = written.await {
            trouble(run, error);
        }
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
            Item::Suspect(suspected) => {
                parts.suspects.insert(suspected.record_id.clone(), suspected);
            }
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
        _unwritten,
    } in ready
    {
        if owns_text {
            parts.owned.push(chunk.hash);
        }
        parts.room.push(_room);
        parts.room.extend(_unwritten);
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
        suspects,
        gone,
        ..
    } = parts;
    let (store, tally, clock) = (&run.invocation.store, &run.invocation.tally, &run.invocation.clock);
    let mut outcomes = Vec::new();
    if !chunks.is_empty() {
        let began = Instant::now();
        let written = store.write_chunks(connection, &holding(run), &*chunks).await?;
        clock.note_write(began.elapsed());
        run.settled.fetch_add(written.complete, Ordering::Relaxed);
        run.stored.fetch_add(written.stored, Ordering::Relaxed);
        tally.note_embedded(&run.job.project, written.complete, &written.since);
        Tally::add(&tally.chunks, written.stored);
        let copied = chunks.iter().filter(|chunk| chunk.vector.is_none()).count() as u64;
        Tally::add(&tally.reused, copied);
        Tally::add(&tally.passed_over, written.passed_over);
        // They are complete as well: found, but not in the table's column.
        Tally::add(&tally.quarantined, written.refused);
        if written.met {
            run.trusts_new.store(false, Ordering::Relaxed);
        }
        if run.is_to_be_kept(KEEP_EVERY) {
            store.keep_job(connection, &holding(run)).await?;
        }
    }
    if !suspects.is_empty() {
        let suspects: Vec<Suspected> = suspects.drain().map(|(_, suspected)| suspected).collect();
        store.suspect_records(connection, &run.job, &suspects).await?;
    }
    if !charges.is_empty() {
        {
            let mut seen = run.charged.lock().unwrap_or_else(PoisonError::into_inner);
            charges.retain(|charge| seen.insert(charge.record_id.clone()));
        }
        outcomes = store.charge_records(connection, &run.job, charges).await?;
        run.settled.fetch_add(outcomes.len() as u64, Ordering::Relaxed);
        run.failed.fetch_add(outcomes.len() as u64, Ordering::Relaxed);
        tally.note_outcomes(&run.job.project, &outcomes);
    }
    if !recuts.is_empty() {
        let told = store.cut_smaller(connection, &run.job, recuts).await?;
        run.recut.fetch_add(told, Ordering::Relaxed);
    }
    if !gone.is_empty() {
        let ids: Vec<&str> = gone.iter().map(String::as_str).collect();
        let purged = store.purge_deleted(connection, &holding(run), &ids).await?;
        run.settled.fetch_add(purged, Ordering::Relaxed);
        // Their vectors may have been kept.
        run.has_left.store(true, Ordering::Relaxed);
        Tally::add(&tally.purged, purged);
    }
    // The last: a log that somebody has locked is given up, and the connection with it.
    if !outcomes.is_empty() {
        tell_failures(run, &outcomes);
        store.audit_failures(connection, &run.job, &outcomes).await;
    }
    Ok(())
}

/// A line for each attempt at a record that failed.
fn tell_failures(run: &Shared, outcomes: &[Outcome]) {
    for outcome in outcomes {
        tracing::warn!(
            job.id = run.job.lease.job_id,
            job.project = run.job.project,
            record.id = outcome.record_id,
            record.attempt = outcome.attempt,
            record.attempts = outcome.of,
            record.reason = outcome.reason,
            record.quarantined = outcome.is_final,
            "an attempt at a record failed"
        );
    }
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
        trusts_new: run.trusts_new.load(Ordering::Relaxed),
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
        error if error.is_temporary() => {
            tracing::error!(job.id = run.job.lease.job_id, error = %error, "the database went away, or let others go first");
            run.end(Trouble::Database(error.to_string()));
        }
        error => {
            tracing::error!(job.id = run.job.lease.job_id, error = %error, "a write failed");
            run.end(Trouble::Job(error.to_string()));
        }
    }
}
