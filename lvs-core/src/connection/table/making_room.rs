//! Which connection makes room for a new one: of those that have proved nothing, then of those that are over, then of
//! those that have only talked. Decides by who came first and who has been silent longest; that one must go is decided in
//! `director/`.

use core::net::IpAddr;

use super::ConnectionTable;
use crate::client_group::share;
use crate::connection::newcomer::{Newcomer, Owner, Rank};
use crate::connection::{Connection, ConnectionId};
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::local_address::LaneKey;
use crate::time::Instant;

impl ConnectionTable {
    /// Newcomers of a kind, those that have ended and were not removed yet included, and those without that others
    /// hang on.
    pub(crate) fn newcomers_len(&self, kind: Newcomer) -> u32 {
        self.newcomers.len(kind)
    }

    /// What kind of newcomer a connection is, if it is one.
    pub(crate) fn kind(&self, id: ConnectionId) -> Option<Newcomer> {
        self.get(id).and_then(|_| self.newcomers.kind(id.0.index))
    }

    /// Whether a connection is there and no packet of it has come.
    pub(crate) fn is_expected(&self, id: ConnectionId) -> bool {
        self.kind(id) == Some(Newcomer::Expected)
    }

    /// The half-open connection that came first, unless it is `other_than`.
    pub(crate) fn oldest_half_open(&self, other_than: Option<ConnectionId>) -> Option<ConnectionId> {
        let places = self.newcomers.oldest_first(Newcomer::HalfOpen).take(2);
        places.filter_map(|place| Some(self.at(place)?.0)).find(|id| Some(*id) != other_than)
    }

    /// Whose place a new connection of this client gets. Who has only talked gives way last, and to a client that has a
    /// quarter of all places by talk, one of its own: so nobody takes the places of all others by it.
    pub(crate) fn giving_place(&self, client: IpAddr, with_half_open: bool) -> Option<ConnectionId> {
        let over = || self.newcomers.oldest_first(Newcomer::Over).find_map(|place| Some(self.at(place)?.0));
        self.idlest_newcomer(with_half_open).or_else(over).or_else(|| self.idlest_talked(client))
    }

    /// The newcomer that can best be done without: of those first in line, the one that has been silent longest.
    fn idlest_newcomer(&self, with_half_open: bool) -> Option<ConnectionId> {
        let half_open = self.oldest_half_open(None).filter(|_| with_half_open);
        let expected = self.newcomers.oldest_first(Newcomer::Expected).next();
        let expected = expected.and_then(|place| Some(self.at(place)?.0));
        let candidates = [half_open, expected, self.idlest_unproven()];
        candidates.into_iter().flatten().min_by_key(|id| self.get(*id).map(last_use))
    }

    /// Of datagrams some flows never prove themselves however long they last, because replies bypass the director: one
    /// that was used since it came is passed over, for a few others.
    fn idlest_unproven(&self) -> Option<ConnectionId> {
        let first = || self.unproven_in_line();
        let unused = first().find(|(_, connection)| connection.in_packets <= 1);
        unused.or_else(|| first().min_by_key(|(_, connection)| last_use(connection))).map(|(id, _)| id)
    }

    /// Of a few first in line the one that has been silent longest. Whose flow goes on is passed over, so that in the
    /// end those are left who talk.
    fn idlest_talked(&self, client: IpAddr) -> Option<ConnectionId> {
        self.talked_in_line(client).min_by_key(|(_, connection)| last_use(connection)).map(|(id, _)| id)
    }

    fn talked_in_line(&self, client: IpAddr) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        let share = share(u32::MAX, self.capacity());
        let places = self.newcomers.talked_first(self.groups.of(client), share);
        places.take(COMPARED_MAX).filter_map(|place| self.at(place))
    }

    fn unproven_in_line(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.newcomers.oldest_first(Newcomer::Unproven).take(PASSED_OVER_MAX).filter_map(|place| self.at(place))
    }

    /// Sends those that were passed over when this one was found for `client` to the end of the line.
    pub(crate) fn pass_over(&mut self, chosen: ConnectionId, client: IpAddr) {
        let mut passed = [None; COMPARED_MAX];
        let mut fill = |line: &mut dyn Iterator<Item = (ConnectionId, &Connection)>| {
            let before = line.map(|(id, known)| (id, known.client.address)).take_while(|(id, _)| *id != chosen);
            passed.iter_mut().zip(before).for_each(|(place, known)| *place = Some(known));
        };
        match self.kind(chosen) {
            Some(Newcomer::Unproven) => fill(&mut self.unproven_in_line()),
            Some(Newcomer::Talked) => fill(&mut self.talked_in_line(client)),
            _ => return,
        }
        for (id, client) in passed.into_iter().flatten() {
            self.newcomers.renew(id.0.index, self.groups.of(client));
        }
    }

    /// Who gives back one of these local addresses' ports towards a server, of the first rank that has anybody: the one
    /// that has been silent longest of those who have held a port of an address longest; with a client, of its own.
    pub(crate) fn giving_port(
        &self,
        (protocol, real): (Protocol, Endpoint),
        addresses: &[IpAddr],
        client: Option<IpAddr>,
    ) -> Option<ConnectionId> {
        let family = AddressFamily::of(real.address);
        let client = client.map(|client| self.groups.of(client));
        Rank::ALL.into_iter().find_map(|rank| {
            let suitable = addresses.iter().filter(|address| AddressFamily::of(**address) == family);
            let oldest = suitable.filter_map(|local| {
                let lane = LaneKey { protocol, real, local: *local };
                self.at(self.newcomers.oldest_in(rank, lane, client)?)
            });
            oldest.min_by_key(|(_, connection)| last_use(connection)).map(|(id, _)| id)
        })
    }

    /// Files the connection in this place under what it is.
    pub(super) fn refile(&mut self, place: u32) {
        let Some((_, connection)) = self.store.at(place) else { return };
        let (kind, owner) = (connection.newcomer(), self.owner(connection));
        self.newcomers.set(place, kind, owner);
    }

    pub(super) fn owner(&self, connection: &Connection) -> Owner {
        let Connection { protocol, real, client, .. } = *connection;
        let lane = connection.local.map(|local| LaneKey { protocol, real, local: local.address });
        Owner { client: self.groups.of(client.address), lane }
    }
}

/// When the last packet that refreshed the connection came.
fn last_use(connection: &Connection) -> Instant {
    Instant::ZERO + connection.deadline.duration_since(Instant::ZERO + connection.timeout)
}

/// Flows of datagrams without proof that are compared for the one that has been silent longest.
const PASSED_OVER_MAX: usize = 4;
/// Flows that have only talked, of which more may be wanted: where half of all go on, one of 65,536 times all of these do.
const COMPARED_MAX: usize = 16;
