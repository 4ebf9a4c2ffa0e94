//! Read-only copies of the tables. What has ended but was not cleared away yet is not shown and not counted.

use crate::local_address::LocalPortsView;

use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::Director;
use crate::connection::tcp::TcpState;
use crate::connection::timeouts::Timeouts;
use crate::connection::{Connection, State};
use crate::director::carry_out::accounting::Count;
use crate::director::tables::Tables;
use crate::flow::{AddressFamily, Endpoint};
use crate::persistence::Template;
use crate::service::stats::Statistics;
use crate::service::table::Service;
use crate::service::{RealServer, ServerId, ServiceKey};
use crate::time::Instant;
use crate::view::{ConnectionView, DrainView, ServerView, ServiceView, TimeoutsView};

/// What a server still counts though it has ended.
#[derive(Clone, Copy, Default)]
pub(super) struct Ended {
    active: u32,
    total: u32,
    expected: u32,
    /// Of the total, those that were over by their state already.
    over: u32,
    templates: u32,
}

impl Director {
    /// Every service, sorted by key, with its servers in list order (newest first).
    pub fn services(&self, now: Instant) -> Vec<ServiceView> {
        let now = self.clock.time_at(now);
        let ended = self.tables().ended(now);
        let mut views: Vec<_> =
            self.services.table.iter().map(|service| self.tables().service_view(now, service, &ended)).collect();
        views.sort_by_key(|view| view.key);
        views
    }

    /// One service; `None` if there is none with this key.
    pub fn service(&self, now: Instant, key: &ServiceKey) -> Option<ServiceView> {
        let service = self.services.find(key)?;
        let now = self.clock.time_at(now);
        Some(self.tables().service_view(now, service, &self.tables().ended(now)))
    }

    /// Every living connection and template. Order means nothing, but is the same in every run.
    pub fn connections(&self, now: Instant) -> impl Iterator<Item = ConnectionView> + '_ {
        let now = self.clock.time_at(now);
        let connections = self.flows.connections.iter().filter(move |(_, connection)| connection.deadline > now);
        let templates = self.flows.templates.iter().filter(move |(_, template)| template.deadline > now);
        connections
            .map(move |(_, connection)| connection_view(connection, now))
            .chain(templates.map(move |(_, template)| self.tables().template_view(template, now)))
    }

    /// How many connections live; templates do not count.
    pub fn connection_count(&self, now: Instant) -> usize {
        let now = self.clock.time_at(now);
        self.flows.connections.iter().filter(|(_, connection)| connection.deadline > now).count()
    }

    /// The counters of the whole director.
    pub fn statistics(&self) -> Statistics {
        self.services.totals.statistics()
    }

    /// The timeouts `ipvsadm -L --timeout` shows.
    pub fn timeouts(&self) -> TimeoutsView {
        timeouts_view(&self.services.timeouts)
    }
}

impl Tables<'_> {
    pub(super) fn service_view(
        &self,
        now: Instant,
        service: &Service,
        ended: &BTreeMap<ServerId, Ended>,
    ) -> ServiceView {
        let servers = service
            .servers
            .iter()
            .filter_map(|server| self.server_view(now, server, ended.get(&server.id).copied().unwrap_or_default()));
        ServiceView { servers: servers.collect(), ..self.service_row(service) }
    }

    /// A service without its servers.
    pub(super) fn service_row(&self, service: &Service) -> ServiceView {
        ServiceView {
            key: service.key,
            added: service.added,
            config: service.config.clone(),
            statistics: service.meter.statistics(),
            local_addresses: service.local_addresses.clone(),
            servers: Vec::new(),
        }
    }

    /// A server with its counts as they stand.
    pub(super) fn server_row(&self, server: &RealServer) -> Option<ServerView> {
        self.server_view(self.now, server, Ended::default())
    }

    fn server_view(&self, now: Instant, server: &RealServer, ended: Ended) -> Option<ServerView> {
        let record = self.services.servers.get(server.id)?;
        let total = server.total_connections - ended.total;
        let active = server.active_connections - ended.active;
        let expected = server.expected_connections - ended.expected;
        Some(ServerView {
            config: record.config.clone(),
            effective_weight: server.weight,
            active_connections: active,
            // Linux lists those that are only expected among them.
            inactive_connections: total.saturating_sub(active) + expected,
            persistent_connections: server.persistent_connections - ended.templates,
            is_overloaded: server.is_overloaded,
            drain: record.drain.map(|drain| DrainView {
                ends_in: drain.deadline.duration_since(now),
                then: drain.then,
                open: total.saturating_sub(record.over - ended.over),
            }),
            statistics: record.meter.statistics(),
        })
    }

    /// What has ended but is still counted, by server. Walks the tables only when something may have.
    pub(super) fn ended(&self, now: Instant) -> BTreeMap<ServerId, Ended> {
        let mut ended: BTreeMap<ServerId, Ended> = BTreeMap::new();
        if self.flows.connections.may_have_expired(now) {
            for (_, connection) in self.flows.connections.iter().filter(|(_, connection)| connection.deadline <= now) {
                let Some(server) = connection.server else { continue };
                let counts = ended.entry(server).or_default();
                match Count::of(connection) {
                    Count::Expected => counts.expected += 1,
                    _ => counts.total += 1,
                }
                counts.active += u32::from(connection.is_active);
                counts.over += u32::from(connection.state.is_over());
            }
        }
        if self.flows.templates.may_have_expired(now) {
            for (_, template) in self.flows.templates.iter().filter(|(_, template)| template.deadline <= now) {
                ended.entry(template.server).or_default().templates += 1;
            }
        }
        ended
    }

    pub(super) fn template_view(&self, template: &Template, now: Instant) -> ConnectionView {
        let server = self.services.servers.get(template.server).map(|record| record.config.key.address);
        ConnectionView {
            is_template: true,
            protocol: template.key.protocol,
            family: AddressFamily::of(template.key.client),
            client: Endpoint::new(template.key.client, 0),
            virtual_endpoint: Endpoint::new(template.key.virtual_address, template.key.virtual_port),
            real: Endpoint::new(server.unwrap_or(IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED)), template.real_port),
            local: None,
            forward: template.forward,
            state: if template.assured { "ASSURED" } else { "NONE" },
            expires_in: template.deadline.duration_since(now),
            mark: template.mark,
            in_packets: template.in_packets,
            persistence_key: template.key.engine_key.as_ref().map(|key| ("sip".to_string(), key.to_vec())),
        }
    }
}

pub(super) fn connection_view(connection: &Connection, now: Instant) -> ConnectionView {
    ConnectionView {
        is_template: false,
        protocol: Some(connection.protocol),
        family: AddressFamily::of(connection.client.address),
        client: connection.client,
        virtual_endpoint: connection.virtual_endpoint,
        real: connection.real,
        local: connection.local,
        forward: connection.forward,
        state: connection.state.name(),
        expires_in: connection.deadline.duration_since(now),
        mark: connection.mark,
        in_packets: connection.in_packets,
        persistence_key: None,
    }
}

fn timeouts_view(timeouts: &Timeouts) -> TimeoutsView {
    TimeoutsView {
        tcp: timeouts.of(State::Tcp(TcpState::Established)),
        tcp_fin: timeouts.of(State::Tcp(TcpState::FinWait)),
        udp: timeouts.of(State::Udp),
    }
}

impl Director {
    /// Every local address a service uses, sorted: whoever answers for the director on the server side answers for
    /// these.
    pub fn local_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.flows.full_nat.pool.addresses()
    }

    /// How many local ports are in which state, for each pair of real server and local address used so far, sorted.
    /// Leased, free and quarantined ones together are always [`crate::local_address::LocalPorts::count`].
    pub fn local_ports(&self, now: Instant) -> Vec<LocalPortsView> {
        self.flows.full_nat.pool.views(self.clock.time_at(now))
    }

    /// Packets that should have carried their client's address ([`crate::service::ClientAddress::Toa`],
    /// [`crate::service::ClientAddress::Uoa`]) and
    /// went without, because header, MTU or buffer had no room for it; with UOA, those beside which none could be sent
    /// either.
    pub fn client_addresses_omitted(&self) -> u64 {
        self.flows.full_nat.client_addresses_omitted
    }
}
