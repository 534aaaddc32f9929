//! Owns the asking of AWS Secrets Manager. Refuses to keep what it says.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::Config;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use cronvec_edges::cause::chain;
use cronvec_secrets::SecretError;

/// The value of a secret; empty where it has none.
pub async fn value(client: &Client, arn: &str) -> Result<String, SecretError> {
    let mut request = client.get_secret_value().secret_id(arn).customize();
    // A secret is asked for where it is, which needn't be where we are.
    if let Some(region) = region_of(arn) {
        request = request.config_override(Config::builder().region(Region::new(region.to_owned())));
    }
    let answer = request.send().await.map_err(|error| explain(arn, &error))?;
    Ok(match (answer.secret_string(), answer.secret_binary()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(bytes)) => String::from_utf8(bytes.as_ref().to_vec()).unwrap_or_default(),
        (None, None) => String::new(),
    })
}

/// `arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME`
pub fn region_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(3).filter(|region| !region.is_empty())
}

/// Configured by the environment as every AWS client is, `AWS_ENDPOINT_URL` included. Without a region it goes and looks for
/// one.
pub async fn client(region: Option<&str>) -> Client {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    // Secrets are asked for while a call waits, and a call has a minute at most.
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(2))
        .operation_attempt_timeout(Duration::from_secs(4))
        .operation_timeout(Duration::from_secs(10))
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts);
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    Client::new(&loader.load().await)
}

fn explain<R: std::fmt::Debug + Send + Sync + 'static>(
    arn: &str,
    error: &SdkError<GetSecretValueError, R>,
) -> SecretError {
    let arn = arn.to_owned();
    match error.as_service_error().and_then(ProvideErrorMetadata::code) {
        Some("ResourceNotFoundException") => SecretError::NotFound { arn },
        Some("AccessDeniedException" | "DecryptionFailure") => SecretError::Denied { arn },
        // That is how a secret that is marked for deletion answers.
        Some("InvalidRequestException") => SecretError::Empty { arn },
        Some(code) => SecretError::Unavailable {
            arn,
            message: code.to_owned(),
        },
        None => SecretError::Unavailable {
            arn,
            message: chain(error),
        },
    }
}

#[cfg(test)]
mod tests;
