//! What is followed of connections whose services believe only what their ends can have sent (`--check-window`).

use ahash::RandomState;
use hashbrown::HashMap;

use crate::connection::ConnectionId;
use crate::connection::tags::Tags;
use crate::connection::window::Numbers;
use crate::rng::Seed;

/// What tells a packet of a connection's two ends from one that was made up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Followed {
    /// Sequence numbers.
    Tcp(Numbers),
    /// Verification tags.
    Sctp(Tags),
}

/// Beside the connections' records, because most are not followed. There is at most one entry for each connection of the
/// table, whose bound is this one's too.
#[derive(Debug)]
pub(crate) struct FollowedTable {
    entries: HashMap<ConnectionId, Followed, RandomState>,
}

impl FollowedTable {
    pub fn new(seed: Seed) -> Self {
        let word = |part| seed.derive(part).value();
        let state = RandomState::with_seeds(word(0), word(1), word(2), word(3));
        Self { entries: HashMap::with_hasher(state) }
    }

    pub fn insert(&mut self, id: ConnectionId, followed: Followed) {
        self.entries.insert(id, followed);
    }

    pub fn remove(&mut self, id: ConnectionId) {
        self.entries.remove(&id);
    }

    pub fn get(&self, id: ConnectionId) -> Option<&Followed> {
        self.entries.get(&id)
    }

    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Followed> {
        self.entries.get_mut(&id)
    }
}
