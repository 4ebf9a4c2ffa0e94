//! What a director keeps for FullNAT: the pool of local ports, and what each connection translates besides addresses.

use crate::client_group::ClientGroups;
use crate::connection::{Connection, ConnectionId};
use crate::forward::full_nat::sequence::Translation;
use crate::local_address::{LocalAddressPool, LocalPorts};
use crate::rng::Seed;
use crate::time::Instant;
use ahash::RandomState;
use hashbrown::HashMap;

/// What a director keeps for FullNAT.
#[derive(Debug)]
pub(in crate::director) struct FullNat {
    pub pool: LocalAddressPool,
    /// Beside the connection table, so that other connections do not pay for it; at most one for each connection.
    pub translations: HashMap<ConnectionId, Translation, RandomState>,
    /// Keys the initial sequence numbers.
    pub isn_key: (u64, u64),
    pub client_addresses_omitted: u64,
}

impl FullNat {
    pub fn new(config: LocalPorts, groups: ClientGroups, seed: Seed) -> Self {
        let word = |n| seed.derive(n).value();
        Self {
            pool: LocalAddressPool::new(config, groups, seed.derive(0)),
            translations: HashMap::with_hasher(RandomState::with_seeds(word(1), word(2), word(3), word(4))),
            isn_key: (word(5), word(6)),
            client_addresses_omitted: 0,
        }
    }

    /// What a connection translates besides addresses and ports.
    pub fn translation(&self, id: ConnectionId) -> Option<Translation> {
        self.translations.get(&id).copied()
    }

    /// A connection has ended.
    pub fn release(&mut self, now: Instant, id: ConnectionId, connection: &Connection) {
        let Some(local) = connection.local else { return };
        self.pool.release(now, connection.protocol, connection.real, local, connection.client.address);
        self.translations.remove(&id);
    }
}
