//! Owns the rotation of the workers' secret: which value is where, in an order that refuses no tick. Refuses to ask whether
//! it is time for one.
//!
//! The one before it gets the current value, then the current one a new value, then each schedule bears the new value. At
//! every point the schedules bear one of the two that are good, and a rotation that broke off is seen by schedules that
//! don't bear the current one.

mod schedules;

use std::time::{Duration, SystemTime};

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{Config, Region};
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use rand::Rng;
use rand::distr::Alphanumeric;

use cronvec_aws::secrets;
use cronvec_config::Secret;
use cronvec_edges::cause::chain;
use cronvec_secrets::{SecretError, not_empty};
use schedules::Schedules;

/// Signs of a new secret, none of which JSON would have to escape.
const LENGTH: usize = 48;
/// A tick that was sent with the one before may still be on its way for as long.
const ON_ITS_WAY: Duration = Duration::from_secs(60);

/// Why a rotation got no further.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{action} of {arn} was refused: {message}")]
    Refused {
        action: &'static str,
        arn: String,
        message: String,
    },
    #[error("{0} is no ARN of a secret in AWS Secrets Manager")]
    NoArn(String),
    #[error("the schedules: {0}")]
    Schedules(String),
}

/// The two secrets of a deployment, and the group of its schedules.
#[derive(Debug)]
pub struct Rotation {
    client: Client,
    schedules: Schedules,
    current: String,
    previous: String,
}

impl Rotation {
    /// Of the secrets with these ARNs. Asks nobody.
    pub async fn new(current: &str, previous: &str, group: &str) -> Result<Self, RotationError> {
        for arn in [current, previous] {
            if !arn.starts_with("arn:") || secrets::region_of(arn).is_none() {
                return Err(RotationError::NoArn(arn.to_owned()));
            }
        }
        let region = secrets::region_of(current).unwrap_or_default();
        let schedules = Schedules::new(region, group).await;
        Ok(Self {
            client: secrets::client(Some(region)).await,
            schedules: schedules.map_err(RotationError::Schedules)?,
            current: current.to_owned(),
            previous: previous.to_owned(),
        })
    }

    /// Lets every schedule bear the current secret; the names of those that bore another.
    pub async fn align(&self) -> Result<Vec<String>, RotationError> {
        let current = self.read(&self.current).await?;
        let aligned = self.schedules.bear(current.expose()).await;
        aligned.map_err(RotationError::Schedules)
    }

    /// How long to wait before the next rotation, so that nothing that bears the one before is still on its way.
    pub async fn wait(&self) -> Result<Duration, RotationError> {
        let asked = self.client.describe_secret().secret_id(&self.previous).customize();
        let answer = asked.config_override(region(&self.previous)).send().await;
        let answer = answer.map_err(|error| refused("secretsmanager:DescribeSecret", &self.previous, &error))?;
        let changed = answer.last_changed_date().and_then(|at| SystemTime::try_from(*at).ok());
        // A clock that is behind theirs sees the future: it waits the full time.
        let ago = changed.map_or(ON_ITS_WAY, |at| at.elapsed().unwrap_or_default());
        Ok(ON_ITS_WAY.saturating_sub(ago))
    }

    /// Makes the current secret the previous one, a new one the current, and lets the schedules bear it; their names.
    pub async fn rotate(&self) -> Result<Vec<String>, RotationError> {
        let current = self.read(&self.current).await?;
        self.write(&self.previous, current.expose()).await?;
        let new: String = rand::rng()
            .sample_iter(Alphanumeric)
            .take(LENGTH)
            .map(char::from)
            .collect();
        self.write(&self.current, &new).await?;
        self.schedules.bear(&new).await.map_err(RotationError::Schedules)
    }

    async fn read(&self, arn: &str) -> Result<Secret, RotationError> {
        Ok(not_empty(arn, &secrets::value(&self.client, arn).await?)?)
    }

    async fn write(&self, arn: &str, value: &str) -> Result<(), RotationError> {
        let put = self.client.put_secret_value().secret_id(arn).secret_string(value);
        let answer = put.customize().config_override(region(arn)).send().await;
        answer
            .map(drop)
            .map_err(|error| refused("secretsmanager:PutSecretValue", arn, &error))
    }
}

fn region(arn: &str) -> aws_sdk_secretsmanager::config::Builder {
    let region = secrets::region_of(arn).unwrap_or_default();
    Config::builder().region(Region::new(region.to_owned()))
}

/// The request is no part of it: it holds the value.
fn refused<E, R>(action: &'static str, arn: &str, error: &SdkError<E, R>) -> RotationError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let said = error.as_service_error().map(|error| {
        let code = error.code().unwrap_or("no code");
        format!("{code}: {}", error.message().unwrap_or("no reason"))
    });
    RotationError::Refused {
        action,
        arn: arn.to_owned(),
        message: said.unwrap_or_else(|| chain(error)),
    }
}
