//! Which connection makes room for a new one: of those that have proved nothing, by what is short.
//! Decides by who came first and who has been silent longest; that one must go is decided in `director/`.

use core::net::IpAddr;

use super::ConnectionTable;
use crate::connection::newcomer::{Newcomer, PortHolder};
use crate::connection::{Connection, ConnectionId};
use crate::flow::{Endpoint, Protocol};
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

    /// The newcomer that can best be done without: of those first in line, the one that has been silent longest.
    pub(crate) fn idlest_newcomer(&self, with_half_open: bool) -> Option<ConnectionId> {
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

    fn unproven_in_line(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.newcomers.oldest_first(Newcomer::Unproven).take(PASSED_OVER_MAX).filter_map(|place| self.at(place))
    }

    /// Sends those that were passed over for this one to the end of the line.
    pub(crate) fn pass_over(&mut self, chosen: ConnectionId) {
        let mut passed = [None; PASSED_OVER_MAX];
        let before = self.unproven_in_line().map(|(id, _)| id).take_while(|id| *id != chosen);
        passed.iter_mut().zip(before).for_each(|(place, id)| *place = Some(id));
        passed.into_iter().flatten().for_each(|id| self.newcomers.renew(id.0.index));
    }

    /// The newcomer that has held a local port towards this server longest; with a client, among that client's.
    pub(crate) fn oldest_port_holder(
        &self,
        protocol: Protocol,
        real: Endpoint,
        client: Option<IpAddr>,
    ) -> Option<ConnectionId> {
        let place = match client {
            Some(client) => self.newcomers.oldest_of(&PortHolder { protocol, real, client: self.groups.of(client) })?,
            None => self.newcomers.oldest_towards(protocol, real)?,
        };
        self.at(place).map(|(id, _)| id)
    }

    /// Files the connection in this place under what it is.
    pub(super) fn refile(&mut self, place: u32) {
        let Some((_, connection)) = self.store.at(place) else { return };
        self.newcomers.set(place, connection.newcomer(), self.holder(connection));
    }

    pub(super) fn holder(&self, connection: &Connection) -> Option<PortHolder> {
        let Connection { protocol, real, client, .. } = *connection;
        connection.local.map(|_| PortHolder { protocol, real, client: self.groups.of(client.address) })
    }
}

/// When the last packet that refreshed the connection came.
fn last_use(connection: &Connection) -> Instant {
    Instant::ZERO + connection.deadline.duration_since(Instant::ZERO + connection.timeout)
}

/// Flows of datagrams that are compared for the one that has been silent longest.
const PASSED_OVER_MAX: usize = 4;
