//! Choosing a server for a packet that a service takes: persistence first, then the scheduler, and what to do when
//! neither has one. Changes nothing but the scheduler it is lent, so `explain` chooses here too.

use crate::director::decide::classify::FirstPacket;
use crate::director::tables::Tables;
use crate::drop_reason::DropReason;
use crate::explanation::PassReason;
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::persistence::{TemplateId, TemplateKey, sip};
use crate::scheduler::{Request, Scheduler};
use crate::service::table::{FTP_PORT, Service};
use crate::service::{ForwardMethod, Netmask, ServerId, ServiceKey};
use crate::time::Instant;
use crate::wire::parse::Headers;
use crate::wire::udp;
use alloc::boxed::Box;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// FTP's active data connections come from here; such clients are never scheduled.
const FTP_DATA_PORT: u16 = 20;

/// What becomes of a packet that a service takes.
pub(in crate::director) struct Choice {
    pub decision: Decision,
    /// A template that was found but is of no use any more.
    pub invalid: Option<TemplateId>,
    /// Whether the scheduler was asked.
    pub was_scheduled: bool,
}

pub(in crate::director) enum Decision {
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
pub(in crate::director) enum Persistence {
    None,
    Existing(TemplateId),
    New { key: TemplateKey, real_port: u16 },
}

impl Tables<'_> {
    /// Which server, by the rules of the service. Changes nothing but `scheduler`'s own state.
    pub(in crate::director) fn choose(
        &self,
        now: Instant,
        first: &FirstPacket,
        bytes: &[u8],
        headers: &Headers,
        scheduler: &mut dyn Scheduler,
    ) -> Choice {
        let service = self.services.table.get(first.service).expect("it was classified by it");
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
        let port_for = |port: u16| if port != 0 { port } else { first.destination.port };
        let chosen = self.schedule(now, first, service, scheduler);
        let decision = match chosen.map(|position| self.without_conflict(now, first, service, position, port_for)) {
            None => self.no_server(first, service),
            Some(Err(reason)) => Decision::Drop(reason),
            Some(Ok(position)) => {
                let server = &service.servers[position];
                self.to_server(server.id, port_for(server.key.port), Persistence::None)
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
        let service = self.services.table.get(first.service).expect("it was classified by it");
        let found = self.flows.templates.find(now, &key);
        let usable = found.filter(|id| self.is_template_usable(*id));
        let invalid = found.filter(|_| usable.is_none());
        let is_service_port = first.destination.port == service.key.port();
        // The server's own port applies only on the service's own port; any-port and fwmark services keep the packet's.
        let port_for = |port: u16| if is_service_port && port != 0 { port } else { first.destination.port };
        if let Some(id) = usable {
            let template = self.flows.templates.get(id).expect("it was just found");
            let port = self.services.servers.get(template.server).map_or(0, |record| record.config.key.port);
            let decision = match self.to_server(template.server, port_for(port), Persistence::Existing(id)) {
                Decision::Server { real, forward, .. } if self.refuses_conflict(now, first, service, forward, real) => {
                    Decision::Drop(DropReason::ReplyConflict)
                }
                decision => decision,
            };
            return Choice { decision, invalid, was_scheduled: false };
        }
        let chosen = self.schedule(now, first, service, scheduler);
        let decision = match chosen.map(|position| self.without_conflict(now, first, service, position, port_for)) {
            None => self.no_server(first, service),
            Some(Err(reason)) => Decision::Drop(reason),
            Some(Ok(position)) => {
                let server = &service.servers[position];
                let template_port = if key.virtual_port == 0 { 0 } else { server.key.port };
                let persistence = Persistence::New { key, real_port: template_port };
                self.to_server(server.id, port_for(server.key.port), persistence)
            }
        };
        Choice { decision, invalid, was_scheduled: true }
    }

    fn to_server(self, server: ServerId, port: u16, template: Persistence) -> Decision {
        let config = &self.services.servers.get(server).expect("it is listed or a template holds it").config;
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
            settings: &self.site.config.settings,
        };
        let position = scheduler.schedule(&request, &service.servers)?;
        // A scheduler from outside may be wrong; a quiesced server is never used.
        service.servers.get(position).filter(|server| server.weight > 0).map(|_| position)
    }

    fn no_server(&self, first: &FirstPacket, service: &Service) -> Decision {
        let is_fwmark = matches!(service.key, ServiceKey::FwMark { .. });
        if self.site.config.settings.cache_bypass
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
        is_unicast && !self.is_host_address(address)
    }

    pub(in crate::director) fn is_template_usable(&self, id: TemplateId) -> bool {
        let template = self.flows.templates.get(id).expect("it was just found");
        let Some(server) = self.services.servers.get(template.server) else { return false };
        let is_quiesced = || self.services.counts(template.server).map_or(0, |counts| counts.weight) == 0;
        server.is_listed()
            && server.drain.is_none()
            && !(self.site.config.settings.expire_quiescent_template && is_quiesced())
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
pub(in crate::director) fn call_id_in<'a>(bytes: &'a [u8], headers: &Headers) -> Option<&'a [u8]> {
    let datagram = Some(headers.payload(bytes)).filter(|_| headers.protocol == Protocol::Udp.number())?;
    sip::call_id(datagram.get(udp::HEADER_LEN..)?).ok()
}

/// The key persistence looks a client up by.
pub(in crate::director) fn template_key(service: &Service, first: &FirstPacket) -> TemplateKey {
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
