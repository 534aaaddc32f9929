//! Owns which spaces this program can serve, and by which provider. Refuses to guess: a space whose provider isn't
//! configured here is left alone, and said so.

use std::sync::Arc;

use cronvec_config::{Embedding, SecretSource};
use cronvec_nouns::space::{ProviderKind, Space, SpaceSpec};
use cronvec_provider::{Connection, Failure, Provider};
use cronvec_secrets::{SecretError, Secrets};
use cronvec_store::claim::Servable;
use cronvec_store::{Store, StoreError};

/// Why a space can't be served here.
#[derive(Debug, thiserror::Error)]
pub enum Unserved {
    #[error("its provider '{0}' isn't configured here")]
    NotConfigured(ProviderKind),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{0}")]
    Misconfigured(Failure),
}

/// The provider of a space, as this program's settings reach it.
pub async fn provider(spec: &SpaceSpec, settings: &Embedding, secrets: &Secrets) -> Result<Provider, Unserved> {
    let connection = match settings.providers.get(spec.provider) {
        None => Connection::InProcess,
        Some(reached) => {
            if !reached.is_set && settings.new_space.provider != spec.provider {
                return Err(Unserved::NotConfigured(spec.provider));
            }
            Connection::Http {
                base_url: reached.base_url.clone(),
                api_key: key(reached.api_key.as_ref(), secrets).await?,
            }
        }
    };
    Provider::new(spec.clone(), connection).map_err(Unserved::Misconfigured)
}

async fn key(source: Option<&SecretSource>, secrets: &Secrets) -> Result<Option<String>, SecretError> {
    match source {
        Some(source) => Ok(Some(secrets.resolve(source).await?.expose().to_owned())),
        None => Ok(None),
    }
}

/// A space and the provider that fills it.
#[derive(Clone)]
pub struct Served {
    pub space: Space,
    pub provider: Arc<Provider>,
}

/// All spaces that can be served here.
#[derive(Clone, Default)]
pub struct ServedSpaces(Vec<Served>);

impl ServedSpaces {
    /// Those of the database's spaces that the settings have a provider for. The others are left alone, and named.
    pub async fn load(store: &Store, settings: &Embedding, secrets: &Secrets) -> Result<Self, StoreError> {
        let mut served = Vec::new();
        for space in store.spaces().await? {
            match provider(&space.spec, settings, secrets).await {
                Ok(provider) => served.push(Served {
                    space,
                    provider: Arc::new(provider),
                }),
                Err(reason) => {
                    tracing::warn!(
                        space.id = space.id, space.model = space.spec.model, reason = %reason, "a space is not served here"
                    );
                }
            }
        }
        Ok(Self(served))
    }

    pub fn get(&self, space_id: i32) -> Option<&Served> {
        self.0.iter().find(|served| served.space.id == space_id)
    }

    pub fn all(&self) -> &[Served] {
        &self.0
    }

    /// As a claim wants to know them.
    pub fn servable(&self) -> Vec<Servable> {
        self.0
            .iter()
            .map(|served| Servable {
                space_id: served.space.id,
                endpoint: served.provider.endpoint().to_owned(),
            })
            .collect()
    }

    pub fn ids(&self) -> Vec<i32> {
        self.0.iter().map(|served| served.space.id).collect()
    }
}
