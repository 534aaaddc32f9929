//! Owns a worker's call from the event to the answer, whatever shape it has. Refuses to do the work.

mod deadline;
mod end;
mod error;
mod event;
mod guard;
mod instance;
mod metrics;
pub mod remote;
pub mod startup;
mod worker;

use std::future::Future;
use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, Value, json};

pub use deadline::from_epoch_ms;
pub use error::CallError;
pub use event::{CallOptions, Shape, WorkerCall, WorkerKind};
pub use guard::{Authorised, Guard};
pub use instance::Instance;
pub use remote::Remote;
pub use worker::{Work, Worker};

use cronvec_edges::panics::caught;

/// What an answer says that comes before its pass has ended.
pub const ACCEPTED: &str = "accepted";

/// Answers one call of the worker `kind`: reads the event, checks the bearer, lets `work` do its pass until the earlier
/// of `deadline` and the call's own `maxSeconds`, and shapes its report. Over HTTP every outcome is an answer; when the
/// call is direct an error stays one, which the runtime reports as a function error.
pub async fn answer<F, Fut, R, E>(
    event: Value,
    kind: WorkerKind,
    guard: &Guard,
    deadline: Instant,
    work: F,
) -> Result<Value, CallError>
where
    F: FnOnce(CallOptions, Instant) -> Fut,
    Fut: Future<Output = Result<R, E>>,
    R: Serialize,
    E: std::error::Error + 'static,
{
    let outcome = outcome(&event, kind, guard, deadline, work).await;
    shape(Shape::of(&event), outcome)
}

/// What an answer says, before it has a shape; logged.
async fn outcome<F, Fut, R, E>(
    event: &Value,
    kind: WorkerKind,
    guard: &Guard,
    deadline: Instant,
    work: F,
) -> Result<Value, CallError>
where
    F: FnOnce(CallOptions, Instant) -> Fut,
    Fut: Future<Output = Result<R, E>>,
    R: Serialize,
    E: std::error::Error + 'static,
{
    let started = Instant::now();
    let outcome = pass(event, kind, guard, deadline, work).await;
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let outcome = outcome.map(|(report, authorised)| finish(report, duration_ms, authorised));
    match &outcome {
        Ok(report) => tracing::info!(worker.name = %kind, duration.ms = duration_ms, report = %report, "call answered"),
        Err(error) if error.status() < 500 => {
            tracing::warn!(worker.name = %kind, http.status = error.status(), error = %error, "call refused");
        }
        Err(error) => {
            tracing::error!(worker.name = %kind, http.status = error.status(), error = %error, "call failed");
        }
    }
    outcome
}

/// Answers a call that can't even be looked at, in the shape that it has.
pub fn refuse(event: &Value, error: CallError) -> Result<Value, CallError> {
    shape(Shape::of(event), Err(error))
}

async fn pass<F, Fut, R, E>(
    event: &Value,
    kind: WorkerKind,
    guard: &Guard,
    deadline: Instant,
    work: F,
) -> Result<(R, Authorised), CallError>
where
    F: FnOnce(CallOptions, Instant) -> Fut,
    Fut: Future<Output = Result<R, E>>,
    E: std::error::Error + 'static,
{
    let call = WorkerCall::parse(event)?;
    call.must_be_for(kind)?;
    // Who may not call learns nothing about what a call may say.
    let authorised = guard.check(call.bearer()).await?;
    let options = call.options()?;
    let deadline = options.deadline(deadline);
    let report = caught(async move { work(options, deadline).await })
        .await
        .map_err(|panicked| CallError::of_work(&panicked))?
        .map_err(|error| CallError::of_work(&error))?;
    Ok((report, authorised))
}

/// The report with what every answer has.
fn finish<R: Serialize>(report: R, duration_ms: u64, authorised: Authorised) -> Value {
    let mut answer = Map::new();
    answer.insert("success".to_owned(), Value::Bool(true));
    match serde_json::to_value(report) {
        Ok(Value::Object(fields)) => answer.extend(fields),
        Ok(Value::Null) => {}
        Ok(other) => {
            answer.insert("report".to_owned(), other);
        }
        // The work is done all the same: its caller must not do it again for the report's sake.
        Err(error) => tracing::error!(error = %error, "a report can't be written as JSON"),
    }
    answer.insert("duration".to_owned(), duration_ms.into());
    if let Some(by) = authorised.as_str() {
        answer.insert("authorisedBy".to_owned(), by.into());
    }
    Value::Object(answer)
}

fn shape(shape: Shape, outcome: Result<Value, CallError>) -> Result<Value, CallError> {
    match (shape, outcome) {
        (Shape::Direct, outcome) => outcome,
        (Shape::Http, Ok(answer)) => {
            let status = if answer[ACCEPTED] == true { 202 } else { 200 };
            Ok(http(status, &answer, None))
        }
        (Shape::Http, Err(error)) => {
            let body = json!({"success": false, "error": error.to_string()});
            Ok(http(error.status(), &body, error.header()))
        }
    }
}

/// A response of payload format 2.0.
fn http(status: u16, body: &Value, header: Option<(&'static str, &'static str)>) -> Value {
    let mut headers = json!({"content-type": "application/json", "cache-control": "no-store"});
    if let Some((name, value)) = header {
        headers[name] = value.into();
    }
    json!({"statusCode": status, "headers": headers, "body": body.to_string(), "isBase64Encoded": false})
}

#[cfg(test)]
mod tests;
