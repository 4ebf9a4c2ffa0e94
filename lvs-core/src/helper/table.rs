//! What is kept for connections a helper listens to, beside their records: most connections have no helper, so the
//! records stay small. There is at most one entry for each connection of the table, whose bound is this one's too.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use ahash::RandomState;
use hashbrown::HashMap;

use crate::connection::ConnectionId;
use crate::helper::sequence::Counts;
use crate::helper::{Edit, Helper, Notes};
use crate::rng::Seed;
use crate::verdict::Direction;

/// A connection's helper, what it remembers, and how far the two sides' counts are apart.
#[derive(Clone)]
pub(crate) struct Helped {
    pub helper: Arc<dyn Helper>,
    pub notes: Notes,
    pub counts: Counts,
    /// The segment that was changed last, for a helper that repeats itself.
    pub changed: Option<Arc<Changed>>,
    /// Connections announced on it, oldest first: at most as many as may be expected at once. Some may have begun or
    /// ended since.
    pub announced: Vec<ConnectionId>,
}

/// A segment that was changed: which, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Changed {
    pub direction: Direction,
    /// The number its sender gave it.
    pub sequence: u32,
    pub edit: Edit,
    /// What stood there before.
    pub original: Vec<u8>,
}

impl Changed {
    /// `None` if the edit is not inside the payload.
    pub fn new(direction: Direction, sequence: u32, edit: &Edit, payload: &[u8]) -> Option<Self> {
        let original = payload.get(edit.range.clone())?.to_vec();
        Some(Self { direction, sequence, edit: edit.clone(), original })
    }

    /// The same change, if this is the same segment again.
    pub fn again(&self, direction: Direction, sequence: u32, payload: &[u8]) -> Option<Edit> {
        let is_same = (self.direction, self.sequence) == (direction, sequence)
            && payload.get(self.edit.range.clone()) == Some(&self.original[..]);
        is_same.then(|| self.edit.clone())
    }
}

impl Helped {
    pub fn by(helper: Arc<dyn Helper>) -> Self {
        Self { helper, notes: Notes::default(), counts: Counts::default(), changed: None, announced: Vec::new() }
    }
}

impl fmt::Debug for Helped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Helped").field("notes", &self.notes).finish_non_exhaustive()
    }
}

/// The helped connections of one director.
#[derive(Debug)]
pub(crate) struct HelpedTable {
    entries: HashMap<ConnectionId, Helped, RandomState>,
}

impl HelpedTable {
    pub fn new(seed: Seed) -> Self {
        let word = |part| seed.derive(part).value();
        let state = RandomState::with_seeds(word(0), word(1), word(2), word(3));
        Self { entries: HashMap::with_hasher(state) }
    }

    pub fn insert(&mut self, id: ConnectionId, helped: Helped) {
        self.entries.insert(id, helped);
    }

    pub fn remove(&mut self, id: ConnectionId) {
        self.entries.remove(&id);
    }

    pub fn get(&self, id: ConnectionId) -> Option<&Helped> {
        self.entries.get(&id)
    }

    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Helped> {
        self.entries.get_mut(&id)
    }
}
