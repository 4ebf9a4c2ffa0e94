//! Opening a connection: persistence, scheduler, and what happens when no server is to be had (spec control §1.3, §4.2).
//! `choose` decides and changes nothing but the scheduler it is lent; `open` carries the decision out.

use alloc::boxed::Box;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use super::Director;
use super::accounting::Count;
use super::defend::HalfOpenRoom;
use super::look::{FirstPacket, FlowEnd};
use crate::connection::table::TableFull;
use crate::connection::{Connection, ConnectionId};
use crate::drop_reason::DropReason;
use crate::event::Table;
use crate::explanation::PassReason;
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::helper::table::Helped;
use crate::packet::PacketBuf;
use crate::persistence::{Template, TemplateId, TemplateKey, sip};
use crate::scheduler::none::NeverChoose;
use crate::scheduler::{Request, Scheduler};
use crate::service::table::{FTP_PORT, Service};
use crate::service::{ForwardMethod, Netmask, ServerId, ServiceKey};
use crate::time::Instant;
use crate::verdict::{Direction, Verdict};
use crate::wire::icmp::{self, IcmpError};
use crate::wire::parse::Headers;
use crate::wire::udp;

/// FTP's active data connections come from here; such clients are never scheduled.
const FTP_DATA_PORT: u16 = 20;

/// What becomes of a packet that a service takes.
pub(super) struct Choice {
    pub decision: Decision,
    /// A template that was found but is of no use any more.
    pub invalid: Option<TemplateId>,
    /// Whether the scheduler was asked.
    pub was_scheduled: bool,
}

pub(super) enum Decision {
    Pass(PassReason),
    Drop(DropReason),
    /// No server: port unreachable to the client.
    Refuse,
    /// No server, and `cache_bypass` sends the packet to its own destination.
    Bypass,
    Server {
        server: ServerId,
        real: Endpoint,
        forward: ForwardMethod,
        template: Persistence,
    },
}

/// What persistence says of a new connection.
pub(super) enum Persistence {
    None,
    Existing(TemplateId),
    New { key: TemplateKey, real_port: u16 },
}

impl Director {
    /// Opens a connection for the packet and sends it, or says why not.
    pub(super) fn first_packet(
        &mut self,
        now: Instant,
        first: &FirstPacket,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) -> (Verdict, Option<FlowEnd>) {
        if self.defence.drop_packet.refuses() {
            return (Verdict::Drop(DropReason::DropPacketDefence), None);
        }
        self.expire_some(now);
        let room = self.half_open_room(first, packet.bytes(), headers);
        if matches!(room, HalfOpenRoom::Full) {
            self.tell_full(Table::HalfOpen);
            return (Verdict::Drop(DropReason::HalfOpenFull), None);
        }
        self.note_half_open();
        let service = self.services.get_mut(first.service).expect("look found it");
        let mut scheduler = core::mem::replace(&mut service.scheduler, Box::new(NeverChoose));
        let choice = self.choose(now, first, packet.bytes(), headers, scheduler.as_mut());
        let service = self.services.get_mut(first.service).expect("look found it");
        service.scheduler = scheduler;
        if let Some(template) = choice.invalid {
            self.templates.invalidate(template);
        }
        match choice.decision {
            Decision::Pass(_) => (Verdict::Pass, None),
            Decision::Drop(reason) => (Verdict::Drop(reason), None),
            Decision::Refuse => {
                let key = self.services.get(first.service).expect("look found it").key;
                self.tell_unavailable(&key);
                let path = self.answer_path(Direction::Request, headers);
                (self.answer(packet, headers, IcmpError::PortUnreachable, &path, DropReason::NoServer), None)
            }
            Decision::Bypass => {
                let connection = bypass_connection(now, first);
                self.open_and_send(now, first, connection, packet, headers)
            }
            Decision::Server { server, real, forward, template } => {
                if let HalfOpenRoom::After(id) = room {
                    self.evict_half_open(now, id);
                }
                let mut connection = new_connection(now, first, real, forward, Some(server));
                connection.one_packet = self.is_one_packet(first);
                match self.bind_template(now, first, server, forward, template) {
                    Ok(template) => connection.template = template,
                    Err(reason) => return (Verdict::Drop(reason), None),
                }
                self.open_and_send(now, first, connection, packet, headers)
            }
        }
    }

    pub(super) fn is_one_packet(&self, first: &FirstPacket) -> bool {
        first.protocol == Protocol::Udp
            && self.services.get(first.service).is_some_and(|service| service.config.one_packet)
    }

    /// Which server, by the rules of the service. Changes nothing but `scheduler`'s own state.
    pub(super) fn choose(
        &self,
        now: Instant,
        first: &FirstPacket,
        bytes: &[u8],
        headers: &Headers,
        scheduler: &mut dyn Scheduler,
    ) -> Choice {
        let service = self.services.get(first.service).expect("look found it");
        let only = |decision| Choice { decision, invalid: None, was_scheduled: false };
        if first.client.port == FTP_DATA_PORT {
            return only(Decision::Pass(PassReason::FtpDataSource));
        }
        if service.is_persistent() {
            return match engine_key(service, first, bytes, headers) {
                Ok(engine_key) => {
                    let key = TemplateKey { engine_key, ..template_key(service, first) };
                    self.choose_persistent(now, first, key, scheduler)
                }
                Err(reason) => only(Decision::Drop(reason)),
            };
        }
        let is_fwmark = matches!(service.key, ServiceKey::FwMark { .. });
        if !is_fwmark && first.destination.port != service.key.port() {
            return only(self.no_server(first, service));
        }
        let decision = match self.schedule(now, first, service, scheduler) {
            None => self.no_server(first, service),
            Some(position) => {
                let server = &service.servers[position];
                let port = if server.key.port != 0 { server.key.port } else { first.destination.port };
                self.to_server(server.id, port, Persistence::None)
            }
        };
        Choice { decision, invalid: None, was_scheduled: true }
    }

    fn choose_persistent(
        &self,
        now: Instant,
        first: &FirstPacket,
        key: TemplateKey,
        scheduler: &mut dyn Scheduler,
    ) -> Choice {
        let service = self.services.get(first.service).expect("look found it");
        let found = self.templates.find(now, &key);
        let usable = found.filter(|id| self.is_template_usable(*id));
        let invalid = found.filter(|_| usable.is_none());
        let is_service_port = first.destination.port == service.key.port();
        // The server's own port applies only on the service's own port; any-port and fwmark services keep the packet's.
        let port_for = |port: u16| if is_service_port && port != 0 { port } else { first.destination.port };
        if let Some(id) = usable {
            let template = self.templates.get(id).expect("it was just found");
            let port = self.servers.get(template.server).map_or(0, |record| record.config.key.port);
            let decision = self.to_server(template.server, port_for(port), Persistence::Existing(id));
            return Choice { decision, invalid, was_scheduled: false };
        }
        let decision = match self.schedule(now, first, service, scheduler) {
            None => self.no_server(first, service),
            Some(position) => {
                let server = &service.servers[position];
                let template_port = if key.virtual_port == 0 { 0 } else { server.key.port };
                let persistence = Persistence::New { key, real_port: template_port };
                self.to_server(server.id, port_for(server.key.port), persistence)
            }
        };
        Choice { decision, invalid, was_scheduled: true }
    }

    fn to_server(&self, server: ServerId, port: u16, template: Persistence) -> Decision {
        let config = &self.servers.get(server).expect("it is listed or a template holds it").config;
        let real = Endpoint::new(config.key.address, port);
        Decision::Server { server, real, forward: config.forward, template }
    }

    fn schedule(
        &self,
        now: Instant,
        first: &FirstPacket,
        service: &Service,
        scheduler: &mut dyn Scheduler,
    ) -> Option<usize> {
        // Linux reads the address from the packet's own header: in an ICMP error that is the quoted destination.
        let destination = if first.is_quoted { first.client } else { first.destination };
        let request = Request {
            now,
            protocol: first.protocol,
            client: first.client,
            destination,
            flags: service.config.scheduler_flags,
            settings: &self.config.settings,
        };
        let position = scheduler.schedule(&request, &service.servers)?;
        // A scheduler from outside may be wrong; a quiesced server is never used.
        service.servers.get(position).filter(|server| server.weight > 0).map(|_| position)
    }

    fn no_server(&self, first: &FirstPacket, service: &Service) -> Decision {
        let is_fwmark = matches!(service.key, ServiceKey::FwMark { .. });
        if self.config.settings.cache_bypass
            && is_fwmark
            && !first.is_quoted
            && self.is_foreign_unicast(first.destination.address)
        {
            return Decision::Bypass;
        }
        if service.key.port() == FTP_PORT && first.destination.port != FTP_PORT {
            return Decision::Pass(PassReason::FtpDataPort);
        }
        if first.is_quoted {
            return Decision::Drop(DropReason::NoServer);
        }
        Decision::Refuse
    }

    /// Unicast, and not one of the director's own addresses.
    fn is_foreign_unicast(&self, address: IpAddr) -> bool {
        let is_unicast = match address {
            IpAddr::V4(address) => !(address.is_multicast() || address.is_broadcast() || address.is_unspecified()),
            IpAddr::V6(address) => !(address.is_multicast() || address.is_unspecified()),
        };
        is_unicast && !self.is_own_address(address) && !self.services.is_virtual(address)
    }

    pub(super) fn is_template_usable(&self, id: TemplateId) -> bool {
        let template = self.templates.get(id).expect("it was just found");
        let Some(server) = self.servers.get(template.server) else { return false };
        let is_quiesced = || self.weight_of(template.server) == 0;
        server.is_listed()
            && server.drain.is_none()
            && !(self.config.settings.expire_quiescent_template && is_quiesced())
    }

    /// Finds or makes the template a new connection hangs on.
    pub(super) fn bind_template(
        &mut self,
        now: Instant,
        first: &FirstPacket,
        server: ServerId,
        forward: ForwardMethod,
        persistence: Persistence,
    ) -> Result<Option<TemplateId>, DropReason> {
        let (key, real_port) = match persistence {
            Persistence::None => return Ok(None),
            Persistence::Existing(id) => return Ok(Some(id)),
            Persistence::New { key, real_port } => (key, real_port),
        };
        let service = self.services.get(first.service).expect("look found it");
        let seconds = service.config.persistence_timeout_s.unwrap_or(0);
        let timeout = Duration::from_secs(u64::from(seconds));
        let template = Template {
            key,
            server,
            real_port,
            forward,
            timeout,
            deadline: now,
            children: 0,
            assured: false,
            in_packets: 0,
            mark: first.mark,
            invalidated: false,
        };
        match self.templates.insert(now, template) {
            Ok(id) => {
                self.count_up(server, Count::Template);
                Ok(Some(id))
            }
            Err(_) => {
                self.tell_full(Table::Templates);
                Err(DropReason::TemplateTableFull)
            }
        }
    }

    /// Puts the connection into the table (unless it lives for one packet only) and sends its first packet.
    fn open_and_send(
        &mut self,
        now: Instant,
        first: &FirstPacket,
        mut connection: Connection,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) -> (Verdict, Option<FlowEnd>) {
        if connection.one_packet {
            return self.send_one_packet(now, &connection, Direction::Request, packet, headers);
        }
        let helper = self.helper_for(first, connection.forward);
        connection.has_helper = helper.is_some();
        let id = match self.open(now, connection) {
            Ok(id) => id,
            Err(reason) => return (Verdict::Drop(reason), None),
        };
        if let Some(helper) = helper {
            self.helped.insert(id, Helped::by(helper));
        }
        if first.is_quoted {
            // A flow read from an ICMP error gets no state; it keeps its first three seconds.
            return match icmp::related(packet.bytes(), headers) {
                Ok(Some(related)) => (self.related_request(id, packet, headers, &related), None),
                _ => (Verdict::Pass, None),
            };
        }
        self.known_request(now, id, packet, headers)
    }

    /// Puts a connection into the table and counts it.
    pub(super) fn open(&mut self, now: Instant, connection: Connection) -> Result<ConnectionId, DropReason> {
        let (server, template) = (connection.server, connection.template);
        let id = self.connections.insert(now, connection).map_err(|full| {
            self.tell_full(Table::Connections);
            refusal(full)
        })?;
        if let Some(server) = server {
            self.count_up(server, Count::Connection);
        }
        self.hold_template(now, template);
        self.count_connection(server);
        Ok(id)
    }

    /// A new connection of a template: one more child, and the template's timer starts again.
    fn hold_template(&mut self, now: Instant, template: Option<TemplateId>) {
        let Some(id) = template else { return };
        let Some(template) = self.templates.get_mut(id) else { return };
        template.children += 1;
        let timeout = template.timeout;
        self.templates.rearm(id, now, timeout);
    }

    /// One-packet scheduling: the connection lives for this packet only.
    pub(super) fn send_one_packet(
        &mut self,
        now: Instant,
        connection: &Connection,
        direction: Direction,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) -> (Verdict, Option<FlowEnd>) {
        let end = self.flow_end(now, connection, direction, headers);
        if let Some(server) = connection.server {
            self.count_up(server, Count::Connection);
        }
        self.count_connection(connection.server);
        if direction == Direction::Request {
            self.count_in(connection.server, 1, super::known_flow::datagram_len(headers));
        }
        let verdict = self.send(packet, headers, &end);
        let is_answered = direction == Direction::Reply && matches!(verdict, Verdict::Forward { .. });
        if is_answered {
            self.count_out(connection.server, 1, super::known_flow::datagram_len(headers));
        }
        if let Some(server) = connection.server {
            self.count_down(server, Count::Connection);
        }
        if let Some(id) = connection.template {
            if let Some(template) = self.templates.get_mut(id) {
                template.in_packets += u64::from(direction == Direction::Request);
                template.assured |= is_answered;
                let timeout = template.timeout;
                self.templates.rearm(id, now, timeout);
            }
        }
        (verdict, Some(end))
    }

    /// Why the table would refuse a new connection now.
    pub(super) fn refuses_insertion(
        &self,
        now: Instant,
        first: &FirstPacket,
        connection: &Connection,
    ) -> Option<DropReason> {
        if self.is_one_packet(first) {
            return None;
        }
        self.connections.would_refuse(now, connection).map(refusal)
    }

    /// Why a template that persistence asks for would not be made now.
    pub(super) fn refuses_template(&self, persistence: &Persistence) -> Option<DropReason> {
        let is_full = self.templates.len() == self.templates.capacity();
        (is_full && matches!(persistence, Persistence::New { .. })).then_some(DropReason::TemplateTableFull)
    }

    /// Ends a connection whose addresses and ports were just used anew, or whose server is gone.
    pub(super) fn give_up(&mut self, now: Instant, id: ConnectionId) {
        self.connections.expire_now(id, now);
        self.end_connection(now, id, false);
    }
}

/// A connection as it begins.
pub(super) fn new_connection(
    now: Instant,
    first: &FirstPacket,
    real: Endpoint,
    forward: ForwardMethod,
    server: Option<ServerId>,
) -> Connection {
    let mut connection = Connection::new(first.protocol, first.client, first.destination, real, forward);
    connection.server = server;
    connection.mark = first.mark;
    connection.deadline = now + connection.timeout;
    connection
}

/// A connection past all servers, to the packet's own destination; shown with server 0.0.0.0:0.
pub(super) fn bypass_connection(now: Instant, first: &FirstPacket) -> Connection {
    let nowhere = match AddressFamily::of(first.destination.address) {
        AddressFamily::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    new_connection(now, first, Endpoint::new(nowhere, 0), ForwardMethod::Bypass, None)
}

pub(super) const fn refusal(full: TableFull) -> DropReason {
    match full {
        TableFull::Capacity => DropReason::ConnectionTableFull,
        TableFull::ClientEndpoint => DropReason::ClientEndpointFull,
    }
}

/// What the service's persistence engine finds in the packet; `None` for a service without one.
fn engine_key(
    service: &Service,
    first: &FirstPacket,
    bytes: &[u8],
    headers: &Headers,
) -> Result<Option<Box<[u8]>>, DropReason> {
    if !service.has_engine() {
        return Ok(None);
    }
    if first.is_quoted {
        return Err(DropReason::NoPersistenceKey);
    }
    call_id_in(bytes, headers).map(|call_id| Some(call_id.into())).ok_or(DropReason::NoPersistenceKey)
}

/// The Call-ID in a packet, which must be UDP.
pub(super) fn call_id_in<'a>(bytes: &'a [u8], headers: &Headers) -> Option<&'a [u8]> {
    let datagram = Some(headers.payload(bytes)).filter(|_| headers.protocol == Protocol::Udp.number())?;
    sip::call_id(datagram.get(udp::HEADER_LEN..)?).ok()
}

/// The key persistence looks a client up by (spec control §4.1).
pub(super) fn template_key(service: &Service, first: &FirstPacket) -> TemplateKey {
    let family = AddressFamily::of(first.client.address);
    let client = service.config.netmask.unwrap_or(Netmask::host(family)).apply(first.client.address);
    if let ServiceKey::FwMark { mark, .. } = service.key {
        return TemplateKey {
            protocol: None,
            client,
            virtual_address: mark_as_address(family, mark),
            virtual_port: 0,
            engine_key: None,
        };
    }
    let port = service.key.port();
    let is_own_port = first.destination.port == port && port != FTP_PORT;
    TemplateKey {
        protocol: Some(first.protocol),
        client,
        virtual_address: first.destination.address,
        virtual_port: if is_own_port { port } else { 0 },
        engine_key: None,
    }
}

/// A firewall mark as Linux stores it in a template: big-endian in the first four bytes of the address.
fn mark_as_address(family: AddressFamily, mark: u32) -> IpAddr {
    match family {
        AddressFamily::Ipv4 => IpAddr::V4(Ipv4Addr::from_bits(mark)),
        AddressFamily::Ipv6 => IpAddr::V6(Ipv6Addr::from_bits(u128::from(mark) << 96)),
    }
}
