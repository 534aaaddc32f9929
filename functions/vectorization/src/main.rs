//! The Lambda function: wiring only.

use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;
use shared::call::{self, Instance};
use tracing::Instrument;
use vectorization::Worker;

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let instance = Instance::begin();
    let handler = async |event: LambdaEvent<Value>| {
        let (event, context) = event.into_parts();
        let invocation = tracing::info_span!(
            "invocation",
            aws.request_id = %context.request_id,
            aws.trace_id = context.xray_trace_id
        );
        let deadline = call::from_epoch_ms(context.deadline);
        instance
            .answer(
                event,
                call::Worker::Vectorization,
                deadline,
                Worker::connect,
                Worker::run,
            )
            .instrument(invocation)
            .await
            .map_err(|error| Diagnostic {
                error_type: error.kind().to_owned(),
                error_message: error.to_string(),
            })
    };
    lambda_runtime::run(service_fn(handler)).await
}
