//! The steady path: the next packet of a flow that goes on as it was, which is nearly every packet there is. Decides only
//! whether a packet is of that kind. What then happens is what `look.rs`, `known_flow.rs` and `forward/` would come to,
//! without their questions; anything in doubt is left to them before the first write.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::Director;
use super::known_flow::{identification, timeout_in, tunnel_path};
use crate::connection::tcp::Segment;
use crate::connection::{Connection, ConnectionId, Role, State};
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::forward::full_nat::sequence::Translation;
use crate::forward::tunnel::inner_mtu;
use crate::packet::{ChecksumOffload, Offload, PacketBuf};
use crate::service::server_table::{Place, ServerRecord, ServerTable, UsedRoute};
use crate::service::table::{Service, ServiceTable};
use crate::service::{ForwardMethod, ServerId};
use crate::time::Instant;
use crate::tunnel::{Inner, Tunnel, encapsulate_inner};
use crate::verdict::{Direction, Verdict};
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
        match self.find_steady(now, plain, hashes)? {
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
        let path_mtu = match connection.forward {
            ForwardMethod::Tunnel => self.servers.path_mtu(now, connection.real.address),
            _ => None,
        };
        let (server, service) = in_service(&mut self.servers, &mut self.services, connection.server?)?;
        let mtu = server.config.mtu.unwrap_or(self.config.server_side.mtu);
        let mtu = path_mtu.map_or(mtu, |path_mtu| path_mtu.min(mtu));
        let keeps_state = keeps_state(connection.state, plain.flags, connection.request_role(), is_secure_tcp);
        if is_special(connection) || !keeps_state || plain.len > mtu {
            return None;
        }
        let way = match connection.forward {
            ForwardMethod::Nat => Way::Translate(A::of(connection.real.address)?, connection.real.port),
            ForwardMethod::DirectRouting => Way::Route,
            ForwardMethod::Tunnel => {
                let path = tunnel_path(&self.config, self.seed, connection, server);
                let number = identification(self.answers, self.identification_secret);
                let tunnel = path.towards(connection.real.address, mtu, number)?;
                let inner = inner(packet, plain, &tunnel)?;
                Way::Tunnel(tunnel, inner)
            }
            ForwardMethod::FullNat => {
                let translation = self.full_nat.translation(id);
                Way::TranslateBoth(both_ends(packet, plain, connection, translation, Direction::Request)?)
            }
            ForwardMethod::Local | ForwardMethod::Bypass => return None,
        };

        for meter in [&mut server.meter, &mut service.meter, &mut self.totals] {
            meter.live.count_in(1, plain.len.into());
        }
        if let Way::Tunnel(..) = way {
            self.answers += 1;
            server.route = Some(UsedRoute { at: now, mtu });
        }
        connection.in_packets += 1;
        let next_hop = connection.real.address;
        let timeout = timeout_in(Some(service), &self.timeouts, connection.state);
        if !tenant.put_off(now, timeout) {
            self.connections.rearm(id, now, timeout);
        }
        way.send(packet, plain, End::Destination);
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
        let from = connection.virtual_endpoint;
        let way = match connection.forward {
            ForwardMethod::Nat => Way::Translate(A::of(from.address)?, from.port),
            ForwardMethod::DirectRouting | ForwardMethod::Tunnel => Way::Route,
            ForwardMethod::FullNat => {
                let translation = self.full_nat.translation(id);
                Way::TranslateBoth(both_ends(packet, plain, connection, translation, Direction::Reply)?)
            }
            ForwardMethod::Local | ForwardMethod::Bypass => return None,
        };

        for meter in [&mut server.meter, &mut service.meter, &mut self.totals] {
            meter.live.count_out(1, plain.len.into());
        }
        // A datagram from the server assures the template.
        let template = connection.template.filter(|_| connection.state == State::Udp);
        if let Some(template) = template.and_then(|id| self.templates.get_mut(id)) {
            template.assured = true;
        }
        let next_hop = connection.client.address;
        let timeout = timeout_in(Some(service), &self.timeouts, connection.state);
        if !tenant.put_off(now, timeout) {
            self.connections.rearm(id, now, timeout);
        }
        way.send(packet, plain, End::Source);
        Some(Verdict::Forward { next_hop, direction: Direction::Reply, mtu })
    }

    /// The connection of a plain packet, as `look` finds it, where that is the newest one of its client endpoint.
    #[inline]
    fn find_steady<A: Address>(
        &self,
        now: Instant,
        plain: &Plain<A>,
        hashes: FlowHashes,
    ) -> Option<(ConnectionId, Direction)> {
        // With `nat_icmp_send`, replies are looked for first.
        if !self.serves(A::FAMILY) || self.config.settings.nat_icmp_send || self.connections.awaits_client_ports() {
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

/// How a steady packet leaves.
enum Way<A> {
    Route,
    /// The server's end, as the client's side knows it or the director does, is another one.
    Translate(A, u16),
    TranslateBoth(BothEnds<A>),
    /// Into this tunnel; the rest is what the tunnel's outside depends on.
    Tunnel(Tunnel, Inner),
}

/// The ends of a FullNAT packet on its way out, and which of its two numbers becomes what.
struct BothEnds<A> {
    source: (A, u16),
    destination: (A, u16),
    number: Option<(usize, u32)>,
}

impl<A: Address> Way<A> {
    #[inline(always)]
    fn send(&self, packet: &mut PacketBuf<'_>, plain: &Plain<A>, end: End) {
        match self {
            Self::Route => plain.pass_on(packet, []),
            Self::Translate(address, port) => plain.pass_on(packet, [(end, *address, *port)]),
            Self::TranslateBoth(ends) => ends.write(packet, plain),
            Self::Tunnel(tunnel, inner) => {
                plain.pass_on(packet, []);
                encapsulate_inner(packet, inner, tunnel).expect("it was found to fit");
            }
        }
    }
}

impl<A: Address> BothEnds<A> {
    #[inline(never)]
    fn write(&self, packet: &mut PacketBuf<'_>, plain: &Plain<A>) {
        if let Some((index, number)) = self.number {
            plain.renumber(packet, index, number);
        }
        let (source, destination) = (self.source, self.destination);
        plain.pass_on(packet, [(End::Source, source.0, source.1), (End::Destination, destination.0, destination.1)]);
    }
}

/// What goes into the tunnel, of a packet that fits in as it is.
#[inline(never)]
fn inner<A: Address>(packet: &PacketBuf<'_>, plain: &Plain<A>, tunnel: &Tunnel) -> Option<Inner> {
    let has_one_family = AddressFamily::of(tunnel.source) == AddressFamily::of(tunnel.destination);
    let has_room = packet.headroom() >= tunnel.overhead(ChecksumOffload::Full);
    let fits = has_one_family && has_room && plain.len <= inner_mtu(Offload::default(), tunnel)?;
    let (traffic_class, dont_fragment) = plain.class(packet)?;
    fits.then_some(Inner { family: A::FAMILY, traffic_class, dont_fragment, len: plain.len.into() })
}

/// What becomes of a FullNAT packet into which nothing is put.
#[inline(never)]
fn both_ends<A: Address>(
    packet: &PacketBuf<'_>,
    plain: &Plain<A>,
    connection: &Connection,
    translation: Option<Translation>,
    direction: Direction,
) -> Option<BothEnds<A>> {
    let number = match translation {
        None => None,
        Some(_) if plain.protocol != Protocol::Tcp => return None,
        Some(translation) => {
            let (sequence, acknowledgment) = plain.numbers(packet)?;
            Some(match direction {
                Direction::Request if translation.may_insert(acknowledgment) => return None,
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
    let end = |end: Endpoint| Some((A::of(end.address)?, end.port));
    Some(BothEnds { source: end(source)?, destination: end(destination)?, number })
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
    connection.has_helper || connection.no_client_port || connection.is_local
}

/// Flags that move the state.
const DECISIVE: u8 = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST | TcpFlags::ACK;

#[cfg(test)]
mod tests;
