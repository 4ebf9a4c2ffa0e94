//! Datagrams that a real server sends first: with a persistence engine that understands them (SIP), they open a
//! connection towards the client, so that they leave with the virtual address. This is also how replies are translated
//! where every request is scheduled by itself (`-o`).
//! Source: Linux IPVS's persistence engine for SIP.

use crate::connection::Connection;
use crate::director::decide::choose::Persistence;
use crate::director::decide::choose::call_id_in;
use crate::director::decide::choose::template_key;
use crate::director::decide::classify::FirstPacket;
use crate::director::decide::opening::new_connection;
use crate::director::tables::Tables;
use crate::flow::{Endpoint, Protocol};
use crate::persistence::{TemplateId, TemplateKey};
use crate::service::table::Service;
use crate::service::{ForwardMethod, ServerId, ServiceKey};
use crate::time::Instant;
use crate::wire::parse::Headers;

/// The connection such a datagram opens.
pub(in crate::director) struct ServerInitiated {
    /// The flow as if the client had opened it.
    pub first: FirstPacket,
    pub server: ServerId,
    pub real: Endpoint,
    pub template: Persistence,
    /// A template that was found but is of no use any more.
    pub invalid: Option<TemplateId>,
}

impl Tables<'_> {
    /// Whether a packet without a connection is such a datagram. `source` and `destination` are the packet's.
    pub(in crate::director) fn classify_server_initiated(
        &self,
        now: Instant,
        source: Endpoint,
        destination: Endpoint,
        bytes: &[u8],
        headers: &Headers,
    ) -> Option<ServerInitiated> {
        // AH and ESP only follow connections; what is for the host itself is no reply on its way through.
        let may_open = self.services.table.has_engines()
            && headers.protocol == Protocol::Udp.number()
            && destination.port != 0
            && self.services.servers.is_nat_server(Protocol::Udp, source)
            && !self.services.table.is_virtual(destination.address)
            && !self.is_own_address(destination.address);
        if !may_open {
            return None;
        }
        let (service, server) =
            self.services.table.iter().find_map(|service| Some((service, self.speaker_of(service, source)?)))?;
        let virtual_endpoint = match service.key {
            ServiceKey::Address { address, port, .. } => Endpoint::new(address, port),
            ServiceKey::FwMark { .. } => return None,
        };
        let first = FirstPacket {
            service: self.services.table.index_of(&service.key)?,
            protocol: Protocol::Udp,
            client: destination,
            destination: virtual_endpoint,
            mark: 0,
            is_quoted: false,
        };
        let mut opened = ServerInitiated { first, server, real: source, template: Persistence::None, invalid: None };
        if service.is_persistent() {
            let engine_key = Some(call_id_in(bytes, headers)?.into());
            let key = TemplateKey { engine_key, ..template_key(service, &first) };
            match self.flows.templates.find(now, &key) {
                Some(id) if self.is_template_of(id, server) => opened.template = Persistence::Existing(id),
                found => {
                    opened.invalid = found;
                    opened.template = Persistence::New { key, real_port: source.port };
                }
            }
        }
        Some(opened)
    }

    /// The server at `source` that may speak first for this service.
    fn speaker_of(&self, service: &Service, source: Endpoint) -> Option<ServerId> {
        let ServiceKey::Address { protocol: Protocol::Udp, port: 1.., .. } = service.key else { return None };
        if !service.has_engine() {
            return None;
        }
        let server = &service.servers[service.position(&source)?];
        let is_nat =
            self.services.servers.get(server.id).is_some_and(|record| record.config.forward == ForwardMethod::Nat);
        is_nat.then_some(server.id)
    }

    fn is_template_of(&self, id: TemplateId, server: ServerId) -> bool {
        self.is_template_usable(id) && self.flows.templates.get(id).is_some_and(|template| template.server == server)
    }

    pub(in crate::director) fn server_initiated_connection(
        &self,
        now: Instant,
        opened: &ServerInitiated,
    ) -> Connection {
        let server = Some(opened.server);
        let mut connection = new_connection(now, &opened.first, opened.real, ForwardMethod::Nat, server);
        connection.one_packet = self.is_one_packet(&opened.first, ForwardMethod::Nat);
        connection
    }
}
