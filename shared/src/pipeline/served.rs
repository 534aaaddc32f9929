//! Owns which spaces this program can serve, and by which provider. Refuses to guess: a space whose provider isn't
//! configured here is left alone, and said so.

use std::sync::Arc;

use crate::provider::Provider;
use crate::space::Space;
use crate::store::claim::Servable;

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
    pub fn new(served: Vec<Served>) -> Self {
        Self(served)
    }

    pub fn get(&self, space_id: i32) -> Option<&Served> {
        self.0.iter().find(|served| served.space.id == space_id)
    }

    /// As a claim wants to know them.
    pub fn servable(&self) -> Vec<Servable> {
        self.0
            .iter()
            .map(|served| Servable { space_id: served.space.id, endpoint: served.provider.endpoint().to_owned() })
            .collect()
    }

    pub fn ids(&self) -> Vec<i32> {
        self.0.iter().map(|served| served.space.id).collect()
    }
}
