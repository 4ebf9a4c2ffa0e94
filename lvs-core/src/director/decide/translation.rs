//! FullNAT: what a connection translates besides addresses, as it will be after a packet. How packets are rewritten is in
//! `forward/full_nat.rs`.

use crate::connection::{Connection, ConnectionId};
use crate::director::decide::classify::Route;
use crate::director::tables::Tables;
use crate::flow::{Endpoint, Protocol};
use crate::forward::full_nat;
use crate::forward::full_nat::client_address::preamble;
use crate::forward::full_nat::sequence::{SegmentNumbers, Translation, initial_sequence_number};
use crate::packet::PacketBuf;
use crate::service::{ClientAddress, ForwardMethod};
use crate::time::Instant;
use crate::verdict::Direction;
use crate::wire::parse::Headers;
use crate::wire::stream;

impl Tables<'_> {
    /// A reply's connection, whichever way it is found.
    pub(in crate::director) fn find_reply(
        &self,
        now: Instant,
        protocol: Protocol,
        source: Endpoint,
        destination: Endpoint,
    ) -> Option<ConnectionId> {
        self.flows.connections.find_reply(now, protocol, source, destination).or_else(|| {
            let may_be_full_nat = self.flows.full_nat.pool.has_leases();
            may_be_full_nat
                .then(|| self.flows.connections.find_full_nat_reply(now, protocol, source, destination))
                .flatten()
        })
    }

    /// What a new connection translates besides addresses and ports.
    pub(in crate::director) fn initial_translation(&self, connection: &Connection) -> Option<Translation> {
        if connection.forward != ForwardMethod::FullNat {
            return None;
        }
        let record = connection.server.and_then(|id| self.services.servers.get(id))?;
        let service = self.services.find(&record.service)?;
        let mut options = service.config.full_nat;
        let is_proxied = matches!(options.client_address, ClientAddress::ProxyV1 | ClientAddress::ProxyV2);
        if is_proxied && connection.parent.is_some() {
            // The header goes with what is announced (FTP), whose sides know each other.
            options.client_address = ClientAddress::None;
        }
        let (client, to) = (connection.client, connection.virtual_endpoint);
        let preamble_len = preamble(options.client_address, connection.protocol, client, to).as_bytes().len();
        let has_uoa = connection.protocol == Protocol::Udp && options.client_address == ClientAddress::Uoa;
        let is_needed = connection.protocol == Protocol::Tcp || preamble_len > 0 || has_uoa;
        is_needed.then(|| Translation::new(options, preamble_len))
    }

    /// The way of a packet, with the connection's translation as it is after this packet. `id` is `None` for a
    /// connection that is still to be opened.
    pub(in crate::director) fn translate(
        &self,
        now: Instant,
        id: Option<ConnectionId>,
        connection: &Connection,
        bytes: &[u8],
        headers: &Headers,
        end: &mut Route,
    ) {
        if connection.forward == ForwardMethod::FullNat {
            let translation = self.translation(id, connection);
            end.path.full_nat.translation =
                translation.map(|before| self.after_segment(now, before, connection, bytes, headers, end.direction));
        }
    }

    /// The way of what belongs to a connection but is no packet of its hosts (an ICMP error, a RST of ours), with the
    /// connection's translation as it is.
    pub(in crate::director) fn related_route(
        &self,
        now: Instant,
        id: Option<ConnectionId>,
        connection: &Connection,
        direction: Direction,
        headers: &Headers,
    ) -> Route {
        let mut end = self.route_of(now, connection, direction, headers);
        if connection.forward == ForwardMethod::FullNat {
            end.path.full_nat.translation = self.translation(id, connection);
        }
        end
    }

    /// Whether this packet will leave without the client's address it should carry.
    pub(in crate::director) fn omits_client_address(
        &self,
        packet: &PacketBuf<'_>,
        headers: &Headers,
        end: &Route,
    ) -> bool {
        let translation = end.path.full_nat.translation.filter(|_| end.direction == Direction::Request);
        let is_asked_for =
            translation.is_some_and(|of| of.options.client_address == ClientAddress::Toa || of.tells_client());
        is_asked_for && full_nat::omits_client_address(packet, headers, &end.path)
    }

    fn translation(&self, id: Option<ConnectionId>, connection: &Connection) -> Option<Translation> {
        match id {
            Some(id) => self.flows.full_nat.translation(id),
            None => self.initial_translation(connection),
        }
    }

    fn after_segment(
        &self,
        now: Instant,
        before: Translation,
        connection: &Connection,
        bytes: &[u8],
        headers: &Headers,
        direction: Direction,
    ) -> Translation {
        if connection.protocol == Protocol::Udp && direction == Direction::Request {
            return before.after_client_datagram();
        }
        if connection.protocol != Protocol::Tcp || headers.protocol != Protocol::Tcp.number() {
            return before;
        }
        let (Some(flags), Some(segment)) = (headers.tcp_flags(bytes), segment_numbers(bytes, headers)) else {
            return before;
        };
        match (direction, segment.acknowledgment) {
            (Direction::Request, _) if flags.rst() => before.after_client_reset(segment.sequence),
            (Direction::Reply, _) if flags.rst() => before.after_server_reset(),
            (Direction::Request, _) if flags.syn() && !flags.ack() => {
                let local = connection.local.unwrap_or(connection.client);
                let isn = initial_sequence_number(self.flows.full_nat.isn_key, now, local, connection.real);
                before.after_client_syn(segment.sequence, connection.state.is_half_open(), isn)
            }
            (Direction::Reply, Some(acknowledgment)) if flags.syn() => {
                before.after_server_syn(now, segment.sequence, acknowledgment)
            }
            (Direction::Reply, _) if !flags.syn() => before.after_server_segment(now, &segment),
            (Direction::Request, _) if !flags.syn() => before.after_client_segment(now, &segment),
            _ => before,
        }
    }
}

/// What a segment's header says; `None` if it is cut off.
fn segment_numbers(bytes: &[u8], headers: &Headers) -> Option<SegmentNumbers> {
    let (sequence, acknowledgment) = stream::numbers(bytes, headers)?;
    let len = stream::payload(bytes, headers)?.len() as u32;
    let fin = headers.tcp_flags(bytes)?.fin();
    Some(SegmentNumbers { sequence, acknowledgment, len, fin })
}
