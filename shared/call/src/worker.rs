//! Owns what every worker has besides its work: how it is made, run and asked to end. Refuses to know what it does.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

use cronvec_config::Settings;
use cronvec_invocation::{Stop, Unreported};
use cronvec_secrets::Secrets;
use cronvec_store::{Store, StoreError};
use serde::Serialize;

use super::{CallOptions, WorkerKind};

/// What one of the three workers does that a schedule calls.
pub trait Work: Sized {
    const KIND: WorkerKind;
    /// What a pass tells.
    type Report: Serialize + Send;

    /// One pass, until the deadline at most. A job that fails doesn't fail it.
    fn pass(
        worker: &Worker<Self>,
        options: CallOptions,
        deadline: Instant,
    ) -> impl Future<Output = Result<Self::Report, StoreError>> + Send;
}

/// A worker that does `W`.
pub struct Worker<W> {
    // Dependencies.
    pub store: Arc<Store>,
    pub secrets: Secrets,
    // Configuration.
    pub settings: Settings,
    /// The wish that its passes end early.
    pub stop: Stop,
    // State.
    pub unreported: Unreported,
    work: PhantomData<fn() -> W>,
}

impl<W: Work> Worker<W> {
    /// A worker on the database that the settings name, whose schema must be this program's.
    pub async fn connect(settings: &Settings, secrets: &Secrets) -> Result<Self, StoreError> {
        let store = Store::open(settings, secrets).await?;
        Ok(Self::new(store, settings.clone(), secrets.clone()))
    }

    /// A worker on a store that is there already.
    pub fn new(store: Arc<Store>, settings: Settings, secrets: Secrets) -> Self {
        Self {
            store,
            secrets,
            settings,
            stop: Stop::default(),
            unreported: Unreported::default(),
            work: PhantomData,
        }
    }

    /// A pass, until the deadline at most, that keeps the worker's status.
    pub async fn run(&self, options: CallOptions, deadline: Instant) -> Result<W::Report, StoreError> {
        let pass = Box::pin(W::pass(self, options, deadline));
        self.store.run_as(W::KIND.as_str(), deadline, pass).await
    }

    /// Asks it to begin nothing new and to give up what it holds: a pass that is on ends within two seconds.
    pub fn stop(&self) {
        self.stop.raise();
    }

    /// For a process that ends after its passes: goes on trying to report the leases that they couldn't, until `until`.
    pub async fn report_last(&self, until: Instant) {
        self.unreported.report_last(&self.store, until).await;
    }
}
