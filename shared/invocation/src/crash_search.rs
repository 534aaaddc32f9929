//! Owns the search for the item of a job that kills its worker: fewer and fewer are tried, alone, until one is found or all are
//! through. Refuses to know what an item is, and who keeps what is known between two workers.

use serde::{Deserialize, Serialize};

/// So many workers that died with one item in hand, and nothing beside it, are enough.
const ENOUGH: u32 = 3;

/// How fast a search narrows.
#[derive(Clone, Copy, Debug)]
pub struct Narrowing {
    /// The next worker tries one of so many parts of the suspects,
    pub parts: usize,
    /// and so many at most.
    pub most: usize,
}

/// What a job's workers know of the item that kills them. The job must remember it before an item is touched: whoever finds the
/// worker dead goes on from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashSearch {
    /// Items at the head of the line, the culprit among them.
    pub size: usize,
    /// So many of them a worker has in hand, and nothing else beside; 0 for none.
    pub step: usize,
    /// Workers that died with the first of them alone.
    pub alone: u32,
}

impl CrashSearch {
    /// Nothing is known but that one of so many does it.
    pub fn among(size: usize) -> Self {
        Self {
            size,
            ..Self::default()
        }
    }

    /// Takes some in hand.
    #[must_use]
    pub fn trying(self, narrowing: Narrowing) -> Self {
        Self {
            step: (self.size / narrowing.parts).clamp(1, narrowing.most),
            ..self
        }
    }

    /// The worker died with what it had in hand.
    #[must_use]
    pub fn died(self) -> Self {
        match self.step {
            // It only held the job.
            0 => self,
            1 => Self {
                size: 1,
                step: 0,
                alone: self.alone + 1,
            },
            more => Self::among(more),
        }
    }

    /// The first so many are through; nothing is left to suspect if these were all.
    pub fn passed(self, items: usize) -> Option<Self> {
        let size = self.size.saturating_sub(items);
        (size > 0).then_some(Self {
            size,
            step: self.step.saturating_sub(items),
            alone: if items > 0 { 0 } else { self.alone },
        })
    }

    /// One item has killed its worker often enough, with no other beside it.
    pub fn is_found(self) -> bool {
        self.alone >= ENOUGH
    }
}
