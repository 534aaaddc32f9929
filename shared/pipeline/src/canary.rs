//! Owns the canary: a short text that no provider can object to, asked for to tell the provider's faults from the
//! input's. Refuses to know a job.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::verdict::{FIRST_CANARY, LONGEST_CANARY};
use super::{Invocation, Served, ServedSpaces, Tally};
use cronvec_provider::{Answer, Failure, Provider, Purpose, Timeout};
use cronvec_store::StoreError;

pub(super) const TEXT: &str = "The quick brown fox jumps over the lazy dog.";
/// It is answered in no time, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whether an answer to it is one.
pub(super) fn judge(answer: Answer) -> Result<(), Failure> {
    let bad = |message: String| Failure::BadAnswer { message };
    match answer.vectors.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err(fault)) => Err(bad(fault.message)),
        None => Err(bad("no vector for the canary".into())),
    }
}

/// Asks one provider for it; how long the answer took.
pub async fn try_provider(provider: &Provider) -> Result<Duration, Failure> {
    try_within(provider, PATIENCE).await
}

async fn try_within(provider: &Provider, limit: Duration) -> Result<Duration, Failure> {
    let began = Instant::now();
    let timeout = Timeout { limit, ours: false };
    judge(provider.embed(&[TEXT], Purpose::Document, timeout).await?)?;
    Ok(began.elapsed())
}

/// Sends a canary to each endpoint whose circuit is open and whose time has come, and closes the circuit if it is answered
/// in the width of each space that is served there. Of several workers one does.
pub async fn try_circuits(invocation: &Invocation, served: &ServedSpaces) -> Result<(), StoreError> {
    let mut endpoints: BTreeMap<&str, Vec<&Served>> = BTreeMap::new();
    for space in served.all() {
        endpoints.entry(space.provider.endpoint()).or_default().push(space);
    }
    let names: Vec<&str> = endpoints.keys().copied().collect();
    for pause in invocation.store.pauses(Some(&names)).await? {
        let is_due = pause.circuit && pause.seconds_left <= 0.0;
        let (Some(spaces), true) = (endpoints.get(pause.endpoint.as_str()), is_due) else {
            continue;
        };
        let Some(left) = invocation.clock.time_for_request() else {
            return Ok(());
        };
        let store = &invocation.store;
        if !store.take_canary(&pause.endpoint, FIRST_CANARY, LONGEST_CANARY).await? {
            continue;
        }
        match try_spaces(invocation, spaces, left).await {
            Ok(()) => {
                tracing::info!(
                    provider.endpoint = pause.endpoint,
                    "the canary lives; the circuit is closed"
                );
                store.resume_endpoint(&pause.endpoint).await?;
            }
            Err(failure) => {
                tracing::warn!(provider.endpoint = pause.endpoint, error = %failure, "the circuit stays open");
                store.keep_circuit(&pause.endpoint, failure.message()).await?;
            }
        }
    }
    Ok(())
}

async fn try_spaces(invocation: &Invocation, spaces: &[&Served], left: Duration) -> Result<(), Failure> {
    let mut widths = Vec::new();
    for space in spaces {
        let width = space.space.spec.dimensions;
        if !widths.contains(&width) {
            widths.push(width);
            Tally::add(&invocation.tally.requests, 1);
            try_within(&space.provider, left.min(PATIENCE)).await?;
        }
    }
    Ok(())
}
