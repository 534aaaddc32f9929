//! Owns what goes to the writer of a run. Refuses to write it.

use tokio::sync::OwnedSemaphorePermit;

use cronvec_store::charges::Charge;
use cronvec_store::cuts::Recut;
use cronvec_store::suspicions::Suspected;
use cronvec_store::vectors::NewChunk;

/// Something to write.
pub(super) enum Item {
    Chunk(Ready),
    Fault(Charge),
    /// One of its chunks is too long.
    Recut(Recut),
    /// Its text was refused together with others.
    Suspect(Suspected),
    /// The record was deleted; what is left of it goes.
    Gone(String, OwnedSemaphorePermit),
}

pub(super) struct Ready {
    pub chunk: NewChunk,
    /// Its text is announced in its name.
    pub owns_text: bool,
    pub _room: OwnedSemaphorePermit,
    pub _unwritten: Option<OwnedSemaphorePermit>,
}

impl Item {
    pub fn record_id(&self) -> &str {
        match self {
            Self::Chunk(ready) => &ready.chunk.record_id,
            Self::Fault(charge) => &charge.record_id,
            Self::Recut(recut) => &recut.record_id,
            Self::Suspect(suspected) => &suspected.record_id,
            Self::Gone(id, _) => id,
        }
    }
}
