//! Owns the runtime that outlives single tests; what runs there is others'.

use std::future::Future;
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

// A test's own runtime ends with the test, and may be blocked by it.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("harness")
        .enable_all()
        .build()
        .expect("a runtime")
});

/// Where servers and connections live that must not end with one test.
pub fn handle() -> Handle {
    RUNTIME.handle().clone()
}

/// Runs something to its end from `Drop`, where nothing can be awaited; gives up after ten seconds.
pub fn finish(work: impl Future<Output = ()> + Send + 'static) {
    let (done, wait) = mpsc::channel();
    handle().spawn(async move {
        work.await;
        let _ = done.send(());
    });
    let _ = wait.recv_timeout(Duration::from_secs(10));
}
