//! FullNAT: leases of local endpoints, and what each connection translates besides addresses.

use crate::connection::{Connection, ConnectionId};
use crate::director::Director;
use crate::director::decide::classify::FirstPacket;
use crate::director::decide::classify::Route;
use crate::drop_reason::DropReason;
use crate::event::Event;
use crate::flow::Endpoint;
use crate::forward::full_nat;
use crate::packet::HEADROOM;
use crate::service::ServerId;
use crate::service::table::ServiceIndex;
use crate::time::Instant;
use crate::verdict::Verdict;
use crate::wire::parse::Headers;

impl Director {
    /// Leases the local endpoint that was found for a new connection: what the pool says, or what somebody has just given
    /// up.
    pub(in crate::director) fn lease_local(
        &mut self,
        now: Instant,
        first: &FirstPacket,
        connection: &Connection,
        local: Endpoint,
    ) {
        let Connection { protocol, real, client, server, .. } = *connection;
        let service = self.services.table.get(first.service).expect("it was classified by it");
        let pool = &mut self.flows.full_nat.pool;
        if !pool.lease_again(protocol, real, local, client.address) {
            let leased = pool.lease(now, protocol, real, &service.local_addresses, client.address);
            debug_assert_eq!(leased, Ok(local), "what was found is leased");
        }
        if let Some(record) = server.and_then(|id| self.services.servers.get_mut(id)) {
            record.told_ports_exhausted = false;
        }
    }

    /// The same for a connection that a helper expects, and that has the endpoint already.
    pub(in crate::director) fn lease_expected(&mut self, now: Instant, expected: &Connection) {
        let Some(local) = expected.local else { return };
        let (real, client) = (expected.real, expected.client.address);
        let leased = self.flows.full_nat.pool.lease(now, expected.protocol, real, &[local.address], client);
        debug_assert_eq!(leased, Ok(local), "what was found is leased");
    }

    /// No local endpoint is left for a new connection: told once for each server.
    pub(in crate::director) fn tell_ports_exhausted(
        &mut self,
        service: ServiceIndex,
        server: Option<ServerId>,
        real: Endpoint,
        reason: DropReason,
    ) {
        let key = self.services.table.get(service).expect("its service was just found").key;
        self.flows.full_nat.pool.look_elsewhere();
        let record = server.and_then(|id| self.services.servers.get_mut(id));
        let record = record.filter(|_| reason == DropReason::LocalPortsExhausted);
        if record.is_some_and(|record| !core::mem::replace(&mut record.told_ports_exhausted, true)) {
            self.outlet.events.push(Event::LocalPortsExhausted { service: key, server: real });
        }
    }

    /// Remembers what a connection just opened translates.
    pub(in crate::director) fn open_translation(&mut self, id: ConnectionId) {
        let translation =
            self.flows.connections.get(id).and_then(|connection| self.tables().initial_translation(connection));
        if let Some(translation) = translation {
            self.flows.full_nat.translations.insert(id, translation);
        }
    }

    /// Remembers the translation after a packet that counted.
    pub(in crate::director) fn keep_translation(&mut self, id: ConnectionId, end: &Route) {
        if let Some(after) = end.path.full_nat.translation {
            if let Some(translation) = self.flows.full_nat.translations.get_mut(&id) {
                *translation = after;
            }
        }
    }

    /// A packet has left without the client's address it should carry: UOA sends it beside, TOA cannot.
    pub(in crate::director) fn make_up_for_client_address(&mut self, headers: &Headers, end: &Route, verdict: Verdict) {
        let has_uoa = end.path.full_nat.translation.is_some_and(|of| of.tells_client());
        let alone = if has_uoa { full_nat::uoa::alone(headers, &end.path) } else { None };
        let sent = alone.is_some_and(|storage| {
            let place = (HEADROOM, storage.len() - HEADROOM);
            self.outlet.outbox.push(storage, place, 0, verdict).is_ok()
        });
        self.outlet.answers += u64::from(sent);
        self.flows.full_nat.client_addresses_omitted += u64::from(!sent);
    }
}
