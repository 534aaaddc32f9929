//! Owns what one instance of a worker's function makes once and borrows for each call. Refuses to know which worker.

use std::pin::pin;
use std::time::Instant;

use serde_json::Value;
use tokio::sync::OnceCell;

use super::end::TheEnd;
use super::metrics::{self, Metrics};
use super::{CallError, Guard, Shape, WorkerKind, outcome, refuse, shape};
use crate::startup;
use crate::worker::{Work, Worker};
use cronvec_config::Settings;
use cronvec_secrets::Secrets;

/// A function's instance around its worker, which the first call makes that may work: starting waits for nobody.
pub struct Instance<W>(Option<Made<W>>);

struct Made<W> {
    end: TheEnd,
    settings: Settings,
    secrets: Secrets,
    guard: Guard,
    worker: OnceCell<Worker<W>>,
    /// Only on Lambda.
    metrics: Option<Metrics>,
}

impl<W: Work> Instance<W> {
    /// Starts the log, reads the settings. With problems in these every call is refused.
    pub fn begin(secrets: Secrets) -> Self {
        Self(startup::begin().map(|settings| {
            let guard = Guard::new(&settings, secrets.clone());
            Made {
                end: TheEnd::of_process(),
                metrics: settings.lambda_function.clone().map(Metrics::new),
                settings,
                secrets,
                guard,
                worker: OnceCell::new(),
            }
        }))
    }

    /// Answers one call.
    pub async fn answer(&self, event: Value, deadline: Instant) -> Result<Value, CallError> {
        let Some(made) = &self.0 else {
            return refuse(&event, CallError::unread_settings());
        };
        let work = async |options, deadline| {
            let worker = made
                .worker
                .get_or_try_init(|| Worker::connect(&made.settings, &made.secrets))
                .await?;
            let mut run = pin!(worker.run(options, deadline));
            tokio::select! {
                ended = &mut run => ended,
                () = made.end.is_told() => {
                    worker.stop.raise_at_last();
                    run.await
                }
            }
        };
        let _call = made.end.begin_call().await;
        let outcome = outcome(&event, W::KIND, &made.guard, deadline, work).await;
        if let Some(metrics) = &made.metrics {
            // One worker tells of the queue, and only to whom it worked for.
            let queue = match (made.worker.get(), W::KIND, &outcome) {
                (Some(worker), WorkerKind::Vectorization, Ok(_)) => metrics::of_queue(&worker.store, deadline).await,
                _ => serde_json::Map::new(),
            };
            metrics.tell(&outcome, queue);
        }
        shape(Shape::of(&event), outcome)
    }
}
