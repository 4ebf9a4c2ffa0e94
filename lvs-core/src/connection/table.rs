//! Which connection a packet belongs to, from either side, and how many there may be.
//! Decides by key and time only: one whose deadline has passed is dead to every lookup, removed or not.
//!
//! Linux hashes a connection once, by protocol and client endpoint, and so finds it from both sides: a request carries
//! the client as its source, a reply as its destination. FullNAT replies do not carry the client; those connections
//! have a second entry, by protocol, real and local endpoint.

mod making_room;

use core::hash::{BuildHasher, Hasher};
use core::net::IpAddr;
use core::time::Duration;

use ahash::RandomState;

use crate::client_group::ClientGroups;
use crate::connection::index::HashIndex;
use crate::connection::newcomer::Newcomers;
use crate::connection::store::{Store, Tenant};
use crate::connection::{Connection, ConnectionId, State, Talk};
use crate::flow::{Endpoint, Protocol};
use crate::reserve::Refused;
use crate::rng::Seed;
use crate::service::ForwardMethod;
use crate::time::Instant;
use crate::verdict::Direction;

/// The connections of one director. All memory is reserved at creation, and no verb allocates.
pub(crate) struct ConnectionTable {
    store: Store<Connection>,
    /// Two nodes a connection: [`by_client`] and [`by_local`].
    index: HashIndex,
    hasher: RandomState,
    per_client_endpoint_max: u32,
    /// Connections whose client port is not known yet; without any, the second lookup is saved.
    no_client_port_count: u32,
    newcomers: Newcomers,
    groups: ClientGroups,
}

/// Why a connection was not inserted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TableFull {
    /// As many connections as the table holds, those included that have ended and were not removed yet.
    Capacity,
    /// As many live connections of this client endpoint as one may have (they share one hash).
    ClientEndpoint,
}

impl ConnectionTable {
    /// A table for `capacity` connections (at most 2³¹ − 1), of which one protocol and client endpoint may have
    /// `per_client_endpoint_max`. The seed keys the hash, so that strangers cannot aim at one chain. By `groups` those
    /// who hold local ports are told apart.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn try_new(
        capacity: u32,
        per_client_endpoint_max: u32,
        groups: ClientGroups,
        seed: Seed,
    ) -> Result<Self, Refused> {
        let capacity = capacity.min(u32::MAX / 2);
        let key = |part| seed.derive(part).value();
        Ok(Self {
            store: Store::try_new(capacity)?,
            index: HashIndex::try_new(2 * capacity, capacity)?,
            hasher: RandomState::with_seeds(key(0), key(1), key(2), key(3)),
            per_client_endpoint_max,
            no_client_port_count: 0,
            newcomers: Newcomers::try_new(capacity, seed.derive(4))?,
            groups,
        })
    }

    /// The same for tests.
    #[cfg(test)]
    pub(crate) fn new(capacity: u32, per_client_endpoint_max: u32, groups: ClientGroups, seed: Seed) -> Self {
        let table = Self::try_new(capacity, per_client_endpoint_max, groups, seed);
        table.unwrap_or_else(|Refused| panic!("there is no memory for a table"))
    }

    /// How many bytes a table for so many connections takes.
    pub(crate) fn bytes(capacity: u32) -> u64 {
        let capacity = capacity.min(u32::MAX / 2);
        Store::<Connection>::bytes(capacity) + HashIndex::bytes(2 * capacity, capacity) + Newcomers::bytes(capacity)
    }

    /// The hash under which a flow is found, from its protocol and client endpoint: the source of a request, the
    /// destination of a reply.
    #[inline]
    pub(crate) fn hash_request(&self, protocol: Protocol, client: Endpoint) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        write_endpoint(&mut hasher, protocol, client);
        hasher.finish()
    }

    /// Reads the part of the index a lookup with this hash begins with, so that it is in the cache when a batch comes
    /// to its lookups. The answer only keeps the read from being left out.
    #[inline]
    pub(crate) fn touch_index(&self, hash: u64) -> u32 {
        self.index.touch(hash)
    }

    /// Reads the parts of a record a packet will need, if there is one with this hash; what of them is returned only
    /// keeps the reads from being left out. Comes some time after [`ConnectionTable::touch_index`].
    #[inline]
    pub(crate) fn touch_record(&self, hash: u64) -> Option<(Instant, u64)> {
        let node = self.index.first(hash)?;
        let (_, connection) = self.store.at(node / 2)?;
        Some((connection.deadline, connection.in_packets))
    }

    /// The newest connection whose client has this hash, if that is how it is filed. It may be somebody else's, and it
    /// may have ended.
    #[inline]
    pub(crate) fn newest(&self, hash: u64) -> Option<(ConnectionId, &Connection)> {
        let node = self.index.first(hash)?;
        let (handle, connection) = self.store.at(node / 2)?;
        (node == by_client(node / 2)).then_some((ConnectionId(handle), connection))
    }

    /// The same of a FullNAT connection whose server and local endpoint have this hash together.
    #[inline]
    pub(crate) fn newest_full_nat(&self, hash: u64) -> Option<(ConnectionId, &Connection)> {
        let node = self.index.first(hash)?;
        let (handle, connection) = self.store.at(node / 2)?;
        (node == by_local(node / 2)).then_some((ConnectionId(handle), connection))
    }

    /// Whether there are connections whose client port is not known yet.
    #[inline]
    pub(crate) fn awaits_client_ports(&self) -> bool {
        self.no_client_port_count > 0
    }

    /// The live connection of a packet from `client` to `virtual_endpoint`.
    ///
    /// An older connection with the same key may still be there until its end comes up; the newer one is found.
    pub(crate) fn find_request(
        &self,
        now: Instant,
        protocol: Protocol,
        client: Endpoint,
        virtual_endpoint: Endpoint,
    ) -> Option<ConnectionId> {
        let found = self.find_exactly(now, protocol, client, virtual_endpoint);
        if found.is_none() && self.no_client_port_count > 0 {
            return self.find_exactly(now, protocol, Endpoint::new(client.address, 0), virtual_endpoint);
        }
        found
    }

    /// The same by the whole client endpoint; port 0 is a port that is not known yet.
    pub(crate) fn find_exactly(
        &self,
        now: Instant,
        protocol: Protocol,
        client: Endpoint,
        virtual_endpoint: Endpoint,
    ) -> Option<ConnectionId> {
        self.find(self.hash_request(protocol, client), now, by_client(0), |connection| {
            connection.protocol == protocol
                && connection.client == client
                && connection.virtual_endpoint == virtual_endpoint
                && connection.no_client_port == (client.port == 0)
        })
    }

    /// The live connection of a packet from `source`, a server's side, to `client`. The source is the real server where
    /// addresses are translated, and the virtual endpoint with the other methods. FullNAT connections are not found.
    pub(crate) fn find_reply(
        &self,
        now: Instant,
        protocol: Protocol,
        source: Endpoint,
        client: Endpoint,
    ) -> Option<ConnectionId> {
        let hash = self.hash_request(protocol, client);
        self.find(hash, now, by_client(0), |connection| {
            let answers_as = match connection.forward {
                ForwardMethod::Nat => connection.real,
                ForwardMethod::FullNat => return false,
                _ => connection.virtual_endpoint,
            };
            connection.protocol == protocol && connection.client == client && answers_as == source
        })
    }

    /// The live FullNAT connection of a packet from the real server `source` to the director's own `local` endpoint.
    pub(crate) fn find_full_nat_reply(
        &self,
        now: Instant,
        protocol: Protocol,
        source: Endpoint,
        local: Endpoint,
    ) -> Option<ConnectionId> {
        self.find(self.hash_full_nat_reply(protocol, source, local), now, by_local(0), |connection| {
            connection.protocol == protocol && connection.real == source && connection.local == Some(local)
        })
    }

    /// Adds a connection that ends its `timeout` after `now`; what its `deadline` said is overwritten.
    /// It is found before an older one with the same key. On `Err` nothing has changed.
    pub(crate) fn insert(&mut self, now: Instant, connection: Connection) -> Result<ConnectionId, TableFull> {
        let deadline = now + connection.timeout;
        self.insert_until(now, connection, deadline)
    }

    /// The same of a connection that ends at `deadline`, unless a packet comes.
    pub(crate) fn insert_until(
        &mut self,
        now: Instant,
        mut connection: Connection,
        deadline: Instant,
    ) -> Result<ConnectionId, TableFull> {
        if let Some(full) = self.would_refuse(now, &connection) {
            return Err(full);
        }
        let hash = self.hash_request(connection.protocol, connection.client);
        connection.deadline = deadline;
        let full_nat =
            connection.local.map(|local| self.hash_full_nat_reply(connection.protocol, connection.real, local));
        self.no_client_port_count += u32::from(connection.no_client_port);
        self.mark_both_ways(&connection);
        let handle = self.store.insert(connection).ok_or(TableFull::Capacity)?;
        self.refile(handle.index);
        self.index.insert(by_client(handle.index), hash);
        if let Some(hash) = full_nat {
            self.index.insert(by_local(handle.index), hash);
        }
        Ok(ConnectionId(handle))
    }

    /// Why `insert` would refuse this connection now.
    pub(crate) fn would_refuse(&self, now: Instant, connection: &Connection) -> Option<TableFull> {
        if self.is_full() {
            return Some(TableFull::Capacity);
        }
        let hash = self.hash_request(connection.protocol, connection.client);
        self.has_too_many(hash, now, (connection.protocol, connection.client)).then_some(TableFull::ClientEndpoint)
    }

    /// Whether every place is taken.
    pub(crate) fn is_full(&self) -> bool {
        self.store.len() == self.store.capacity()
    }

    /// Whether a client endpoint has as many live connections as it may have.
    pub(crate) fn is_full_for(&self, now: Instant, protocol: Protocol, client: Endpoint) -> bool {
        self.has_too_many(self.hash_request(protocol, client), now, (protocol, client))
    }

    /// Removes a connection; `None` if it is gone.
    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.store.remove(id.0)?;
        let owner = self.owner(&connection);
        self.newcomers.set(id.0.index, None, owner);
        self.index.remove(by_client(id.0.index));
        if connection.local.is_some() {
            self.index.remove(by_local(id.0.index));
        }
        self.no_client_port_count -= u32::from(connection.no_client_port);
        Some(connection)
    }

    /// Fills in the client's port, now that it is known (FTP passive data), and files the connection anew.
    /// Returns whether it is still there. That the client endpoint may have one more is for the caller to see to
    /// ([`ConnectionTable::is_full_for`]).
    pub(crate) fn set_client_port(&mut self, id: ConnectionId, port: u16) -> bool {
        let Some(connection) = self.store.get_mut(id.0) else { return false };
        self.no_client_port_count -= u32::from(connection.no_client_port);
        connection.no_client_port = false;
        connection.client.port = port;
        let (protocol, client) = (connection.protocol, connection.client);
        let renamed = connection.clone();
        self.mark_both_ways(&renamed);
        self.index.remove(by_client(id.0.index));
        self.index.insert(by_client(id.0.index), self.hash_request(protocol, client));
        true
    }

    /// Marks the connections whose requests will also be replies of this one: its server asks its client.
    fn mark_both_ways(&mut self, connection: &Connection) {
        let (asks, asked) = match connection.forward {
            ForwardMethod::Nat => (connection.real, connection.client),
            ForwardMethod::FullNat => (connection.real, connection.local.unwrap_or(connection.client)),
            _ => (connection.virtual_endpoint, connection.client),
        };
        let hash = self.hash_request(connection.protocol, asks);
        let mut next = self.index.first(hash);
        while let Some(node) = next {
            if let Some((handle, known)) = self.store.at(node / 2) {
                if node == by_client(node / 2)
                    && (known.protocol, known.client, known.virtual_endpoint) == (connection.protocol, asks, asked)
                {
                    if let Some(known) = self.store.get_mut(handle) {
                        known.both_ways = true;
                    }
                }
            }
            next = self.index.after(node, hash);
        }
    }

    /// The connection, unless it is gone. It may have ended: see its `deadline`.
    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.store.get(id.0)
    }

    /// The connection, unless it is gone. The fields of its key, its state and its timer are not for the caller to
    /// write.
    pub(crate) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.store.get_mut(id.0)
    }

    /// The same, with its timer.
    #[inline]
    pub(crate) fn tenant(&mut self, id: ConnectionId) -> Option<Tenant<'_, Connection>> {
        self.store.tenant(id.0)
    }

    /// Moves a connection to its next state. Returns whether it is still there.
    pub(crate) fn set_state(&mut self, id: ConnectionId, state: State) -> bool {
        let Some(connection) = self.store.get_mut(id.0) else { return false };
        if core::mem::replace(&mut connection.state, state) != state {
            self.refile(id.0.index);
        }
        true
    }

    /// A packet of the connection has come from this side. Returns whether it was only expected until now.
    pub(crate) fn heard(&mut self, id: ConnectionId, direction: Direction) -> bool {
        let Some(connection) = self.store.get_mut(id.0) else { return false };
        let talk = match (direction, connection.talk) {
            (Direction::Reply, Talk::Asked) => Talk::Answered,
            (Direction::Request, Talk::Answered) => Talk::Mutual,
            (_, talk) => talk,
        };
        let was_expected = core::mem::replace(&mut connection.is_expected, false);
        if core::mem::replace(&mut connection.talk, talk) != talk || was_expected {
            self.refile(id.0.index);
        }
        was_expected
    }

    /// One more connection hangs on this one.
    pub(crate) fn adopt(&mut self, id: ConnectionId) {
        if let Some(connection) = self.store.get_mut(id.0) {
            connection.children += 1;
            self.refile(id.0.index);
        }
    }

    /// One that hung on this one has ended. Returns how many are left; `None` if this one is gone.
    pub(crate) fn disown(&mut self, id: ConnectionId) -> Option<u32> {
        let connection = self.store.get_mut(id.0)?;
        connection.children -= 1;
        let left = connection.children;
        self.refile(id.0.index);
        Some(left)
    }

    /// Restarts a connection's timer with this timeout. Returns whether it is still there.
    pub(crate) fn rearm(&mut self, id: ConnectionId, now: Instant, timeout: Duration) -> bool {
        self.store.rearm(id.0, now, timeout)
    }

    /// Ends a connection now: no packet finds it any more, and it comes up next. Its timeout stays as it is.
    /// Returns whether it is still there.
    pub(crate) fn expire_now(&mut self, id: ConnectionId, now: Instant) -> bool {
        self.store.expire_now(id.0, now)
    }

    /// The next connection that has ended; the caller removes it or, if it has children, restarts its timer.
    /// Each step costs one unit of `budget`; `None` if nothing has ended or the budget ran out.
    pub(crate) fn pop_expired(&mut self, now: Instant, budget: &mut u32) -> Option<ConnectionId> {
        self.store.pop_expired(now, budget).map(ConnectionId)
    }

    /// Whether any connection in the table may have ended: `false` promises that none has, to the nanosecond.
    pub(crate) fn may_have_expired(&self, now: Instant) -> bool {
        self.store.may_have_expired(now)
    }

    /// When to call [`ConnectionTable::pop_expired`] next; `None` only while the table is empty. At most 17 ms after
    /// the first connection ends, and perhaps before.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.store.next_deadline()
    }

    /// Connections in the table, those that have ended and were not removed yet included.
    pub(crate) fn len(&self) -> u32 {
        self.store.len()
    }

    /// The most connections there can be.
    pub(crate) fn capacity(&self) -> u32 {
        self.store.capacity()
    }

    /// Places there are, empty ones included.
    pub(crate) fn places(&self) -> u32 {
        self.store.places()
    }

    /// All connections in the order of their places, those that have ended and were not removed yet included.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.store.iter().map(|(handle, connection)| (ConnectionId(handle), connection))
    }

    /// The connection in place `place` of `0..capacity`, if there is one: for random samples (`drop_entry`).
    pub(crate) fn at(&self, place: u32) -> Option<(ConnectionId, &Connection)> {
        self.store.at(place).map(|(handle, connection)| (ConnectionId(handle), connection))
    }

    /// The newest live connection in the chain of `hash` that `matches`. `first_node` is the node of place 0 of the
    /// kind that is asked for.
    #[inline]
    fn find(
        &self,
        hash: u64,
        now: Instant,
        first_node: u32,
        matches: impl Fn(&Connection) -> bool,
    ) -> Option<ConnectionId> {
        let mut next = self.index.first(hash);
        while let Some(node) = next {
            if let Some((handle, connection)) = self.store.at(node / 2) {
                if node % 2 == first_node && connection.deadline > now && matches(connection) {
                    return Some(ConnectionId(handle));
                }
            }
            next = self.index.after(node, hash);
        }
        None
    }

    fn has_too_many(&self, hash: u64, now: Instant, (protocol, client): (Protocol, Endpoint)) -> bool {
        let live_of_client = self.index.with_hash(hash).filter(|&node| node == by_client(node / 2)).filter(|&node| {
            self.store.at(node / 2).is_some_and(|(_, connection)| {
                connection.protocol == protocol && connection.client == client && connection.deadline > now
            })
        });
        let max = self.per_client_endpoint_max as usize;
        live_of_client.take(max).count() == max
    }

    /// Bytes reserved, to show that they never change.
    #[cfg(test)]
    fn reserved_len(&self) -> usize {
        self.store.reserved_len() + self.index.reserved_len() + self.newcomers.reserved_len()
    }

    /// The hash under which a FullNAT reply from `real` to `local` is found.
    pub(crate) fn hash_full_nat_reply(&self, protocol: Protocol, real: Endpoint, local: Endpoint) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        write_endpoint(&mut hasher, protocol, real);
        write_endpoint(&mut hasher, protocol, local);
        hasher.finish()
    }
}

/// Hashes an endpoint in as few words as hold it: one with an IPv4 address, three with an IPv6 one. (The derived `Hash`
/// takes six, enum tags and lengths included.)
#[inline]
fn write_endpoint(hasher: &mut impl Hasher, protocol: Protocol, endpoint: Endpoint) {
    let port_and_protocol = u64::from(endpoint.port) << 8 | u64::from(protocol.number());
    match endpoint.address {
        IpAddr::V4(address) => hasher.write_u64(u64::from(address.to_bits()) << 32 | port_and_protocol),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            hasher.write_u64((bits >> 64) as u64);
            hasher.write_u64(bits as u64);
            hasher.write_u64(port_and_protocol);
        }
    }
}

/// The node by which requests, and replies that carry the client, find the connection in this place.
fn by_client(place: u32) -> u32 {
    2 * place
}

/// The node by which FullNAT replies find it.
fn by_local(place: u32) -> u32 {
    2 * place + 1
}

#[cfg(test)]
mod tests;
