//! Owns what one instance of a worker's function makes once and borrows for each call. Refuses to know which worker.

use std::pin::pin;
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::end::TheEnd;
use super::metrics::{self, Metrics};
use super::{CallError, CallOptions, Guard, Shape, Worker, outcome, refuse, shape};
use crate::config::Settings;
use crate::pipeline::Stop;
use crate::secrets::Secrets;
use crate::startup;
use crate::store::Store;

/// A function's instance around its worker `W`, which the first call makes that may work: starting waits for nobody.
pub struct Instance<W>(Option<Made<W>>);

struct Made<W> {
    end: TheEnd,
    settings: Settings,
    secrets: Secrets,
    guard: Guard,
    worker: OnceCell<W>,
    /// Only on Lambda.
    metrics: Option<Metrics>,
}

impl<W: AsRef<Store> + AsRef<Stop>> Instance<W> {
    /// Starts the log, reads the settings. With problems in these every call is refused.
    pub fn begin() -> Self {
        Self(startup::begin().map(|settings| {
            let secrets = Secrets::new();
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

    /// Answers one call of the worker `kind`.
    pub async fn answer<R, E>(
        &self,
        event: Value,
        kind: Worker,
        deadline: Instant,
        connect: impl AsyncFn(&Settings, &Secrets) -> Result<W, E>,
        run: impl AsyncFn(&W, CallOptions, Instant) -> Result<R, E>,
    ) -> Result<Value, CallError>
    where
        R: Serialize,
        E: std::error::Error + 'static,
    {
        let Some(made) = &self.0 else {
            return refuse(&event, CallError::unread_settings());
        };
        let work = async |options, deadline| {
            let worker = made
                .worker
                .get_or_try_init(|| connect(&made.settings, &made.secrets))
                .await?;
            let mut run = pin!(run(worker, options, deadline));
            tokio::select! {
                ended = &mut run => ended,
                () = made.end.is_told() => {
                    AsRef::<Stop>::as_ref(worker).raise_at_last();
                    run.await
                }
            }
        };
        let _call = made.end.begin_call().await;
        let outcome = outcome(&event, kind, &made.guard, deadline, work).await;
        if let Some(metrics) = &made.metrics {
            // One worker tells of the queue, and only to whom it worked for.
            let queue = match (made.worker.get(), kind, &outcome) {
                (Some(worker), Worker::Vectorization, Ok(_)) => metrics::of_queue(worker.as_ref(), deadline).await,
                _ => serde_json::Map::new(),
            };
            metrics.tell(&outcome, queue);
        }
        shape(Shape::of(&event), outcome)
    }
}
