//! Owns what a panic becomes: an error that ends the call, the request or the pass in which it happened, and nothing else.
//! Refuses to hide it: the panic itself is printed where it happens.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;

// With `panic = "abort"` one panic would end the process, and everybody's work with it, in the release that is shipped but not
// in the tests.
#[cfg(not(panic = "unwind"))]
compile_error!("build with panic = \"unwind\": a panic must end its own call only");

/// The work stopped at a bug. What it holds in memory is dropped; what it holds in the database ends with its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("internal error: the work panicked; standard error says where")]
pub struct Panicked;

/// Runs `work` to its end, or to its panic.
pub async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|_| Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_error_and_a_result_stays_one() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let broken = async {
            if true {
                panic!("a bug")
            }
        };
        assert_eq!(caught(broken).await, Err(Panicked));
    }

    #[test]
    fn what_is_shipped_unwinds_as_the_tests_do() {
        let manifest = include_str!("../../../Cargo.toml");
        let profiles = manifest.split_once("[profile").map_or("", |(_, profiles)| profiles);
        assert!(!profiles.is_empty() && !profiles.contains("panic ="), "{profiles}");
    }
}
