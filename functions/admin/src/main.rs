//! The Lambda function: wiring only.

use admin::{Admin, SourceAddress, router, unconfigured};
use axum::extract::Request;
use axum::middleware::map_request;
use cronvec_aws::Account;
use cronvec_call::startup;
use cronvec_secrets::Secrets;
use lambda_http::RequestExt;
use lambda_http::request::RequestContext;

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    let settings = startup::begin().filter(|settings| startup::told(settings.require_web()));
    let app = match settings {
        Some(settings) => router(Admin::new(settings, Secrets::new(Account::shared()))),
        None => unconfigured(),
    };
    lambda_http::run(app.layer(map_request(with_source))).await
}

async fn with_source(mut request: Request) -> Request {
    let source = match request.extensions().request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => context.http.source_ip.as_deref(),
        _ => None,
    };
    if let Some(address) = source.and_then(|source| source.parse().ok()) {
        request.extensions_mut().insert(SourceAddress(address));
    }
    request
}
