//! Owns what a provider's definition says: its name, its settings, its models, its key. Refuses to know what a request or
//! an answer looks like.

use std::time::Duration;

use crate::model::Catalogue;

/// All that is known of a provider without asking it.
pub struct Definition {
    /// As `EMBEDDING_PROVIDER` and the database have it: the name of its variant of `ProviderKind`, in lower case.
    pub name: &'static str,
    /// Where it is asked over HTTP; none for a model that runs in this process.
    pub server: Option<Server>,
    pub models: Catalogue,
    /// Whether it runs on machines of one's own: a model without a price costs nothing then.
    pub is_own: bool,
    /// How long a request may take where `EMBEDDING_REQUEST_TIMEOUT` doesn't say otherwise.
    pub request_timeout: Duration,
}

/// Where a provider is asked, and the settings that say so.
pub struct Server {
    /// The variable of its address.
    pub url_variable: &'static str,
    /// The address where none is set, without a slash at its end.
    pub default_url: &'static str,
    /// None where it asks for no key.
    pub key: Option<Key>,
}

/// A key: where it comes from, and how it is sent.
pub struct Key {
    /// The variable of the secret itself.
    pub variable: &'static str,
    /// The variable of the ARN of a secret in AWS Secrets Manager.
    pub arn_variable: &'static str,
    /// Where nobody is answered without it; a server of the same shape elsewhere may need none.
    pub needed: NeededAt,
    /// What to say where it is needed and not set.
    pub missing: &'static str,
    /// The header that carries it, in lower case.
    pub header: &'static str,
    /// What stands before it there.
    pub prefix: &'static str,
}

/// Addresses at which a key is needed.
pub enum NeededAt {
    /// Those of a host whose name ends so.
    Host(&'static str),
    /// The default one, to the letter.
    DefaultUrl,
}
