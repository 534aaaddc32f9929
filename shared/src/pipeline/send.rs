//! Owns a batch on its way to the provider and back: admission, retries, halves, the canary. Refuses to write.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::Rng;
use tracing::Instrument;

use super::run::{Shared, Trouble};
use super::texts::{Asking, Waiting};
use super::verdict::{TOO_LONG, Verdict, after_canary, is_permanent, verdict};
use super::writer::Item;
use super::{Tally, canary};
use crate::provider::{Answer, Failure, InputFault, Purpose, Timeout};
use crate::store::charges::Charge;
use crate::store::cuts::Recut;

/// So many equal rejections in a row, with no success between them, look like the provider's fault.
const SUSPICIOUS: u32 = 3;
/// A request that takes longer has failed, however much time we have.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const MESSAGE_CHARS: usize = 500;
/// What has no more estimated tokens than this isn't cut again: no model's window is so narrow.
const LEAST_CUT: usize = 16;

/// Inputs that are asked for together, and what happened to them before.
struct Part {
    inputs: Vec<Asking>,
    retried: bool,
}

/// Sends a batch until each of its inputs has a vector or a reason why not, or the run has ended.
pub(super) async fn send(run: Arc<Shared>, mut batch: Vec<Asking>) {
    wait_for_writes(&run, &mut batch).await;
    let mut parts = vec![Part {
        inputs: batch,
        retried: false,
    }];
    while let Some(part) = parts.pop() {
        if run.has_ended() {
            // Dropped unanswered: their records stay pending.
            continue;
        }
        let failure = match ask(&run, &part.inputs).await {
            Ok(answer) => {
                run.rejections.store(0, Ordering::Relaxed);
                deliver(&run, part.inputs, answer);
                continue;
            }
            Err(failure) => failure,
        };
        let suspected_at = Instant::now();
        match verdict(failure) {
            Verdict::RetryOnce { .. } if !part.retried => {
                let jitter = rand::rng().random_range(50..300);
                tokio::time::sleep(Duration::from_millis(jitter)).await;
                parts.push(Part { retried: true, ..part });
            }
            Verdict::RetryOnce { message, reason } => {
                // Not mended by a retry: the provider's fault or the input's?
                match ask_canary(&run, suspected_at).await {
                    Ok(()) => suspect(&run, part.inputs, reason, message, &mut parts),
                    Err(failure) => end(&run, after_canary(failure)).await,
                }
            }
            Verdict::Suspect { message, reason } => {
                let in_a_row = run.rejections.fetch_add(1, Ordering::Relaxed) + 1;
                let is_cut_smaller = reason == TOO_LONG && !is_least(&run, &part.inputs);
                let checked = if (part.inputs.len() == 1 && !is_cut_smaller) || in_a_row == SUSPICIOUS {
                    ask_canary(&run, suspected_at).await
                } else {
                    Ok(())
                };
                match checked {
                    Ok(()) => suspect(&run, part.inputs, reason, message, &mut parts),
                    Err(failure) => end(&run, after_canary(failure)).await,
                }
            }
            verdict => end(&run, verdict).await,
        }
    }
}

/// Where what is asked for and not written is bounded: waits until this may be asked for, too.
async fn wait_for_writes(run: &Shared, batch: &mut [Asking]) {
    let Some(unwritten) = &run.unwritten else { return };
    let inputs = u32::try_from(batch.len()).unwrap_or(u32::MAX);
    // It is never closed.
    let Ok(mut permits) = Arc::clone(unwritten).acquire_many_owned(inputs).await else {
        return;
    };
    for asking in batch {
        asking.hold(permits.split(1));
    }
}

/// One request, when there is time for it.
async fn ask(run: &Shared, inputs: &[Asking]) -> Result<Answer, Failure> {
    let texts: Vec<&str> = inputs.iter().map(Asking::content).collect();
    request(run, &texts).await
}

async fn request(run: &Shared, texts: &[&str]) -> Result<Answer, Failure> {
    let invocation = &run.invocation;
    // The semaphores are never closed.
    let (Ok(_turn), Ok(_permit)) = (run.turns.acquire().await, invocation.requests.acquire().await) else {
        return Err(Failure::OutOfTime);
    };
    if run.has_ended() || invocation.is_stopped() {
        return Err(Failure::OutOfTime);
    }
    // Another job, or another worker, was told to rest since this one was claimed.
    if invocation
        .rests
        .holds(&invocation.store, run.served.provider.endpoint())
        .await
    {
        run.end(Trouble::Provider);
        return Err(Failure::OutOfTime);
    }
    let Some(left) = invocation.clock.time_for_request() else {
        return Err(Failure::OutOfTime);
    };
    let timeout = Timeout {
        limit: left.min(REQUEST_TIMEOUT),
        ours: left < REQUEST_TIMEOUT,
    };
    let began = Instant::now();
    let span = tracing::info_span!(
        "provider",
        provider.endpoint = run.served.provider.endpoint(),
        provider.inputs = texts.len(),
        error = tracing::field::Empty
    );
    let answer = tokio::select! {
        answer = run.served.provider.embed(texts, Purpose::Document, timeout).instrument(span.clone()) => answer,
        () = invocation.stop.gives_up() => Err(Failure::OutOfTime),
    };
    if let Err(failure) = &answer {
        span.record("error", failure.kind());
    }
    drop(span);
    Tally::add(&invocation.tally.requests, 1);
    if matches!(answer, Err(Failure::RateLimited { .. })) {
        Tally::add(&invocation.tally.rate_limited, 1);
    }
    if !matches!(answer, Err(Failure::OutOfTime)) {
        invocation.clock.note_request(began.elapsed());
        invocation.tally.note_duration(began.elapsed());
    }
    answer
}

/// Halves what is suspected; what stands alone is charged, or, where it is too long, cut smaller.
fn suspect(run: &Shared, mut inputs: Vec<Asking>, reason: &'static str, message: String, parts: &mut Vec<Part>) {
    if inputs.len() > 1 {
        let second = inputs.split_off(inputs.len() / 2);
        parts.push(Part {
            inputs: second,
            retried: true,
        });
        parts.push(Part { inputs, retried: true });
        return;
    }
    for input in inputs {
        if reason == TOO_LONG && !is_least(run, std::slice::from_ref(&input)) {
            recut(run, input);
            continue;
        }
        fault(
            input,
            &InputFault {
                reason,
                message: message.clone(),
            },
        );
    }
}

/// Whether a worker lives that asks for nothing suspicious, as often as the suspect was tried. If the provider fails, the
/// run ends as with any of its failures.
pub(super) async fn is_well_without(run: &Shared) -> bool {
    for _ in 0..3 {
        if let Err(failure) = ask_canary(run, Instant::now()).await {
            end(run, after_canary(failure)).await;
            return false;
        }
    }
    true
}

/// Asks for what is known to be good. One that began after the suspicion and succeeded clears all earlier ones.
async fn ask_canary(run: &Shared, suspected_at: Instant) -> Result<(), Failure> {
    let mut last = run.canary.lock().await;
    if last.is_some_and(|succeeded| succeeded > suspected_at) {
        return Ok(());
    }
    let began = Instant::now();
    canary::judge(request(run, &[canary::TEXT]).await?)?;
    *last = Some(began);
    Ok(())
}

fn deliver(run: &Shared, inputs: Vec<Asking>, answer: Answer) {
    if let Some(tokens) = answer.tokens {
        Tally::add(&run.invocation.tally.tokens, tokens);
    }
    for (input, vector) in inputs.into_iter().zip(answer.vectors) {
        match vector {
            Ok(vector) => input.answered(vector),
            Err(reason) => fault(input, &reason),
        }
    }
}

/// The input's own fault: its record is charged, and those of the same text.
fn fault(input: Asking, fault: &InputFault) {
    for Waiting { chunk, writer, .. } in input.given_up() {
        let charge = Charge {
            record_id: chunk.record_id,
            record_hash: chunk.record_hash,
            reason: fault.reason,
            message: fault.message.chars().take(MESSAGE_CHARS).collect(),
            permanent: is_permanent(fault.reason),
        };
        // A writer that is gone has lost its lease; its records stay pending.
        let _ = writer.send(Item::Fault(charge));
    }
}

/// Whether none of them can be cut again.
fn is_least(run: &Shared, inputs: &[Asking]) -> bool {
    let tokens = |input: &Asking| run.served.provider.count_tokens(input.content());
    inputs.iter().all(|input| tokens(input) <= LEAST_CUT)
}

/// The records that wanted it are cut again, into chunks of half its size at most; nobody is charged.
fn recut(run: &Shared, input: Asking) {
    let tokens = run.served.provider.count_tokens(input.content()) / 2;
    let tokens = i32::try_from(tokens).unwrap_or(i32::MAX);
    for Waiting { chunk, writer, .. } in input.given_up() {
        // A writer that is gone has lost its lease; its records stay pending.
        let _ = writer.send(Item::Recut(Recut {
            record_id: chunk.record_id,
            record_hash: chunk.record_hash,
            of: chunk.of,
            tokens,
        }));
    }
}

/// The whole run ends here; nobody is charged.
async fn end(run: &Shared, verdict: Verdict) {
    let (rest, circuit, message) = match verdict {
        Verdict::Pause { rest, message } => (rest, false, message),
        Verdict::OpenCircuit { rest, message } => (rest, true, message),
        Verdict::RetryOnce { .. } | Verdict::Suspect { .. } | Verdict::OutOfTime => {
            run.end(Trouble::Deadline);
            return;
        }
    };
    let endpoint = run.served.provider.endpoint();
    // Before the row is written, so that nobody goes on asking meanwhile.
    run.end(Trouble::Provider);
    run.invocation.rests.begin(endpoint, rest).await;
    tracing::warn!(
        provider.endpoint = endpoint,
        pause.seconds = rest.as_secs(),
        circuit,
        provider.said = message,
        "the provider rests"
    );
    if let Err(error) = run
        .invocation
        .store
        .pause_endpoint(endpoint, rest, circuit, &message)
        .await
    {
        tracing::error!(error = %error, provider.endpoint = endpoint, "the pause could not be written");
    }
}
