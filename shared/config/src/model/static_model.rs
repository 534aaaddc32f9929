//! Owns what is known of the model that is compiled in. Refuses to load it.

use super::{Catalogue, Model};

/// Its tokens are averaged, so its window is where quality ends, not where it fails.
pub(super) static CATALOGUE: Catalogue = Catalogue {
    default: Model::plain("minilm-static-256", 256, 512),
    others: &[],
    takes_any: false,
};
