//! The Lambda function: wiring only.

use admin::{Admin, router, unconfigured};
use shared::secrets::Secrets;
use shared::startup;

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    let settings = startup::begin().filter(|settings| startup::told(settings.require_web()));
    let app = match settings {
        Some(settings) => router(Admin::new(settings, Secrets::new())),
        None => unconfigured(),
    };
    lambda_http::run(app).await
}
