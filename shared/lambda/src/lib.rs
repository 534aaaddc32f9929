//! A worker as a Lambda function: the runtime's events in, answers out. Refuses to know which worker.

use cronvec_aws::Account;
use cronvec_call::{self as call, Instance, Work};
use cronvec_secrets::Secrets;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;
use tracing::Instrument;

pub use lambda_runtime::Error;

/// Answers the runtime's events for as long as the process lives.
pub async fn run<W: Work>() -> Result<(), Error> {
    let instance = Instance::<W>::begin(Secrets::new(Account::shared()));
    let handler = async |event: LambdaEvent<Value>| {
        let (event, context) = event.into_parts();
        let invocation = tracing::info_span!(
            "invocation",
            aws.request_id = %context.request_id,
            aws.trace_id = context.xray_trace_id
        );
        let deadline = call::from_epoch_ms(context.deadline);
        let answer = instance.answer(event, deadline).instrument(invocation).await;
        answer.map_err(|error| Diagnostic {
            error_type: error.kind().to_owned(),
            error_message: error.to_string(),
        })
    };
    lambda_runtime::run(service_fn(handler)).await
}
