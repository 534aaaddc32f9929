//! Owns the check of a call's bearer secret. Refuses to say what is wrong with a wrong one.

use std::sync::Once;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::CallError;
use cronvec_config::{AppEnv, Secret, SecretSource, Settings};
use cronvec_secrets::{SecretError, Secrets};

/// Which secret let a call in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorised {
    /// `CRON_SECRET`
    Current,
    /// `CRON_SECRET_PREVIOUS`: a rotation isn't through yet.
    Previous,
    /// None is set, and this is development.
    Unchecked,
}

impl Authorised {
    /// The answer's `authorisedBy`.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Current => Some("current"),
            Self::Previous => Some("previous"),
            Self::Unchecked => None,
        }
    }
}

/// Lets in who bears `CRON_SECRET`, or the one before it.
#[derive(Debug)]
pub struct Guard {
    // Dependencies.
    secrets: Secrets,
    // Configuration.
    app_env: AppEnv,
    current: Option<SecretSource>,
    previous: Option<SecretSource>,
    warned: Once,
}

impl Guard {
    /// A guard over the secrets that the settings name; they are resolved at the first call.
    pub fn new(settings: &Settings, secrets: Secrets) -> Self {
        Self {
            secrets,
            app_env: settings.app_env,
            current: settings.cron_secret.clone(),
            previous: settings.cron_secret_previous.clone(),
            warned: Once::new(),
        }
    }

    /// Whether this bearer may call. Production without a secret lets nobody in, development everybody.
    pub async fn check(&self, bearer: Option<&str>) -> Result<Authorised, CallError> {
        let Some(current) = &self.current else {
            return self.without_secret();
        };
        let bearer = bearer.ok_or(CallError::Unauthorised)?;
        let bearer = digest(bearer);
        let kept = compare(&bearer, self.resolve(current).await?, self.resolve_previous().await);
        if let Some(authorised) = kept {
            return Ok(authorised);
        }
        // The secret may have been rotated since it was read.
        if let Some(authorised) = compare(
            &bearer,
            self.reread(Some(current)).await,
            self.reread(self.previous.as_ref()).await,
        ) {
            return Ok(authorised);
        }
        Err(CallError::Unauthorised)
    }

    fn without_secret(&self) -> Result<Authorised, CallError> {
        match self.app_env {
            AppEnv::Production => Err(CallError::NotConfigured {
                message: "CRON_SECRET is not set; in production no worker answers without it".to_owned(),
            }),
            AppEnv::Development => {
                self.warned.call_once(|| {
                    tracing::warn!("CRON_SECRET is not set: worker calls are not checked, which production refuses");
                });
                Ok(Authorised::Unchecked)
            }
        }
    }

    async fn resolve(&self, source: &SecretSource) -> Result<Option<Secret>, CallError> {
        match self.secrets.resolve(source).await {
            Ok(secret) => Ok(Some(secret)),
            Err(error) => Err(CallError::Dependency {
                message: format!("CRON_SECRET can't be read: {error}"),
            }),
        }
    }

    /// The previous secret is a help in a rotation: when it can't be read, the current one must do.
    async fn resolve_previous(&self) -> Option<Secret> {
        let source = self.previous.as_ref()?;
        self.secrets
            .resolve(source)
            .await
            .map_err(|error| warn_unread("CRON_SECRET_PREVIOUS", &error))
            .ok()
    }

    async fn reread(&self, source: Option<&SecretSource>) -> Option<Secret> {
        let source = source.filter(|source| matches!(source, SecretSource::Arn(_)))?;
        self.secrets
            .reread(source)
            .await
            .map_err(|error| warn_unread("a cron secret", &error))
            .ok()
    }
}

/// Both secrets are compared in any case, by digests of one length: time tells neither which matched nor how far.
fn compare(bearer: &[u8; 32], current: Option<Secret>, previous: Option<Secret>) -> Option<Authorised> {
    let matches =
        |secret: Option<Secret>| secret.map_or(Choice::from(0), |secret| digest(secret.expose()).ct_eq(bearer));
    let (current, previous) = (matches(current), matches(previous));
    if bool::from(current) {
        Some(Authorised::Current)
    } else if bool::from(previous) {
        Some(Authorised::Previous)
    } else {
        None
    }
}

fn warn_unread(name: &str, error: &SecretError) {
    tracing::warn!(secret.name = name, error = %error, "a secret can't be read");
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}
