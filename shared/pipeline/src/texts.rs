//! Owns which texts are on their way in this invocation, so that no text is asked for twice. Refuses to outlive it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use super::item::{Item, Ready};
use cronvec_nouns::record::ContentHash;
use cronvec_store::vectors::NewChunk;

/// A chunk that waits for a vector, and where it goes then.
pub(super) struct Waiting {
    pub chunk: NewChunk,
    pub writer: UnboundedSender<Item>,
    /// The room that it takes up until it is written.
    pub room: OwnedSemaphorePermit,
    /// From when it is asked for, where that is bounded.
    pub unwritten: Option<OwnedSemaphorePermit>,
}

/// A text that must be asked for. Dropped unanswered, however that comes about, it lets go of those that wait with it:
/// their records stay pending.
pub(super) struct Asking {
    waiting: Option<Waiting>,
    key: Key,
    texts: Arc<TextsInFlight>,
}

impl Asking {
    pub fn content(&self) -> &str {
        self.waiting.as_ref().map_or("", |waiting| &waiting.chunk.content)
    }

    pub fn is_cut_smaller(&self) -> bool {
        self.waiting
            .as_ref()
            .is_some_and(|waiting| waiting.chunk.is_cut_smaller)
    }

    pub fn hash(&self) -> ContentHash {
        self.key.1
    }

    /// Says something to the writers of all that want this text, each about its own chunk.
    pub fn tell(&self, item: impl Fn(&NewChunk) -> Item) {
        let say = |waiting: &Waiting| {
            // A writer that is gone has lost its lease; its records stay pending.
            let _ = waiting.writer.send(item(&waiting.chunk));
        };
        self.waiting.iter().for_each(say);
        if let Some(State::Asked(others)) = self.texts.lock().get(&self.key) {
            others.iter().for_each(say);
        }
    }

    pub fn record_id(&self) -> &str {
        self.waiting.as_ref().map_or("", |waiting| &waiting.chunk.record_id)
    }

    /// Until it is written, or given up.
    pub fn hold(&mut self, unwritten: Option<OwnedSemaphorePermit>) {
        if let Some(waiting) = &mut self.waiting {
            waiting.unwritten = unwritten;
        }
    }

    /// The provider answered: to the writers with it.
    pub fn answered(mut self, vector: Vec<f32>) {
        let vector = Arc::new(vector);
        self.resolve(State::Answered(Arc::clone(&vector)), Some(vector));
    }

    /// The space holds it already.
    pub fn found(mut self) {
        self.resolve(State::Stored, None);
    }

    /// It has no vector by its own fault. Returns all that wanted it.
    pub fn given_up(mut self) -> Vec<Waiting> {
        let mut all = others(self.texts.lock().remove(&self.key));
        all.extend(self.waiting.take());
        all
    }

    fn resolve(&mut self, state: State, vector: Option<Arc<Vec<f32>>>) {
        let Some(waiting) = self.waiting.take() else { return };
        let before = self.texts.lock().insert(self.key, state);
        for other in others(before) {
            pass_on(other, vector.clone(), false);
        }
        pass_on(waiting, vector, true);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.waiting.is_some() {
            drop(others(self.texts.lock().remove(&self.key)));
        }
    }
}

enum State {
    /// Asked for: these want the answer, too.
    Asked(Vec<Waiting>),
    /// Answered, and not yet written.
    Answered(Arc<Vec<f32>>),
    /// The space holds it; it is copied from there.
    Stored,
}

/// What became of a text that was announced.
pub(super) enum Announced {
    /// Nobody else asks for it: the caller must.
    Yours(Asking),
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
    pub fn announce(self: &Arc<Self>, space_id: i32, waiting: Waiting) -> Announced {
        let mut texts = self.lock();
        let key = (space_id, waiting.chunk.hash);
        let state = match texts.entry(key) {
            Entry::Vacant(unasked) => {
                unasked.insert(State::Asked(Vec::new()));
                return Announced::Yours(Asking {
                    waiting: Some(waiting),
                    key,
                    texts: Arc::clone(self),
                });
            }
            Entry::Occupied(state) => state.into_mut(),
        };
        let vector = match state {
            State::Asked(others) => {
                others.push(waiting);
                return Announced::Joined;
            }
            State::Answered(vector) => Some(Arc::clone(vector)),
            State::Stored => None,
        };
        drop(texts);
        pass_on(waiting, vector, false);
        Announced::Joined
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

fn pass_on(waiting: Waiting, vector: Option<Arc<Vec<f32>>>, owns_text: bool) {
    let Waiting {
        mut chunk,
        writer,
        room,
        unwritten,
    } = waiting;
    chunk.vector = vector;
    // A writer that is gone has lost its lease; its records stay pending.
    let _ = writer.send(Item::Chunk(Ready {
        chunk,
        owns_text,
        _room: room,
        _unwritten: unwritten,
    }));
}
