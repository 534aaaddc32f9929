//! Owns which texts are on their way in this invocation, so that no text is asked for twice. Refuses to outlive it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pgvector::Vector;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use super::writer::{Item, Ready};
use crate::record::ContentHash;
use crate::store::vectors::NewChunk;

/// A chunk that waits for a vector, and where it goes then.
pub(super) struct Waiting {
    pub chunk: NewChunk,
    pub writer: UnboundedSender<Item>,
    /// The room that it takes up until it is written.
    pub room: OwnedSemaphorePermit,
}

enum State {
    /// Asked for: these want the answer, too.
    Asked(Vec<Waiting>),
    /// Answered, and not yet written.
    Answered(Vector),
    /// The space holds it; it is copied from there.
    Stored,
}

/// What became of a text that was announced.
pub(super) enum Announced {
    /// Nobody else asks for it: the caller must.
    Yours(Waiting),
    /// Its chunk is on its way with somebody else's.
    Joined,
}

type Key = (i32, ContentHash);

/// The texts between their reading and their writing, by space.
#[derive(Default)]
pub(super) struct TextsInFlight(Mutex<HashMap<Key, State>>);

impl TextsInFlight {
    /// Announce first, look in the database after: a text that isn't here then was either written, and is found there,
    /// or never asked for.
    pub fn announce(&self, space_id: i32, waiting: Waiting) -> Announced {
        let mut texts = self.lock();
        match texts.get_mut(&(space_id, waiting.chunk.hash)) {
            None => {
                texts.insert((space_id, waiting.chunk.hash), State::Asked(Vec::new()));
                return Announced::Yours(waiting);
            }
            Some(State::Asked(others)) => others.push(waiting),
            Some(State::Answered(vector)) => {
                let vector = vector.clone();
                drop(texts);
                pass_on(waiting, Some(vector), false);
            }
            Some(State::Stored) => {
                drop(texts);
                pass_on(waiting, None, false);
            }
        }
        Announced::Joined
    }

    /// The provider answered: to the writers with it.
    pub fn answered(&self, space_id: i32, waiting: Waiting, vector: Vector) {
        let mut texts = self.lock();
        let before = texts.insert((space_id, waiting.chunk.hash), State::Answered(vector.clone()));
        drop(texts);
        for other in others(before) {
            pass_on(other, Some(vector.clone()), false);
        }
        pass_on(waiting, Some(vector), true);
    }

    /// The space holds it already.
    pub fn found(&self, space_id: i32, waiting: Waiting) {
        let mut texts = self.lock();
        let before = texts.insert((space_id, waiting.chunk.hash), State::Stored);
        drop(texts);
        for other in others(before) {
            pass_on(other, None, false);
        }
        pass_on(waiting, None, true);
    }

    /// It has no vector by its own fault, or wasn't asked for in the end. Returns those that wanted it as well.
    pub fn given_up(&self, space_id: i32, hash: ContentHash) -> Vec<Waiting> {
        let before = self.lock().remove(&(space_id, hash));
        others(before)
    }

    /// Written, or dropped by its writer.
    pub fn settled(&self, space_id: i32, hash: ContentHash) {
        self.lock().remove(&(space_id, hash));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, State>> {
        // Nothing that is done under the lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn others(state: Option<State>) -> Vec<Waiting> {
    match state {
        Some(State::Asked(others)) => others,
        Some(State::Answered(_) | State::Stored) | None => Vec::new(),
    }
}

fn pass_on(waiting: Waiting, vector: Option<Vector>, owns_text: bool) {
    let Waiting {
        mut chunk,
        writer,
        room,
    } = waiting;
    chunk.vector = vector;
    // A writer that is gone has lost its lease; its records stay pending.
    let _ = writer.send(Item::Chunk(Ready {
        chunk,
        owns_text,
        _room: room,
    }));
}
