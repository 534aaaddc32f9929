//! Owns the way from a secret's source to its value, AWS Secrets Manager included. Refuses to know what secrets are for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::Config;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use tokio::sync::{Mutex, OnceCell};

use crate::cause::chain;
use crate::config::{Secret, SecretSource};

/// A caller with a wrong secret can't make us ask more often than this.
const REREAD_EVERY: Duration = Duration::from_secs(30);

/// Why a secret couldn't be had. Names its ARN, never a value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("there is no secret {arn}: check the ARN, its account and its region")]
    NotFound { arn: String },
    #[error(
        "this role may not read the secret {arn}: allow secretsmanager:GetSecretValue on it, and kms:Decrypt on its key"
    )]
    Denied { arn: String },
    #[error("the secret {arn} has no value: store one as plain text, or restore it if it is being deleted")]
    Empty { arn: String },
    #[error(
        "AWS Secrets Manager didn't answer for {arn} ({message}): check credentials, and the way there \
         (a VPC without NAT needs an endpoint for secretsmanager)"
    )]
    Unavailable { arn: String, message: String },
}

/// Resolves secrets. Those that come from AWS are kept in memory; the client is made when the first of them is asked
/// for, so that nobody else waits for it. Clones share what is kept.
#[derive(Clone, Default)]
pub struct Secrets {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    client: OnceCell<Client>,
    /// By ARN. Locked for no longer than it takes to look.
    entries: StdMutex<HashMap<String, Arc<Entry>>>,
}

/// A secret. Nobody who asks for one waits for another.
#[derive(Default)]
struct Entry {
    kept: StdMutex<Option<Secret>>,
    /// Held while it is fetched: who needs a new value meanwhile takes what comes back instead of asking again. When the
    /// last re-reading began, whatever became of it.
    fetching: Mutex<Option<Instant>>,
}

impl Entry {
    fn kept(&self) -> Option<Secret> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, value: &Secret) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(value.clone());
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl Secrets {
    /// Keeps nothing yet and asks nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a client that is configured elsewhere.
    pub fn with_client(client: Client) -> Self {
        Self {
            inner: Arc::new(Inner {
                client: OnceCell::new_with(Some(client)),
                entries: StdMutex::default(),
            }),
        }
    }

    /// The secret's value: what is kept, else what AWS says.
    pub async fn resolve(&self, source: &SecretSource) -> Result<Secret, SecretError> {
        let arn = match source {
            SecretSource::Value(value) => return Ok(Secret::new(value)),
            SecretSource::Arn(arn) => arn,
        };
        let entry = self.entry(arn);
        if let Some(value) = entry.kept() {
            return Ok(value);
        }
        let _fetching = entry.fetching.lock().await;
        if let Some(value) = entry.kept() {
            return Ok(value);
        }
        let value = self.fetch(arn).await?;
        entry.keep(&value);
        Ok(value)
    }

    /// The secret's value after a mismatch: asked for again, at most every 30 seconds for each ARN; in between it is
    /// what is kept.
    pub async fn reread(&self, source: &SecretSource) -> Result<Secret, SecretError> {
        let SecretSource::Arn(arn) = source else {
            return self.resolve(source).await;
        };
        let entry = self.entry(arn);
        let mut reread_at = entry.fetching.lock().await;
        if let Some(value) = entry.kept() {
            if reread_at.is_some_and(|at| at.elapsed() < REREAD_EVERY) {
                return Ok(value);
            }
            *reread_at = Some(Instant::now());
        }
        let value = self.fetch(arn).await?;
        entry.keep(&value);
        *reread_at = Some(Instant::now());
        Ok(value)
    }

    fn entry(&self, arn: &str) -> Arc<Entry> {
        let mut entries = self.inner.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(entries.entry(arn.to_owned()).or_default())
    }

    async fn fetch(&self, arn: &str) -> Result<Secret, SecretError> {
        let client = self.inner.client.get_or_init(client).await;
        let mut request = client.get_secret_value().secret_id(arn).customize();
        // A secret is asked for where it is, which needn't be where we are.
        if let Some(region) = region_of(arn) {
            request = request.config_override(Config::builder().region(Region::new(region.to_owned())));
        }
        let answer = request.send().await.map_err(|error| explain(arn, &error))?;
        let text = match (answer.secret_string(), answer.secret_binary()) {
            (Some(text), _) => text.to_owned(),
            (None, Some(bytes)) => String::from_utf8(bytes.as_ref().to_vec()).unwrap_or_default(),
            (None, None) => String::new(),
        };
        let secret = Secret::new(&text);
        // An empty secret would match an empty bearer.
        if secret.expose().is_empty() {
            Err(SecretError::Empty { arn: arn.to_owned() })
        } else {
            Ok(secret)
        }
    }
}

/// `arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME`
pub(crate) fn region_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(3).filter(|region| !region.is_empty())
}

async fn client() -> Client {
    client_in(None).await
}

/// Configured by the environment as every AWS client is, `AWS_ENDPOINT_URL` included. Without a region it goes and looks for
/// one.
pub(crate) async fn client_in(region: Option<&str>) -> Client {
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
pub(crate) mod tests;
