//! The Lambda function: wiring only.

use std::time::Instant;

use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;
use shared::call::{self, CallError, Guard};
use shared::config::Settings;
use shared::secrets::Secrets;
use shared::startup;
use tokio::sync::OnceCell;
use tracing::Instrument;
use vectorization::Worker;

/// What is made once for an instance and borrowed by each call.
struct Function {
    settings: Settings,
    secrets: Secrets,
    guard: Guard,
    /// Made by the first call that may work: starting waits for nobody.
    worker: OnceCell<Worker>,
}

impl Function {
    fn new(settings: Settings) -> Self {
        let secrets = Secrets::new();
        let guard = Guard::new(&settings, secrets.clone());
        Self {
            settings,
            secrets,
            guard,
            worker: OnceCell::new(),
        }
    }

    async fn answer(&self, event: Value, deadline: Instant) -> Result<Value, CallError> {
        let work = async |options, deadline| {
            let worker = self
                .worker
                .get_or_try_init(|| Worker::connect(&self.settings, &self.secrets))
                .await?;
            worker.run(options, deadline).await
        };
        call::answer(event, call::Worker::Vectorization, &self.guard, deadline, work).await
    }
}

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let function = startup::begin().map(Function::new);
    let handler = async |event: LambdaEvent<Value>| {
        let (event, context) = event.into_parts();
        let invocation = tracing::info_span!("invocation", aws.request_id = %context.request_id);
        let outcome = match &function {
            Some(function) => {
                function
                    .answer(event, call::from_epoch_ms(context.deadline))
                    .instrument(invocation)
                    .await
            }
            None => call::refuse(&event, CallError::unread_settings()),
        };
        outcome.map_err(|error| Diagnostic {
            error_type: error.kind().to_owned(),
            error_message: error.to_string(),
        })
    };
    lambda_runtime::run(service_fn(handler)).await
}
