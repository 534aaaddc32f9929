//! Passes that are called over HTTP. A pass that was begun belongs to the process: it runs to its end, whether or not its
//! caller waits that long.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cronvec_call::{ACCEPTED, CallError, CallOptions, WorkerKind};
use cronvec_edges::panics::caught;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, RwLock, Semaphore, oneshot};

use super::schedule::Workers;

/// Of vectorization at least so many run beside each other: a backfill in lanes calls it so.
const LEAST_PLACES: usize = 4;
/// How long a call waits for a place; less than a gateway waits for its answer (29 s).
const LONGEST_WAIT: Duration = Duration::from_secs(25);

/// Passes that may be on at once, all workers together.
pub(super) fn places(concurrent_workers: usize) -> usize {
    concurrent_workers.max(LEAST_PLACES) + 2
}

pub(super) struct Called {
    workers: Arc<Workers>,
    ingestion: Places,
    vectorization: Places,
    cleanup: Places,
    /// Read-locked by each pass that is on.
    under_way: Arc<RwLock<()>>,
}

/// Those of one worker. Callers get them in the order in which they came.
struct Places(Arc<Semaphore>);

impl Called {
    pub fn new(workers: Arc<Workers>, concurrent_workers: usize) -> Self {
        let places = |number| Places(Arc::new(Semaphore::new(number)));
        Self {
            workers,
            ingestion: places(1),
            vectorization: places(concurrent_workers.max(LEAST_PLACES)),
            cleanup: places(1),
            under_way: Arc::default(),
        }
    }

    /// The report of a pass; or, at once, that one was begun, if the caller doesn't wait. Without a free place none is
    /// begun: those that are on do the work. Until its pass has begun a caller who goes away leaves nothing behind.
    pub async fn call(&self, kind: WorkerKind, options: CallOptions) -> Result<Value, CallError> {
        let places = match kind {
            WorkerKind::Ingestion => &self.ingestion,
            WorkerKind::Vectorization => &self.vectorization,
            WorkerKind::Cleanup => &self.cleanup,
        };
        let longest = if options.no_wait { Duration::ZERO } else { LONGEST_WAIT };
        let Some(place) = places.get(longest).await? else {
            return Ok(json!({ACCEPTED: true, "alreadyRunning": true}));
        };
        let no_wait = options.no_wait;
        let pass = begin(
            (place, Arc::clone(&self.under_way).read_owned().await),
            kind,
            pass(Arc::clone(&self.workers), kind, options),
        );
        if no_wait {
            return Ok(json!({ACCEPTED: true, "alreadyRunning": false}));
        }
        pass.await.unwrap_or_else(|_| Err(ending()))
    }

    /// From now on nothing is begun.
    pub fn stop(&self) {
        for places in [&self.ingestion, &self.vectorization, &self.cleanup] {
            places.0.close();
        }
    }

    /// Returns when no pass is on any more.
    pub async fn ended(&self) {
        drop(self.under_way.write().await);
    }
}

impl Places {
    /// None: there wasn't a free one in time.
    async fn get(&self, longest: Duration) -> Result<Option<OwnedSemaphorePermit>, CallError> {
        match tokio::time::timeout(longest, Arc::clone(&self.0).acquire_owned()).await {
            Ok(Ok(place)) => Ok(Some(place)),
            Ok(Err(_)) => Err(ending()),
            Err(_) => Ok(None),
        }
    }
}

fn ending() -> CallError {
    CallError::Dependency {
        message: "the process is shutting down; call again".to_owned(),
    }
}

async fn pass(workers: Arc<Workers>, kind: WorkerKind, options: CallOptions) -> Result<Value, CallError> {
    let deadline = options.deadline(workers.deadline());
    match kind {
        WorkerKind::Ingestion => report(workers.ingest(options, deadline).await),
        WorkerKind::Vectorization => report(workers.vectorize(options, deadline).await),
        WorkerKind::Cleanup => report(workers.clean_up(options, deadline).await),
    }
}

fn report<R: Serialize, E: std::error::Error + 'static>(outcome: Result<R, E>) -> Result<Value, CallError> {
    let report = outcome.map_err(|error| CallError::of_work(&error))?;
    serde_json::to_value(report).map_err(|error| CallError::of_work(&error))
}

/// Starts a pass that ends by itself, and gives where its outcome comes out. If nobody waits there, it is logged here.
/// `held` is given back at its end, however it ends.
fn begin(
    held: impl Send + 'static,
    kind: WorkerKind,
    pass: impl Future<Output = Result<Value, CallError>> + Send + 'static,
) -> oneshot::Receiver<Result<Value, CallError>> {
    let (tell, outcome) = oneshot::channel();
    tokio::spawn(async move {
        let outcome = caught(pass).await;
        let outcome = outcome.unwrap_or_else(|panicked| Err(CallError::of_work(&panicked)));
        drop(held);
        match tell.send(outcome) {
            Ok(()) => {}
            Err(Ok(report)) => {
                tracing::info!(worker.name = %kind, report = %report, "pass ended, its caller doesn't wait")
            }
            Err(Err(error)) => {
                tracing::error!(worker.name = %kind, error = %error, "pass failed, its caller doesn't wait");
            }
        }
    });
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(places: &Places) -> OwnedSemaphorePermit {
        Arc::clone(&places.0).try_acquire_owned().unwrap()
    }

    #[tokio::test]
    async fn a_pass_that_panics_fails_its_call_and_gives_its_place_back() {
        let places = Places(Arc::new(Semaphore::new(1)));
        let broken = async { panic!("a bug") };
        let outcome = begin(place(&places), WorkerKind::Cleanup, broken).await.unwrap();
        assert_eq!(outcome.unwrap_err().status(), 500);
        assert!(places.get(Duration::ZERO).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_pass_goes_on_when_nobody_waits_for_it_and_keeps_its_place_to_its_end() {
        let places = Places(Arc::new(Semaphore::new(1)));
        let (go, going) = oneshot::channel::<()>();
        let pass = async {
            going.await.unwrap();
            Ok(Value::Null)
        };
        drop(begin(place(&places), WorkerKind::Cleanup, pass));
        assert!(places.get(Duration::ZERO).await.unwrap().is_none());
        go.send(()).unwrap();
        assert!(places.get(LONGEST_WAIT).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn nothing_is_begun_once_the_process_ends() {
        let places = Places(Arc::new(Semaphore::new(1)));
        places.0.close();
        assert_eq!(places.get(Duration::ZERO).await.unwrap_err().status(), 503);
    }
}
