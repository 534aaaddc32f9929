//! Owns what every worker has besides its pass: how it is made, run and asked to end. Refuses to know what it does.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use cronvec_config::Settings;
use cronvec_invocation::Stop;
use cronvec_secrets::Secrets;
use cronvec_store::{Store, StoreError};
use serde::Serialize;

use super::{CallOptions, WorkerKind};

/// One of the three workers that a schedule calls.
pub trait Worker: Sized + Send + Sync {
    const KIND: WorkerKind;
    /// What a pass tells.
    type Report: Serialize + Send;

    /// A worker on a store that is there already.
    fn new(store: Arc<Store>, settings: Settings, secrets: Secrets) -> Self;

    fn store(&self) -> &Store;

    /// The wish that its passes end early.
    fn ending(&self) -> &Stop;

    /// One pass, until the deadline at most.
    fn pass(
        &self,
        options: CallOptions,
        deadline: Instant,
    ) -> impl Future<Output = Result<Self::Report, StoreError>> + Send;

    /// A worker on the database that the settings name, whose schema must be this program's.
    fn connect(settings: &Settings, secrets: &Secrets) -> impl Future<Output = Result<Self, StoreError>> + Send {
        async {
            let store = Store::open(settings, secrets).await?;
            Ok(Self::new(store, settings.clone(), secrets.clone()))
        }
    }

    /// A pass that keeps the worker's status. A job that fails doesn't fail it.
    fn run(
        &self,
        options: CallOptions,
        deadline: Instant,
    ) -> impl Future<Output = Result<Self::Report, StoreError>> + Send {
        async move {
            let pass = Box::pin(self.pass(options, deadline));
            self.store().run_as(Self::KIND.as_str(), deadline, pass).await
        }
    }

    /// Asks it to begin nothing new and to give up what it holds: a pass that is on ends within two seconds.
    fn stop(&self) {
        self.ending().raise();
    }
}
