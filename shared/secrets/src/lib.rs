//! Owns the way from a secret's source to its value, and whom AWS is asked through. Refuses to know what secrets are for,
//! and how AWS is asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use cronvec_config::{Secret, SecretSource};
use futures::future::BoxFuture;
use tokio::sync::Mutex;

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
    #[error("{arn} is in AWS Secrets Manager, and this program was built without AWS: build it with the feature `aws`")]
    WithoutAws { arn: String },
}

/// What AWS is asked for, with the environment's credentials.
pub trait Aws: Send + Sync {
    /// The value of the secret with this ARN.
    fn secret<'a>(&'a self, arn: &'a str) -> BoxFuture<'a, Result<String, SecretError>>;

    /// A password, good for some minutes, with which an IAM user logs in to a database of RDS.
    fn database_password<'a>(&'a self, login: &'a DatabaseLogin) -> BoxFuture<'a, Result<String, String>>;
}

/// Whom to log in to a database of RDS, and where.
#[derive(Clone, Debug)]
pub struct DatabaseLogin {
    pub region: String,
    pub host: String,
    pub port: u16,
    pub user: String,
}

/// Resolves secrets. Those that come from AWS are kept in memory. Clones share what is kept.
#[derive(Clone)]
pub struct Secrets {
    inner: Arc<Inner>,
}

struct Inner {
    aws: Option<Arc<dyn Aws>>,
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
    pub fn new(aws: Arc<dyn Aws>) -> Self {
        Self::of(Some(aws))
    }

    /// For a program that was built without AWS: a source that is there is refused.
    pub fn without_aws() -> Self {
        Self::of(None)
    }

    fn of(aws: Option<Arc<dyn Aws>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                aws,
                entries: StdMutex::default(),
            }),
        }
    }

    /// Who asks AWS; none in a program that was built without it.
    pub fn aws(&self) -> Option<Arc<dyn Aws>> {
        self.inner.aws.clone()
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
        let Some(aws) = &self.inner.aws else {
            return Err(SecretError::WithoutAws { arn: arn.to_owned() });
        };
        not_empty(arn, &aws.secret(arn).await?)
    }
}

/// What a secret says. One that is empty would match an empty bearer.
pub fn not_empty(arn: &str, text: &str) -> Result<Secret, SecretError> {
    let secret = Secret::new(text);
    match secret.expose().is_empty() {
        true => Err(SecretError::Empty { arn: arn.to_owned() }),
        false => Ok(secret),
    }
}

#[cfg(test)]
extern crate self as cronvec_secrets;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
