//! Owns which leases a worker holds, and the one way out for all of them. Refuses to end a job: whoever works on it does.
//!
//! A crash is only what nobody reported. So a lease is known here from before its claim is sent until its job has ended, and
//! whatever is left at the end of a pass is released, whichever way the pass ended.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use cronvec_nouns::job::{ClaimedJob, End, Ended};
use cronvec_store::claim::ClaimWish;
use cronvec_store::{Store, StoreError};

/// Between two tries to reach a database that is away.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// A lease that couldn't be reported is remembered for the worker's next pass, up to so many.
const REMEMBERED: usize = 1000;

/// Leases whose end couldn't be reported while there was time. They belong to the worker, which outlives its passes.
#[derive(Clone, Debug, Default)]
pub struct Unreported(Arc<Mutex<Known>>);

/// Tokens, each with the job that it is known to hold, if it is known.
type Known = HashMap<Uuid, HashSet<i64>>;

impl Unreported {
    /// For a process that ends after its pass: no later pass reports what this one couldn't. Tries until `until`.
    pub async fn report_last(&self, store: &Store, until: Instant) {
        let known = self.take();
        if known.is_empty() {
            return;
        }
        // The database was away a moment ago, or a claim that was cut off is still on its way.
        tokio::time::sleep(TRY_AGAIN_AFTER).await;
        if !try_to_report(store, &known, until).await {
            tracing::error!(
                leases = known.len(),
                "leases could not be released: they run out, and will be taken for a dead worker's"
            );
        }
    }

    fn take(&self) -> Known {
        std::mem::take(&mut *lock(&self.0))
    }

    fn remember<'a>(&self, known: impl Iterator<Item = (&'a Uuid, &'a HashSet<i64>)>) {
        let mut unreported = lock(&self.0);
        let room = REMEMBERED.saturating_sub(unreported.len());
        unreported.extend(known.take(room).map(|(token, jobs)| (*token, jobs.clone())));
    }
}

/// The leases of one pass.
pub struct Leases {
    store: Arc<Store>,
    held: Mutex<Known>,
    unreported: Unreported,
}

impl Leases {
    pub fn new(store: Arc<Store>, unreported: Unreported) -> Self {
        Self {
            store,
            held: Mutex::default(),
            unreported,
        }
    }

    /// Claims jobs, besides those in `left`.
    pub async fn claim(&self, wish: &ClaimWish<'_>, left: &[i64]) -> Result<Vec<ClaimedJob>, StoreError> {
        let token = Uuid::new_v4();
        // Before the claim is sent: if its answer is lost, the jobs are released by the token.
        self.held().insert(token, HashSet::new());
        let claimed = match self.store.claim_jobs_as(wish, token, left).await {
            // A connection that broke, or one of the pool that had been dead for a while: the database may well be there.
            Err(error) if error.is_outage() => {
                self.store.report_leases(&[token]).await?;
                self.store.claim_jobs_as(wish, token, left).await?
            }
            claimed => claimed?,
        };
        let mut held = self.held();
        if claimed.is_empty() {
            held.remove(&token);
        } else {
            held.insert(token, claimed.iter().map(|job| job.lease.job_id).collect());
        }
        Ok(claimed)
    }

    /// Ends a job. If that fails for any reason but a lost lease, the lease stays known and is released later.
    pub async fn end(&self, job: &ClaimedJob, end: End) -> Result<Ended, StoreError> {
        let ended = match self.store.end_job(job, end.clone()).await {
            // Asked again over another connection. If the first was done and only its answer lost, the lease is gone.
            Err(error) if error.is_outage() => self.store.end_job(job, end).await,
            ended => ended,
        };
        // A lease that is lost stays, so that its loss is reported: whoever took it over counted a crash.
        if ended.is_ok() {
            let mut held = self.held();
            if let Some(jobs) = held.get_mut(&job.lease.token) {
                jobs.remove(&job.lease.job_id);
                if jobs.is_empty() {
                    held.remove(&job.lease.token);
                }
            }
        }
        ended
    }

    /// Reports what earlier passes of this worker couldn't. One try: this pass has work of its own.
    pub async fn report_earlier(&self) {
        let earlier = self.unreported.take();
        if earlier.is_empty() {
            return;
        }
        if let Err(error) = report(&self.store, &earlier).await {
            tracing::warn!(error = %error, "leases of an earlier pass could not be reported yet");
            self.unreported.remember(earlier.iter());
        }
    }

    /// The one exit: releases all that is still held, and tries until `deadline`. What can't be reported by then is
    /// reported by the worker's next pass.
    pub async fn release_all(&self, deadline: Instant) {
        let held = std::mem::take(&mut *self.held());
        if held.is_empty() {
            return;
        }
        if try_to_report(&self.store, &held, deadline).await {
            // A claim that was cut off may still come through after this: it is asked for once more, later.
            self.unreported
                .remember(held.iter().filter(|(_, jobs)| jobs.is_empty()));
        } else {
            tracing::error!(
                leases = held.len(),
                "no time was left to release leases; they are reported later"
            );
            self.unreported.remember(held.iter());
        }
    }

    fn held(&self) -> MutexGuard<'_, Known> {
        lock(&self.held)
    }
}

/// Tries until `until`; whether it is done.
async fn try_to_report(store: &Store, known: &Known, until: Instant) -> bool {
    let trying = async {
        while let Err(error) = report(store, known).await {
            tracing::warn!(error = %error, "leases could not be released; trying again");
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
        }
    };
    tokio::time::timeout_at(until.into(), trying).await.is_ok()
}

async fn report(store: &Store, known: &Known) -> Result<(), StoreError> {
    let tokens: Vec<Uuid> = known.keys().copied().collect();
    let reported = store.report_leases(&tokens).await?;
    if reported.released + reported.taken_back > 0 {
        tracing::info!(
            jobs.released = reported.released,
            crashes.taken_back = reported.taken_back,
            "leases were reported"
        );
    }
    Ok(())
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    // Nothing that is done under the lock can panic half-way.
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
