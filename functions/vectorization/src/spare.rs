//! What a tick does for attached tables: first it reads what large statements have changed, and with time that is left it
//! compares tables with their records. Both a bounded while.

use std::time::{Duration, Instant};

use cronvec_pipeline::Invocation;
use cronvec_store::StoreError;
use cronvec_store::sources::Slice;

/// Of one invocation's time.
const AT_MOST: Duration = Duration::from_secs(3);
const FOR_NOTES: Duration = Duration::from_secs(10);
/// Sources that one invocation looks at.
const SOURCES: i64 = 100;

/// Reads what large statements have changed, before anything is embedded. A table that can't be read is its own trouble, and
/// one that is slow takes others no more than this time: the next tick begins with another.
pub(crate) async fn take_notes(invocation: &Invocation, project_id: Option<i32>) -> Result<(), StoreError> {
    let store = &invocation.store;
    let began = Instant::now();
    for source in store.sources_with_notes(project_id, SOURCES).await? {
        loop {
            let is_over = began.elapsed() > FOR_NOTES || invocation.clock.time_for_request().is_none();
            if is_over || invocation.is_stopped() {
                return Ok(());
            }
            match store.take_note(source, invocation.bounds.max_content_bytes).await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) if error.is_outage() => return Err(error),
                Err(error) => {
                    tracing::warn!(source.id = source, error = %error, "changed rows of a table can't be read");
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Goes on with the passes that are due. Returns how many records were written. A table that can't be read is its own
/// trouble, and told with it; no tick fails by it.
pub(crate) async fn reconcile(invocation: &Invocation, project_id: Option<i32>) -> Result<u64, StoreError> {
    let store = &invocation.store;
    let began = Instant::now();
    let mut written = 0;
    for source in store.sources_to_reconcile(project_id, SOURCES).await? {
        loop {
            let is_over = began.elapsed() > AT_MOST || invocation.clock.time_for_request().is_none();
            if is_over || invocation.is_stopped() {
                return Ok(written);
            }
            match store.reconcile_slice(source, invocation.bounds.max_content_bytes).await {
                Ok(slice) => {
                    written += slice.written();
                    if !matches!(slice, Slice::More { .. }) {
                        break;
                    }
                }
                Err(error) if error.is_outage() => return Err(error),
                Err(error) => {
                    tracing::warn!(source.id = source, error = %error, "a table can't be compared with its records");
                    break;
                }
            }
        }
    }
    Ok(written)
}
