//! Owns what is known of the model that is compiled in; no key, no network. Refuses to load it.

use std::time::Duration;

use crate::definition::Definition;
use crate::model::{Catalogue, Model};

pub(super) static PROVIDER: Definition = Definition {
    name: "static",
    server: None,
    // Its tokens are averaged, so its window is where quality ends, not where it fails.
    models: Catalogue {
        default: Model::plain("minilm-static-256", 256, 512),
        others: &[],
        takes_any: false,
    },
    is_own: true,
    request_timeout: Duration::from_secs(30),
};
