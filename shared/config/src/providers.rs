//! Owns how each provider is reached: addresses and keys, as the registry names their settings. Refuses to know one
//! provider from another.

use cronvec_nouns::definition::{Key, NeededAt, Server};
use cronvec_nouns::space::ProviderKind;
use url::{Host, Url};

use super::reader::Reader;
use super::{SecretSource, secret};

/// How to reach the providers that are asked over HTTP.
#[derive(Clone, Debug)]
pub struct Providers(Vec<Reached>);

/// How to reach one of them.
#[derive(Clone, Debug)]
pub struct Reached {
    pub provider: ProviderKind,
    /// Its key; a server of its shape may need none.
    pub api_key: Option<SecretSource>,
    /// Its address, without a slash at its end.
    pub base_url: String,
    /// Its key is set, or the address of one without keys: spaces of it are served here though new ones are another
    /// provider's.
    pub is_set: bool,
}

impl Providers {
    pub(super) fn read(reader: &mut Reader<'_>, chosen: ProviderKind) -> Self {
        let read = servers().map(|(provider, server)| Reached::read(reader, provider, server, provider == chosen));
        Self(read.collect())
    }

    /// None of a provider that runs in this process.
    pub fn get(&self, provider: ProviderKind) -> Option<&Reached> {
        self.0.iter().find(|reached| reached.provider == provider)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, provider: ProviderKind) -> Option<&mut Reached> {
        self.0.iter_mut().find(|reached| reached.provider == provider)
    }

    pub(super) fn describe(&self, rows: &mut Vec<(&'static str, String)>) {
        for ((_, server), reached) in servers().zip(&self.0) {
            if let Some(key) = &server.key {
                rows.push(secret::row(key.variable, key.arn_variable, reached.api_key.as_ref()));
            }
            rows.push((server.url_variable, reached.base_url.clone()));
        }
    }
}

/// Those of the registry that are asked over HTTP.
fn servers() -> impl Iterator<Item = (ProviderKind, &'static Server)> {
    ProviderKind::ALL
        .into_iter()
        .filter_map(|provider| Some((provider, provider.definition().server.as_ref()?)))
}

impl Reached {
    fn read(reader: &mut Reader<'_>, provider: ProviderKind, server: &Server, is_chosen: bool) -> Self {
        let key = server.key.as_ref();
        let api_key = key.and_then(|key| reader.secret_named(key.variable, key.arn_variable));
        let base_url = reader.base_url(server.url_variable, server.default_url);
        let is_set = match key {
            Some(_) => api_key.is_some(),
            None => reader.text(server.url_variable).is_some(),
        };
        if let Some(key) = key.filter(|key| is_chosen && !is_set && is_needed(key, server, &base_url)) {
            reader.problem(key.variable, key.missing);
        }
        Self {
            provider,
            api_key,
            base_url,
            is_set,
        }
    }
}

fn is_needed(key: &Key, server: &Server, base_url: &str) -> bool {
    match key.needed {
        NeededAt::Host(suffix) => {
            let url = Url::parse(base_url);
            matches!(url.as_ref().ok().and_then(Url::host), Some(Host::Domain(name)) if name.ends_with(suffix))
        }
        NeededAt::DefaultUrl => base_url == server.default_url,
    }
}
