//! Owns a function's own end by SIGTERM, which Lambda sends half a second before it kills, where an extension is registered,
//! and other places as well. Refuses to know what is going on then.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

/// A call that is on has so long to end.
const LAST_CALL: Duration = Duration::from_millis(450);
/// Its answer has so long to leave.
const LAST_ANSWER: Duration = Duration::from_millis(40);

pub(super) struct TheEnd {
    told: watch::Receiver<bool>,
    /// Held by a call.
    call: Arc<Mutex<()>>,
}

impl TheEnd {
    /// From now on SIGTERM is told to the call that is on, and ends the process after it.
    pub fn of_process() -> Self {
        let (tell, told) = watch::channel(false);
        let call = Arc::new(Mutex::new(()));
        let on = Arc::clone(&call);
        tokio::spawn(async move {
            // Without a handler it is killed, and its leases run out.
            let Ok(mut terminate) = signal(SignalKind::terminate()) else {
                return;
            };
            terminate.recv().await;
            tracing::info!("told to end: nothing new is begun");
            tell.send_replace(true);
            let _ = tokio::time::timeout(LAST_CALL, on.lock()).await;
            tokio::time::sleep(LAST_ANSWER).await;
            std::process::exit(0);
        });
        Self { told, call }
    }

    /// Until what is returned is dropped, the process waits for it.
    pub async fn begin_call(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.call).lock_owned().await
    }

    /// Ends once the process is told to.
    pub async fn is_told(&self) {
        // The sender lives in the task; without it nobody is ever told.
        if self.told.clone().wait_for(|told| *told).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
