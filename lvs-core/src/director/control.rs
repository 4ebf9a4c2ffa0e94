//! Commands: the only writer of configuration. Every check comes before the first change, in the order Linux checks,
//! so a refused command has changed nothing. Source: Linux IPVS, as recorded in `conformance/`.

pub(super) mod drain;
pub(super) mod least_mtu;
pub(super) mod local_addresses;
pub(super) mod weights;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::time::Duration;

use super::Director;
use crate::command::Command;
use crate::director::carry_out::accounting::thresholds;
use crate::director::control::weights::FACTOR_ONE;
use crate::director::tables::Tables;
use crate::error::ControlError;
use crate::event::Event;
use crate::flow::AddressFamily;
use crate::helper::Helper;
use crate::scheduler::{Change, Scheduler, SchedulerInit};
use crate::service::server_table::{Place, ServerRecord};
use crate::service::stats::Meter;
use crate::service::table::{Service, ServiceIndex};
use crate::service::{
    DrainConfig, ForwardMethod, Netmask, RealServer, ServerConfig, ServerKey, ServiceConfig, ServiceKey,
    ServiceTimeouts, TunnelKind,
};
use crate::settings::Settings;
use crate::time::Instant;

/// The only persistence engine there is.
const SIP: &str = "sip";

impl Director {
    pub(super) fn command(&mut self, now: Instant, command: &Command) -> Result<(), ControlError> {
        match command {
            Command::AddService(key, config) => self.add_service(now, key, config),
            Command::EditService(key, config) => self.edit_service(now, key, config),
            Command::DeleteService(key) => {
                let index = self.services.table.index_of(key).ok_or(ControlError::NoSuchService(*key))?;
                self.delete_service(now, index);
                Ok(())
            }
            Command::Flush => {
                for index in self.services.table.indexes() {
                    self.delete_service(now, index);
                }
                Ok(())
            }
            Command::AddServer(service, config) => self.add_server(now, service, config),
            Command::EditServer(service, config) => self.edit_server(now, service, config),
            Command::DeleteServer(service, server) => self.delete_server(now, service, server),
            Command::AddLocalAddress(service, address) => self.add_local_address(service, *address),
            Command::DeleteLocalAddress(service, address) => self.delete_local_address(service, *address),
            Command::Zero(service) => self.zero(service.as_ref()),
            Command::SetTimeouts { tcp, tcp_fin, udp } => {
                if [tcp, tcp_fin, udp].into_iter().flatten().any(|timeout| timeout.as_secs() > TIMEOUT_MAX_S) {
                    return Err(ControlError::Invalid("timeout"));
                }
                self.services.timeouts.set(*tcp, *tcp_fin, *udp);
                Ok(())
            }
            Command::SetSettings(settings) => self.set_settings(now, settings),
            Command::SetServerFactor { service, server, factor } => self.set_factor(now, service, server, *factor),
            Command::Drain { service, server, deadline, then } => {
                let drain = DrainConfig { deadline: *deadline, then: *then };
                self.drain(now, service, server, drain)
            }
        }
    }

    fn new_scheduler(&mut self, name: &str, key: &ServiceKey) -> Result<Box<dyn Scheduler>, ControlError> {
        let init = SchedulerInit {
            seed: self.site.seed.derive(self.services.scheduler_count),
            load_formula: self.site.config.load_formula,
            family: key.family(),
        };
        let scheduler = self
            .site
            .config
            .schedulers
            .create(name, &init)
            .ok_or_else(|| ControlError::NoSuchScheduler(name.into()))?;
        self.services.scheduler_count += 1;
        Ok(scheduler)
    }

    fn add_service(&mut self, now: Instant, key: &ServiceKey, config: &ServiceConfig) -> Result<(), ControlError> {
        if self.services.table.index_of(key).is_some() {
            return Err(ControlError::ServiceExists(*key));
        }
        if matches!(key, ServiceKey::FwMark { mark: 0, .. }) {
            return Err(ControlError::Invalid("a firewall mark of 0 means no mark"));
        }
        self.tables().check_names(config)?;
        check_netmask(key, config)?;
        check_numbers(config)?;
        self.tables().check_client_mtu(key)?;
        if self.services.table.len() >= self.site.config.services_max {
            return Err(ControlError::TableFull("services_max"));
        }
        let scheduler = self.new_scheduler(&config.scheduler, key)?;
        let index = self.services.table.insert(Service {
            key: *key,
            config: config.clone(),
            helper: self.tables().helper(config),
            servers: alloc::vec::Vec::new(),
            local_addresses: alloc::vec::Vec::new(),
            meter: Meter::default(),
            is_unavailable: false,
            told_conflict: None,
            added: self.services.added,
        });
        self.schedulers.set(index, scheduler);
        self.services.added += 1;
        self.start_estimator(now);
        Ok(())
    }

    fn edit_service(&mut self, now: Instant, key: &ServiceKey, config: &ServiceConfig) -> Result<(), ControlError> {
        let index = self.services.table.index_of(key).ok_or(ControlError::NoSuchService(*key))?;
        self.tables().check_names(config)?;
        check_netmask(key, config)?;
        check_numbers(config)?;
        let is_same =
            self.services.table.get(index).is_some_and(|service| service.config.scheduler == config.scheduler);
        let scheduler = if is_same { None } else { Some(self.new_scheduler(&config.scheduler, key)?) };
        let helper = self.tables().helper(config);
        let service = self.services.table.get_mut(index).expect("the index was just found");
        let slow_start_changed = service.config.slow_start != config.slow_start;
        let engines = (service.config.persistence_engine.is_some(), config.persistence_engine.is_some());
        service.config = config.clone();
        service.helper = helper;
        // The same scheduler keeps its state; another one starts afresh with the servers there are.
        if let Some(scheduler) = scheduler {
            self.schedulers.set(index, scheduler);
            self.schedulers.servers_changed(index, Change::Reset, &service.servers);
        }
        if slow_start_changed {
            self.refresh_weights(now, index);
        }
        self.services.table.note_engine(engines.0, engines.1);
        Ok(())
    }
}

impl Tables<'_> {
    fn check_names(&self, config: &ServiceConfig) -> Result<(), ControlError> {
        if !self.site.config.schedulers.contains(&config.scheduler) {
            return Err(ControlError::NoSuchScheduler(config.scheduler.clone()));
        }
        if let Some(name) = config.helper.as_ref().filter(|name| self.site.config.helpers.get(name).is_none()) {
            return Err(ControlError::NoSuchHelper(name.clone()));
        }
        match &config.persistence_engine {
            Some(engine) if !engine.is_empty() && engine != SIP => Err(ControlError::NoSuchScheduler(engine.clone())),
            _ => Ok(()),
        }
    }

    fn helper(&self, config: &ServiceConfig) -> Option<Arc<dyn Helper>> {
        self.site.config.helpers.get(config.helper.as_ref()?)
    }
}

impl Director {
    fn delete_service(&mut self, now: Instant, index: ServiceIndex) {
        let Some(service) = self.services.table.remove(index) else { return };
        self.schedulers.remove(index);
        for address in service.local_addresses {
            self.flows.full_nat.pool.leave(address);
        }
        for server in service.servers {
            self.services.timers.clear(server.id);
            self.services.servers.bury(server.id, server, now, true);
        }
        self.servers_left(now);
    }

    fn add_server(&mut self, now: Instant, key: &ServiceKey, config: &ServerConfig) -> Result<(), ControlError> {
        let index = self.services.table.index_of(key).ok_or(ControlError::ServiceNotDefined(*key))?;
        check_server(key, config)?;
        self.tables().check_server_mtu(config)?;
        let service = self.services.table.get(index).expect("the index was just found");
        if service.position(&config.key).is_some() {
            return Err(ControlError::ServerExists(config.key));
        }
        let server = match self.services.servers.find_buried(key, config) {
            Some(id) => self.services.servers.revive(id, *key, config.clone(), index).expect("it was just found"),
            None => {
                check_unicast(config.key.address, "the server's address is not unicast")?;
                if self.services.servers.len() >= self.site.config.servers_max {
                    return Err(ControlError::TableFull("servers_max"));
                }
                let id = self.services.servers.insert(ServerRecord {
                    service: *key,
                    config: config.clone(),
                    place: Place::Listed { service: index, position: 0 },
                    meter: Meter::default(),
                    service_was_deleted: false,
                    ramp_since: None,
                    drain: None,
                    over: 0,
                    factor: FACTOR_ONE,
                    told_ports_exhausted: false,
                    route: None,
                    proof: 0,
                });
                RealServer::new(id, config.key, config.weight)
            }
        };
        let id = server.id;
        self.set_drain(now, id, config.drain);
        self.start_ramp(now, id);
        let weight = self.tables().effective_weight(now, id);
        self.list_server(index, RealServer { weight, last_weight: weight, ..server });
        self.tell_if_drained(id);
        Ok(())
    }

    /// Puts a server at the head of its service's list.
    fn list_server(&mut self, index: ServiceIndex, mut server: RealServer) {
        let config = self.services.servers.get(server.id).map(|record| &record.config);
        evaluate_overload(&mut server, config);
        let service = self.services.table.get_mut(index).expect("the caller found it");
        service.servers.insert(0, server);
        service.is_unavailable = false;
        self.renumber(index);
        let service = self.services.table.get_mut(index).expect("the caller found it");
        self.schedulers.servers_changed(index, Change::Added { index: 0 }, &service.servers);
    }

    /// Tells every server of a service its place in the list.
    fn renumber(&mut self, index: ServiceIndex) {
        let service = self.services.table.get(index).expect("the caller found it");
        for (position, server) in service.servers.iter().enumerate() {
            if let Some(record) = self.services.servers.get_mut(server.id) {
                record.place = Place::Listed { service: index, position };
            }
        }
    }

    fn edit_server(&mut self, now: Instant, key: &ServiceKey, config: &ServerConfig) -> Result<(), ControlError> {
        let index = self.services.table.index_of(key).ok_or(ControlError::ServiceNotDefined(*key))?;
        check_server(key, config)?;
        self.tables().check_server_mtu(config)?;
        let service = self.services.table.get(index).expect("the index was just found");
        let position = service.position(&config.key).ok_or(ControlError::NoSuchServer(config.key))?;
        let (id, weight_before) = (service.servers[position].id, service.servers[position].weight);
        let before = self.services.servers.get(id).map(|record| record.config.clone());
        self.services.servers.edit(id, config.clone());
        // The same drain goes on: its time does not begin anew with every edit of a weight.
        if before.as_ref().is_none_or(|before| before.drain != config.drain) {
            self.set_drain(now, id, config.drain);
        }
        if weight_before == 0 && self.tables().effective_weight(now, id) != 0 {
            self.start_ramp(now, id);
        } else {
            self.time_ramp(now, id);
        }
        let weight = self.tables().effective_weight(now, id);
        let service = self.services.table.get_mut(index).expect("the index was just found");
        let server = &mut service.servers[position];
        server.weight = weight;
        if weight != 0 {
            server.last_weight = weight;
        }
        let thresholds_changed = before.is_some_and(|before| {
            (before.upper_threshold, before.lower_threshold) != (config.upper_threshold, config.lower_threshold)
        });
        if thresholds_changed {
            evaluate_overload(server, Some(config));
        }
        service.is_unavailable = false;
        self.schedulers.servers_changed(index, Change::Edited { index: position }, &service.servers);
        self.tell_if_drained(id);
        Ok(())
    }

    fn delete_server(&mut self, now: Instant, key: &ServiceKey, server: &ServerKey) -> Result<(), ControlError> {
        let index = self.services.table.index_of(key).ok_or(ControlError::ServiceNotDefined(*key))?;
        let service = self.services.table.get_mut(index).expect("the index was just found");
        let position = service.position(server).ok_or(ControlError::NoSuchServer(*server))?;
        let removed = service.servers.remove(position);
        let change = Change::Removed { index: position, id: removed.id };
        self.schedulers.servers_changed(index, change, &service.servers);
        self.renumber(index);
        self.services.timers.clear(removed.id);
        self.services.servers.bury(removed.id, removed, now, false);
        self.servers_left(now);
        Ok(())
    }

    fn zero(&mut self, key: Option<&ServiceKey>) -> Result<(), ControlError> {
        let indexes = match key {
            Some(key) => alloc::vec![self.services.table.index_of(key).ok_or(ControlError::NoSuchService(*key))?],
            None => self.services.table.indexes(),
        };
        for index in indexes {
            let service = self.services.table.get_mut(index).expect("the index was just found");
            service.meter.zero();
            for server in &service.servers {
                if let Some(record) = self.services.servers.get_mut(server.id) {
                    record.meter.zero();
                }
            }
        }
        if key.is_none() {
            self.services.totals.zero();
        }
        Ok(())
    }

    fn set_settings(&mut self, now: Instant, settings: &Settings) -> Result<(), ControlError> {
        if [settings.drop_entry, settings.drop_packet, settings.secure_tcp].iter().any(|mode| *mode > 3) {
            return Err(ControlError::Invalid("drop_entry, drop_packet and secure_tcp take 0 to 3"));
        }
        let modes = |settings: &Settings| [settings.drop_entry, settings.drop_packet, settings.secure_tcp];
        let modes_changed = modes(&self.site.config.settings) != modes(settings);
        self.site.config.settings = settings.clone();
        // As in Linux, thresholds and rates alone wait for the next second.
        if modes_changed {
            self.evaluate_defence(now);
        }
        Ok(())
    }

    /// Forgets what has waited in the trash long enough, and tells of it.
    pub(super) fn sweep_trash(&mut self, now: Instant, budget: &mut u32) {
        let (services, schedulers) = (&self.services.table, &self.schedulers);
        // A scheduler only ever knew the servers of its own service.
        let forgotten = self.services.servers.sweep_trash(now, budget, |key, id| {
            services.index_of(key).is_some_and(|service| schedulers.remembers(service, id))
        });
        for record in forgotten {
            self.outlet.events.push(Event::ServerForgotten { service: record.service, server: record.config.key });
        }
    }
}

fn check_numbers(config: &ServiceConfig) -> Result<(), ControlError> {
    if config.mss_clamp == Some(0) {
        return Err(ControlError::Invalid("mss_clamp"));
    }
    let Some(ServiceTimeouts { tcp, tcp_fin, udp }) = config.timeouts else { return Ok(()) };
    let is_wrong = |timeout: Duration| timeout.is_zero() || timeout.as_secs() > TIMEOUT_MAX_S;
    match [tcp, tcp_fin, udp].into_iter().flatten().any(is_wrong) {
        true => Err(ControlError::Invalid("timeout")),
        false => Ok(()),
    }
}

/// ⌊(2³¹ − 1) / HZ⌋ at HZ 250: what Linux accepts, in seconds.
pub(super) const TIMEOUT_MAX_S: u64 = 8_589_934;

fn check_netmask(key: &ServiceKey, config: &ServiceConfig) -> Result<(), ControlError> {
    match (key.family(), config.netmask) {
        (_, None) | (AddressFamily::Ipv4, Some(Netmask::V4(_))) => Ok(()),
        (AddressFamily::Ipv6, Some(Netmask::V6(prefix))) if (1..=128).contains(&prefix) => Ok(()),
        _ => Err(ControlError::Invalid("netmask")),
    }
}

fn check_server(key: &ServiceKey, config: &ServerConfig) -> Result<(), ControlError> {
    if config.forward == ForwardMethod::Bypass {
        return Err(ControlError::Invalid("bypass is what cache_bypass does, and leads to no server"));
    }
    let is_same_family = AddressFamily::of(config.key.address) == key.family();
    let reaches_other_family = match config.forward {
        ForwardMethod::Tunnel => true,
        // NAT64; the other way round is not translated.
        ForwardMethod::FullNat => key.family() == AddressFamily::Ipv6,
        _ => false,
    };
    if !is_same_family && !reaches_other_family {
        return Err(ControlError::Invalid("this method does not reach servers of the other address family"));
    }
    if config.weight > i32::MAX as u32 {
        return Err(ControlError::OutOfRange("weight"));
    }
    if config.lower_threshold > config.upper_threshold {
        return Err(ControlError::OutOfRange("the lower threshold is above the upper one"));
    }
    if config.upper_threshold > i32::MAX as u32 {
        return Err(ControlError::Invalid("upper threshold"));
    }
    if config.tunnel.kind == TunnelKind::Gue && config.tunnel.port == 0 {
        return Err(ControlError::Invalid("a GUE tunnel needs a port"));
    }
    if config.mtu == Some(0) {
        return Err(ControlError::Invalid("mtu"));
    }
    Ok(())
}

pub(super) fn check_unicast(address: core::net::IpAddr, otherwise: &'static str) -> Result<(), ControlError> {
    let is_unicast = match address {
        core::net::IpAddr::V4(address) => {
            // 240.0.0.0/4 is reserved, and Linux takes it as unicast.
            !(address.is_multicast() || address.is_broadcast() || address.is_unspecified())
        }
        core::net::IpAddr::V6(address) => {
            !(address.is_multicast()
                || address.is_unspecified()
                || address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some())
        }
    };
    if is_unicast { Ok(()) } else { Err(ControlError::Invalid(otherwise)) }
}

/// Sets or clears the overload flag where thresholds or counts came together anew.
fn evaluate_overload(server: &mut RealServer, config: Option<&ServerConfig>) {
    let Some(config) = config else { return };
    let (upper, lower) = thresholds(config.upper_threshold, config.lower_threshold);
    if upper == 0 {
        server.is_overloaded = false;
    } else if server.total_connections >= upper {
        server.is_overloaded = true;
    } else if server.total_connections < lower {
        server.is_overloaded = false;
    }
}
