//! A function that does what its event says, to test the emulated Lambda runtime with.

use std::time::Duration;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Error> {
    if std::env::var_os("REFUSE").is_some() {
        return Err("no settings".into());
    }
    run(service_fn(answer)).await
}

async fn answer(event: LambdaEvent<Value>) -> Result<Value, Error> {
    if let Some(code) = event.payload["exit"].as_i64() {
        eprintln!("exiting");
        std::process::exit(i32::try_from(code)?);
    }
    if let Some(message) = event.payload["fail"].as_str() {
        return Err(message.into());
    }
    if let Some(sleep) = event.payload["sleepMs"].as_u64() {
        tokio::time::sleep(Duration::from_millis(sleep)).await;
    }
    let left = event
        .context
        .deadline()
        .duration_since(std::time::SystemTime::now())
        .unwrap_or_default();
    Ok(json!({"event": event.payload, "leftMs": u64::try_from(left.as_millis())?, "pid": std::process::id()}))
}
