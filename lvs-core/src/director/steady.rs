//! The steady path: the next packet of a flow that goes on as it was, which is nearly every packet there is. Decides
//! only whether a packet is of that kind. What then happens is what `decide.rs`, `carry_out.rs` and `forward/` would
//! come to, without their questions; anything in doubt is left to them before the first write.

use core::net::{Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU16;

use super::Director;
use crate::connection::tcp::Segment;
use crate::connection::{Connection, ConnectionId, Role, State, Talk};
use crate::director::decide::route::gue_source_port;
use crate::director::decide::route::identification;
use crate::director::decide::route::tunnel_path;
use crate::director::services::timeout_in;
use crate::director::tables::Flows;
use crate::flow::{Endpoint, Protocol};
use crate::forward::full_nat::sequence::Translation;
use crate::forward::tunnel::TunnelPath;
use crate::packet::{Offload, PacketBuf};
use crate::rng::Seed;
use crate::service::server_table::{Place, ServerRecord, ServerTable, UsedRoute};
use crate::service::table::{Service, ServiceTable};
use crate::service::{ForwardMethod, ServerId};
use crate::time::Instant;
use crate::tunnel::{Inner, Plan, Tunnel};
use crate::verdict::{Direction, Verdict};
use crate::wire::checksum::Delta;
use crate::wire::plain::{Address, End, Plain};
use crate::wire::tcp::TcpFlags;

/// The hashes under which a packet's connection is found, where they were computed before.
#[derive(Clone, Copy, Default)]
pub(super) struct FlowHashes {
    /// Of its source, where that may be a client.
    pub request: Option<u64>,
    /// Of its destination, where that may be one.
    pub reply: Option<u64>,
}

impl Director {
    /// Handles a packet of a steady flow. `None`, and nothing has changed, if it is another one.
    #[inline]
    pub(super) fn steady(&mut self, now: Instant, packet: &mut PacketBuf<'_>, hashes: FlowHashes) -> Option<Verdict> {
        match packet.bytes().first()? >> 4 {
            4 => self.steady_plain(now, packet, &Plain::<Ipv4Addr>::read(packet)?, hashes),
            6 => self.steady_plain(now, packet, &Plain::<Ipv6Addr>::read(packet)?, hashes),
            _ => None,
        }
    }

    #[inline]
    fn steady_plain<A: Address>(
        &mut self,
        now: Instant,
        packet: &mut PacketBuf<'_>,
        plain: &Plain<A>,
        hashes: FlowHashes,
    ) -> Option<Verdict> {
        let serves = self.services.table.serves(A::FAMILY) || self.flows.full_nat.pool.has_leases();
        // With `nat_icmp_send`, replies are looked for first.
        if !serves || self.site.config.settings.nat_icmp_send {
            return None;
        }
        match self.flows.find_steady(now, plain, hashes)? {
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
        let is_secure_tcp = self.tables().is_secure_tcp();
        let mut tenant = self.flows.connections.tenant(id)?;
        let connection = &mut *tenant.record;
        let path_mtu = match connection.forward {
            ForwardMethod::Tunnel => self.services.servers.path_mtu(now, connection.real.address),
            _ => None,
        };
        let (server, service) = in_service(&mut self.services.servers, &mut self.services.table, connection.server?)?;
        let mtu = server.config.mtu.unwrap_or(self.site.config.server_side.mtu);
        let mtu = path_mtu.map_or(mtu, |path_mtu| path_mtu.min(mtu));
        let keeps_state = keeps_state(connection.state, plain.flags, connection.request_role(), is_secure_tcp);
        // A datagram after the first answer proves its client.
        if is_special(connection) || connection.talk == Talk::Answered || !keeps_state || plain.len > mtu {
            return None;
        }
        let (len, real_address) = (plain.len.into(), connection.real.address);
        // All checks before the first write: where the steady path ends here, the packet is as it came.
        match connection.forward {
            ForwardMethod::Nat => {
                let address = A::of(connection.real.address)?;
                plain.pass_on(packet, [(End::Destination, address, connection.real.port)]);
            }
            ForwardMethod::DirectRouting => plain.pass_on(packet, []),
            ForwardMethod::Tunnel => {
                let source_port = || kept_source_port(self.site.seed, connection);
                let path = tunnel_path(&self.site.config, source_port, real_address, server);
                let number = identification(self.outlet.answers, self.site.identification_secret);
                let tunnel = path.towards(real_address, mtu, number)?;
                enter(packet, plain, &path, &tunnel)?;
                self.outlet.answers += 1;
                server.route = Some(UsedRoute { at: now, mtu });
            }
            ForwardMethod::FullNat => {
                let translation = self.flows.full_nat.translation(id);
                translate(packet, plain, connection, translation, Direction::Request)?;
            }
            ForwardMethod::Local | ForwardMethod::Bypass => return None,
        }

        for meter in [&mut server.meter, &mut service.meter, &mut self.services.totals] {
            meter.live.count_in(1, len);
        }
        connection.in_packets += 1;
        let next_hop = real_address;
        let timeout = timeout_in(Some(service), &self.services.timeouts, connection.state);
        if !tenant.put_off(now, timeout) {
            self.flows.connections.rearm(id, now, timeout);
        }
        Some(Verdict::Forward { next_hop, direction: Direction::Request, mtu })
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
        let is_secure_tcp = self.tables().is_secure_tcp();
        let mut tenant = self.flows.connections.tenant(id)?;
        let connection = &*tenant.record;
        let (server, service) = in_service(&mut self.services.servers, &mut self.services.table, connection.server?)?;
        let mtu = self.site.config.client_side.mtu;
        let keeps_state = keeps_state(connection.state, plain.flags, Role::Output, is_secure_tcp);
        // From a connection's first reply on, its requests are judged otherwise.
        let is_first_answer = connection.talk == Talk::Asked;
        if is_special(connection) || connection.no_output || is_first_answer || !keeps_state || plain.len > mtu {
            return None;
        }
        let from = connection.virtual_endpoint;
        let len = plain.len.into();
        match connection.forward {
            ForwardMethod::Nat => plain.pass_on(packet, [(End::Source, A::of(from.address)?, from.port)]),
            ForwardMethod::DirectRouting | ForwardMethod::Tunnel => plain.pass_on(packet, []),
            ForwardMethod::FullNat => {
                let translation = self.flows.full_nat.translation(id);
                translate(packet, plain, connection, translation, Direction::Reply)?;
            }
            ForwardMethod::Local | ForwardMethod::Bypass => return None,
        }

        for meter in [&mut server.meter, &mut service.meter, &mut self.services.totals] {
            meter.live.count_out(1, len);
        }
        // A datagram from the server assures the template.
        let template = connection.template.filter(|_| connection.state == State::Udp);
        if let Some(template) = template.and_then(|id| self.flows.templates.get_mut(id)) {
            template.assured = true;
        }
        let next_hop = connection.client.address;
        let timeout = timeout_in(Some(service), &self.services.timeouts, connection.state);
        if !tenant.put_off(now, timeout) {
            self.flows.connections.rearm(id, now, timeout);
        }
        Some(Verdict::Forward { next_hop, direction: Direction::Reply, mtu })
    }
}

impl Flows {
    /// The connection of a plain packet, as `look` finds it, where that is the newest one of its client endpoint.
    #[inline]
    fn find_steady<A: Address>(
        &self,
        now: Instant,
        plain: &Plain<A>,
        hashes: FlowHashes,
    ) -> Option<(ConnectionId, Direction)> {
        if self.connections.awaits_client_ports() {
            return None;
        }
        let (protocol, source, destination) = (plain.protocol, plain.source(), plain.destination());
        let is_known = |connection: &Connection| connection.protocol == protocol && connection.deadline > now;
        let request = hashes.request.unwrap_or_else(|| self.connections.hash_request(protocol, source));
        if let Some((id, connection)) = self.connections.newest(request) {
            let is_it = connection.client == source && connection.virtual_endpoint == destination;
            return (is_it && is_known(connection)).then_some((id, Direction::Request));
        }
        let reply = hashes.reply.unwrap_or_else(|| self.connections.hash_request(protocol, destination));
        let Some((id, connection)) = self.connections.newest(reply) else {
            return self.find_full_nat_reply(now, plain);
        };
        let answers_as = match connection.forward {
            ForwardMethod::Nat => connection.real,
            ForwardMethod::FullNat => return None,
            _ => connection.virtual_endpoint,
        };
        let is_it = connection.client == destination && answers_as == source;
        (is_it && is_known(connection)).then_some((id, Direction::Reply))
    }

    #[inline(never)]
    fn find_full_nat_reply<A: Address>(&self, now: Instant, plain: &Plain<A>) -> Option<(ConnectionId, Direction)> {
        let (protocol, source, destination) = (plain.protocol, plain.source(), plain.destination());
        let hash = self.connections.hash_full_nat_reply(protocol, source, destination);
        let (id, connection) = self.connections.newest_full_nat(hash)?;
        let is_it = connection.protocol == protocol
            && connection.real == source
            && connection.local == Some(destination)
            && connection.deadline > now;
        is_it.then_some((id, Direction::Reply))
    }
}

/// The UDP source port of a connection's GUE packets, computed once.
#[inline]
fn kept_source_port(seed: Seed, connection: &mut Connection) -> u16 {
    match connection.gue_source_port {
        Some(port) => port.get(),
        None => {
            let port = gue_source_port(seed, connection);
            connection.gue_source_port = NonZeroU16::new(port);
            port
        }
    }
}

/// Sends a packet into a tunnel that it fits into as it is. On `None` it has not changed.
#[inline(never)]
fn enter<A: Address>(packet: &mut PacketBuf<'_>, plain: &Plain<A>, path: &TunnelPath, tunnel: &Tunnel) -> Option<()> {
    let (traffic_class, dont_fragment) = plain.class(packet)?;
    let inner = Inner { family: A::FAMILY, traffic_class, dont_fragment, len: plain.len.into() };
    let plan = Plan::new(Offload::default(), &inner, tunnel).ok()?;
    if packet.headroom() < plan.overhead() || plain.len > path.inner_mtu(Offload::default(), tunnel, A::FAMILY)? {
        return None;
    }
    plain.pass_on(packet, []);
    plan.carry_out(packet, &inner, tunnel).ok()
}

/// Gives a FullNAT packet into which nothing is put both its ends, and its number. On `None` it has not changed.
#[inline(never)]
fn translate<A: Address>(
    packet: &mut PacketBuf<'_>,
    plain: &Plain<A>,
    connection: &Connection,
    translation: Option<Translation>,
    direction: Direction,
) -> Option<()> {
    let number = match translation {
        None if plain.protocol == Protocol::Tcp => return None,
        None => None,
        Some(_) if plain.protocol != Protocol::Tcp => return None,
        Some(translation) => {
            let (sequence, acknowledgment) = plain.numbers(packet)?;
            Some(match direction {
                Direction::Request if translation.may_insert(acknowledgment) || translation.guards_server() => {
                    return None;
                }
                Direction::Request => (0, translation.to_server(sequence, false)),
                Direction::Reply if translation.follows_server() => return None,
                Direction::Reply => (1, translation.to_client(acknowledgment)),
            })
        }
    };
    let (source, destination) = match direction {
        Direction::Request => (connection.local?, connection.real),
        Direction::Reply => (connection.virtual_endpoint, connection.client),
    };
    let change = |end, to: Endpoint| Some((end, A::of(to.address)?, to.port));
    let changes = [change(End::Source, source)?, change(End::Destination, destination)?];
    let numbers = number.map_or_else(Delta::new, |(index, number)| plain.renumber(packet, index, number));
    plain.pass_on_changed(packet, changes, numbers);
    Some(())
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

/// Whether a packet leaves this state as it is. One that may open a connection anew, or ends it, does not count.
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

/// Whether more is to be done for packets of this connection than to send them on.
#[inline]
fn is_special(connection: &Connection) -> bool {
    connection.has_helper
        || connection.no_client_port
        || connection.is_local
        || connection.client_is_host
        || connection.checks_window
        || connection.both_ways
}

/// Flags that move the state.
const DECISIVE: u8 = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST | TcpFlags::ACK;

#[cfg(test)]
mod tests;
