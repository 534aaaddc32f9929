//! Owns a batch on its way to the provider and back: admission, retries, halves, the canary. Refuses to write.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::Rng;
use tracing::Instrument;

use super::item::Item;
use super::state::{Shared, Trouble};
use super::texts::{Asking, Waiting};
use super::verdict::{
    PROVIDER_ERROR, REJECTED, TIMED_OUT, TOO_LONG, UNUSABLE_ANSWER, Verdict, after_canary, is_permanent, verdict,
};
use super::{Tally, canary};
use cronvec_provider::{Answer, Failure, InputFault, Purpose, Timeout};
use cronvec_store::charges::Charge;
use cronvec_store::cuts::Recut;
use cronvec_store::suspicions::{Suspected, Suspicion};

/// So many equal rejections in a row, with no success between them, look like the provider's fault.
const SUSPICIOUS: u32 = 3;
/// A text that stands alone and takes longer than a request may is asked for again after this, and from then on each hour.
const SLOW_WAIT: Duration = Duration::from_secs(600);
const SLOW_WAIT_AGAIN: Duration = Duration::from_secs(3600);
const MESSAGE_CHARS: usize = 500;
/// What has no more estimated tokens than this isn't cut again: no model's window is so narrow.
const LEAST_CUT: usize = 16;
/// Tokens that each model reads, sentence transformers' shortest window among them.
const MOST_THAT_ANY_MODEL_READS: usize = 128;

/// Inputs that are asked for together, and what happened to them before.
struct Part {
    inputs: Vec<Asking>,
    retried: bool,
    /// One that took too long before, too, when it was asked for alone.
    was_slow: bool,
}

impl Part {
    fn fresh(inputs: Vec<Asking>) -> Self {
        Self {
            inputs,
            retried: false,
            was_slow: false,
        }
    }

    /// Of inputs that are suspected.
    fn suspected(inputs: Vec<Asking>) -> Self {
        Self {
            retried: true,
            ..Self::fresh(inputs)
        }
    }
}

/// Sends a batch until each of its inputs has a vector or a reason why not, or the run has ended.
pub(super) async fn send(run: Arc<Shared>, mut batch: Vec<Asking>) {
    wait_for_writes(&run, &mut batch).await;
    send_parts(&run, vec![Part::fresh(batch)]).await;
}

/// Goes on where an earlier pass left the search: these are inputs that were refused together with others.
pub(super) async fn send_suspects(run: Arc<Shared>, mut inputs: Vec<Asking>, suspicion: Suspicion) {
    wait_for_writes(&run, &mut inputs).await;
    let were = usize::try_from(suspicion.inputs).unwrap_or(1).max(1);
    let is_slow = suspicion.reason == TIMED_OUT;
    if were == 1 && !is_slow {
        // Each record of these had an input that was refused alone. All that is missing is the canary.
        let reason = kept_reason(&suspicion.reason);
        match ask_canary(&run, Instant::now()).await {
            Ok(()) => charge(&run, inputs, reason, &suspicion.message),
            Err(failure) => end(&run, after_canary(failure)).await,
        }
        return;
    }
    // All of those that were refused together: one half at least will be refused again. Of a part of them nobody knows.
    let each = were.div_ceil(2);
    let mut parts = Vec::new();
    while !inputs.is_empty() {
        let rest = inputs.split_off(each.min(inputs.len()));
        parts.push(Part {
            was_slow: is_slow && were == 1,
            ..Part::suspected(std::mem::replace(&mut inputs, rest))
        });
    }
    parts.reverse();
    send_parts(&run, parts).await;
}

/// The last part is the next.
async fn send_parts(run: &Shared, mut parts: Vec<Part>) {
    while let Some(part) = parts.pop() {
        if run.has_ended() {
            // Dropped unanswered: their records stay pending.
            continue;
        }
        let failure = match ask(run, &part.inputs).await {
            Ok(answer) => {
                run.rejections.store(0, Ordering::Relaxed);
                deliver(run, part.inputs, answer);
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
                // A retry didn't help: the provider's fault or the input's?
                match ask_canary(run, suspected_at).await {
                    Ok(()) => suspect(run, part.inputs, reason, message, &mut parts),
                    Err(failure) => end(run, after_canary(failure)).await,
                }
            }
            Verdict::Suspect { message, reason } => {
                let in_a_row = run.rejections.fetch_add(1, Ordering::Relaxed) + 1;
                let is_cut_smaller = reason == TOO_LONG && !is_least(run, &part.inputs);
                let is_charged = part.inputs.len() == 1 && !is_cut_smaller;
                let checked = if is_charged || in_a_row == SUSPICIOUS {
                    ask_canary(run, suspected_at).await
                } else {
                    Ok(())
                };
                match checked {
                    Ok(()) => suspect(run, part.inputs, reason, message, &mut parts),
                    Err(failure) => {
                        // What it has cost to get here isn't paid for again.
                        if matches!(failure, Failure::RateLimited { .. } | Failure::OutOfTime) {
                            keep_suspicion(run, &part.inputs, reason, &message, None);
                        }
                        end(run, after_canary(failure)).await;
                    }
                }
            }
            Verdict::TooSlow { message } => too_slow(run, part, message, suspected_at, &mut parts).await,
            verdict => end(run, verdict).await,
        }
    }
}

/// Inputs whose answer took longer than a request may. Fewer of them take less; of one alone it is known that it has to
/// wait, so that it isn't asked for by each tick.
async fn too_slow(run: &Shared, part: Part, message: String, suspected_at: Instant, parts: &mut Vec<Part>) {
    let is_alone = part.inputs.len() == 1;
    let again = part.was_slow.then_some(SLOW_WAIT_AGAIN);
    // Kept before the canary: most likely there is no time left for one.
    keep_suspicion(run, &part.inputs, TIMED_OUT, &message, again.filter(|_| is_alone));
    if let Err(failure) = ask_canary(run, suspected_at).await {
        return end(run, after_canary(failure)).await;
    }
    if is_alone {
        keep_suspicion(run, &part.inputs, TIMED_OUT, &message, again.or(Some(SLOW_WAIT)));
        return;
    }
    halve(part.inputs, parts);
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
    if run.has_ended() || run.is_over() || invocation.is_stopped() {
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
    let longest = invocation
        .bounds
        .request_timeout
        .unwrap_or_else(|| run.served.provider.request_timeout());
    let timeout = Timeout {
        limit: left.min(longest),
        // An answer that takes most of what an invocation has will never come in one: that is to be learnt from.
        ours: left < longest && !invocation.clock.is_most(left),
    };
    run.has_asked.store(true, Ordering::Relaxed);
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
fn suspect(run: &Shared, inputs: Vec<Asking>, reason: &'static str, message: String, parts: &mut Vec<Part>) {
    if inputs.len() > 1 {
        keep_suspicion(run, &inputs, reason, &message, None);
        return halve(inputs, parts);
    }
    charge(run, inputs, reason, &message);
}

/// The records of these inputs are charged, each of which stands alone, or is of a record that had one that did. Those that
/// may be too long are cut smaller instead.
fn charge(run: &Shared, inputs: Vec<Asking>, reason: &'static str, message: &str) {
    let is_cut_smaller = |input: &Asking| match reason {
        TOO_LONG => !is_least(run, std::slice::from_ref(input)),
        REJECTED | PROVIDER_ERROR => may_be_too_long(run, input),
        _ => false,
    };
    let cut: HashSet<String> = (inputs.iter().filter(|input| is_cut_smaller(input)))
        .map(|input| input.record_id().to_owned())
        .collect();
    for input in inputs {
        if is_cut_smaller(&input) {
            recut(run, input);
        } else if !cut.contains(input.record_id()) {
            fault(input, reason, message);
        }
    }
}

fn halve(mut inputs: Vec<Asking>, parts: &mut Vec<Part>) {
    let second = inputs.split_off(inputs.len() / 2);
    parts.push(Part::suspected(second));
    parts.push(Part::suspected(inputs));
}

/// Writes down what was learnt of these inputs, so that no later pass pays for it again, however this one ends.
fn keep_suspicion(run: &Shared, inputs: &[Asking], reason: &'static str, message: &str, wait: Option<Duration>) {
    let suspicion = Suspicion {
        group: rand::rng().random(),
        inputs: i32::try_from(inputs.len()).unwrap_or(i32::MAX),
        reason: reason.to_owned(),
        message: message.chars().take(MESSAGE_CHARS).collect(),
    };
    run.learnt.fetch_add(1, Ordering::Relaxed);
    for input in inputs {
        input.tell(|chunk| {
            Item::Suspect(Suspected {
                record_id: chunk.record_id.clone(),
                record_hash: chunk.record_hash,
                suspicion: suspicion.clone(),
                wait,
            })
        });
    }
}

/// As it was kept with the record.
fn kept_reason(reason: &str) -> &'static str {
    [TOO_LONG, PROVIDER_ERROR, UNUSABLE_ANSWER]
        .into_iter()
        .find(|known| *known == reason)
        .unwrap_or(REJECTED)
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
            Err(InputFault { reason, message }) => fault(input, reason, &message),
        }
    }
}

/// The input's own fault: its record is charged, and those of the same text.
fn fault(input: Asking, reason: &'static str, message: &str) {
    for Waiting { chunk, writer, .. } in input.given_up() {
        let charge = Charge {
            record_id: chunk.record_id,
            record_hash: chunk.record_hash,
            reason,
            message: message.chars().take(MESSAGE_CHARS).collect(),
            permanent: is_permanent(reason),
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

/// Whether a refusal in words that nobody knows may be of its length: it is worth one try in smaller parts.
fn may_be_too_long(run: &Shared, input: &Asking) -> bool {
    !input.is_cut_smaller() && run.served.provider.count_tokens(input.content()) > MOST_THAT_ANY_MODEL_READS
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
        Verdict::RetryOnce { .. } | Verdict::Suspect { .. } | Verdict::TooSlow { .. } | Verdict::OutOfTime => {
            run.end_in_time();
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
