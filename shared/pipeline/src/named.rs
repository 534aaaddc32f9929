//! Owns how a record and its text are named where a job remembers them. Refuses to know why it does.

use serde::{Deserialize, Serialize};

use cronvec_nouns::record::ContentHash;

/// A record by its id and the text that it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub id: String,
    /// Hexadecimal.
    pub hash: String,
}

impl Named {
    pub fn new(id: &str, hash: ContentHash) -> Self {
        Self {
            id: id.to_owned(),
            hash: format!("{:032x}", u128::from_be_bytes(hash.0)),
        }
    }

    pub fn hash(&self) -> Option<ContentHash> {
        u128::from_str_radix(&self.hash, 16)
            .ok()
            .map(|number| ContentHash(number.to_be_bytes()))
    }
}
