//! The steady path: the next packet of a flow that goes on as it was, which is nearly every packet there is. Decides only
//! whether a packet is of that kind. What then happens is what `look.rs`, `known_flow.rs` and `forward/` would come to,
//! without their questions; anything in doubt is left to them before the first write.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::Director;
use super::known_flow::timeout_in;
use crate::connection::tcp::Segment;
use crate::connection::{Connection, ConnectionId, Role, State};
use crate::packet::PacketBuf;
use crate::service::server_table::{Place, ServerRecord, ServerTable};
use crate::service::table::{Service, ServiceTable};
use crate::service::{ForwardMethod, ServerId};
use crate::time::Instant;
use crate::verdict::{Direction, Verdict};
use crate::wire::plain::{Address, End, Plain};
use crate::wire::tcp::TcpFlags;

impl Director {
    /// Handles a packet of a steady flow. `None`, and nothing has changed, if it is another one.
    #[inline]
    pub(super) fn steady(&mut self, now: Instant, packet: &mut PacketBuf<'_>) -> Option<Verdict> {
        match packet.bytes().first()? >> 4 {
            4 => self.steady_plain(now, packet, &Plain::<Ipv4Addr>::read(packet)?),
            6 => self.steady_plain(now, packet, &Plain::<Ipv6Addr>::read(packet)?),
            _ => None,
        }
    }

    #[inline]
    fn steady_plain<A: Address>(
        &mut self,
        now: Instant,
        packet: &mut PacketBuf<'_>,
        plain: &Plain<A>,
    ) -> Option<Verdict> {
        match self.find_steady(now, plain)? {
            (id, Direction::Request) => self.steady_request(now, packet, plain, id),
            (id, Direction::Reply) => self.steady_reply(now, packet, plain, id),
        }
    }

    /// What `known_request` does.
    #[inline(never)]
    fn steady_request<A: Address>(
        &mut self,
        now: Instant,
        packet: &mut PacketBuf<'_>,
        plain: &Plain<A>,
        id: ConnectionId,
    ) -> Option<Verdict> {
        let is_secure_tcp = self.is_secure_tcp();
        let mut tenant = self.connections.tenant(id)?;
        let connection = &mut *tenant.record;
        let (server, service) = in_service(&mut self.servers, &mut self.services, connection.server?)?;
        let mtu = server.config.mtu.unwrap_or(self.config.server_side.mtu);
        let keeps_state = keeps_state(connection.state, plain.flags, connection.request_role(), is_secure_tcp);
        if is_special(connection) || !keeps_state || plain.len > mtu {
            return None;
        }
        let next_hop = A::of(connection.real.address)?;
        let is_translated = match connection.forward {
            ForwardMethod::Nat => true,
            ForwardMethod::DirectRouting => false,
            _ => return None,
        };

        let (port, timeout) = (connection.real.port, timeout_in(Some(service), &self.timeouts, connection.state));
        for meter in [&mut server.meter, &mut service.meter, &mut self.totals] {
            meter.live.count_in(1, plain.len.into());
        }
        connection.in_packets += 1;
        if !tenant.put_off(now, timeout) {
            self.connections.rearm(id, now, timeout);
        }
        match is_translated {
            true => plain.pass_on(packet, [(End::Destination, next_hop, port)]),
            false => plain.pass_on(packet, []),
        }
        Some(Verdict::Forward { next_hop: next_hop.into(), direction: Direction::Request, mtu })
    }

    /// What `known_reply` does.
    #[inline(never)]
    fn steady_reply<A: Address>(
        &mut self,
        now: Instant,
        packet: &mut PacketBuf<'_>,
        plain: &Plain<A>,
        id: ConnectionId,
    ) -> Option<Verdict> {
        let is_secure_tcp = self.is_secure_tcp();
        let mut tenant = self.connections.tenant(id)?;
        let connection = &*tenant.record;
        let (server, service) = in_service(&mut self.servers, &mut self.services, connection.server?)?;
        let mtu = self.config.client_side.mtu;
        let keeps_state = keeps_state(connection.state, plain.flags, Role::Output, is_secure_tcp);
        // From a connection's first reply on, its requests are judged otherwise.
        if is_special(connection) || connection.no_output || !keeps_state || plain.len > mtu {
            return None;
        }
        let source = match connection.forward {
            ForwardMethod::Nat => Some((A::of(connection.virtual_endpoint.address)?, connection.virtual_endpoint.port)),
            ForwardMethod::DirectRouting | ForwardMethod::Tunnel => None,
            _ => return None,
        };

        let timeout = timeout_in(Some(service), &self.timeouts, connection.state);
        for meter in [&mut server.meter, &mut service.meter, &mut self.totals] {
            meter.live.count_out(1, plain.len.into());
        }
        let datagrams_of = connection.template.filter(|_| connection.state == State::Udp);
        if let Some(template) = datagrams_of.and_then(|id| self.templates.get_mut(id)) {
            template.assured = true;
        }
        if !tenant.put_off(now, timeout) {
            self.connections.rearm(id, now, timeout);
        }
        match source {
            Some((address, port)) => plain.pass_on(packet, [(End::Source, address, port)]),
            None => plain.pass_on(packet, []),
        }
        Some(Verdict::Forward { next_hop: plain.destination_address().into(), direction: Direction::Reply, mtu })
    }

    /// The connection of a plain packet, as `look` finds it, where that is the newest one of its client endpoint.
    #[inline]
    fn find_steady<A: Address>(&self, now: Instant, plain: &Plain<A>) -> Option<(ConnectionId, Direction)> {
        // With `nat_icmp_send`, replies are looked for first.
        if !self.serves(A::FAMILY) || self.config.settings.nat_icmp_send || self.connections.awaits_client_ports() {
            return None;
        }
        let (protocol, source, destination) = (plain.protocol, plain.source(), plain.destination());
        let is_known = |connection: &Connection| connection.protocol == protocol && connection.deadline > now;
        if let Some((id, connection)) = self.connections.newest(self.connections.hash_request(protocol, source)) {
            let is_it = connection.client == source && connection.virtual_endpoint == destination;
            return (is_it && is_known(connection)).then_some((id, Direction::Request));
        }
        let (id, connection) = self.connections.newest(self.connections.hash_request(protocol, destination))?;
        let answers_as = match connection.forward {
            ForwardMethod::Nat => connection.real,
            ForwardMethod::FullNat => return None,
            _ => connection.virtual_endpoint,
        };
        let is_it = connection.client == destination && answers_as == source;
        (is_it && is_known(connection)).then_some((id, Direction::Reply))
    }
}

/// A server in its service's list that is to stay there, and the service.
#[inline]
fn in_service<'a>(
    servers: &'a mut ServerTable,
    services: &'a mut ServiceTable,
    id: ServerId,
) -> Option<(&'a mut ServerRecord, &'a mut Service)> {
    let server = servers.get_mut(id).filter(|server| server.drain.is_none())?;
    let Place::Listed { service, .. } = server.place else { return None };
    Some((server, services.get_mut(service)?))
}

/// Whether more is to be done for packets of this connection than to send them on.
#[inline]
fn is_special(connection: &Connection) -> bool {
    connection.has_helper || connection.no_client_port || connection.is_local
}

/// Whether a packet leaves the connection's state as it is. One that may open it anew, or ends it, does not count.
#[inline]
fn keeps_state(state: State, flags: TcpFlags, role: Role, is_secure_tcp: bool) -> bool {
    match state {
        State::Tcp(state) => {
            flags.0 & DECISIVE == TcpFlags::ACK && state.next(Some(Segment::Ack), role, is_secure_tcp) == state
        }
        State::Udp => true,
        State::Sctp(_) => false,
    }
}

/// Flags that move the state.
const DECISIVE: u8 = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST | TcpFlags::ACK;

#[cfg(test)]
mod tests;
