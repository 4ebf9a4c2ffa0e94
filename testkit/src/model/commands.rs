//! What an operator does to the model, the trash of deleted servers, and what listings show.

use std::net::SocketAddr;

use lvs_core::service::stats::Counters;
use lvs_core::{Command, Endpoint, ForwardMethod, Protocol, ServerConfig, ServiceConfig, ServiceKey, Settings};

use super::{Model, Server, Service, tcp_table};

/// A row of `ipvsadm -Lc`, sorted by everything.
pub type Row = (bool, Protocol, SocketAddr, SocketAddr, SocketAddr, ForwardMethod, &'static str, u64, u64);

/// A server in its service's listing: address, weight, active, inactive, persistent, overloaded, counters.
pub type Listed = (SocketAddr, u32, u32, u32, u32, bool, Counters);

impl Model {
    /// Carries out a command; whether it was accepted.
    ///
    /// # Panics
    /// If the model knows nothing of it.
    pub fn apply(&mut self, command: &Command) -> bool {
        match command {
            Command::AddService(key, config) => self.add_service(key, config),
            Command::EditService(key, config) => self.edit_service(key, config),
            Command::DeleteService(key) => self.delete_service(key),
            Command::AddServer(key, config) => self.add_server(key, config),
            Command::EditServer(key, config) => self.edit_server(key, config),
            Command::DeleteServer(key, server) => self.delete_server(key, server),
            Command::SetTimeouts { tcp, tcp_fin, udp } => {
                for (known, new) in self.timeouts_s.iter_mut().zip([tcp, tcp_fin, udp]) {
                    *known = new.map_or(*known, |new| new.as_secs());
                }
                true
            }
            Command::SetSettings(settings) => self.set_settings(settings),
            other => panic!("{other:?} is none of the model's commands"),
        }
    }

    fn set_settings(&mut self, settings: &Settings) -> bool {
        self.settings = settings.clone();
        true
    }

    fn find(&self, key: &ServiceKey) -> Option<usize> {
        let (protocol, at) = address(key);
        self.services.iter().position(|service| service.protocol == protocol && service.at == at)
    }

    fn find_server(&self, service: usize, server: &Endpoint) -> Option<u32> {
        let at = SocketAddr::new(server.address, server.port);
        self.services[service].servers.iter().copied().find(|name| self.server(*name).at == at)
    }

    fn add_service(&mut self, key: &ServiceKey, config: &ServiceConfig) -> bool {
        if self.find(key).is_some() {
            return false;
        }
        let (protocol, at) = address(key);
        self.services.push(Service {
            protocol,
            at,
            scheduler: config.scheduler.clone(),
            persistence_s: config.persistence_timeout_s.map(u64::from),
            servers: vec![],
            last: None,
            counters: Counters::default(),
        });
        true
    }

    fn edit_service(&mut self, key: &ServiceKey, config: &ServiceConfig) -> bool {
        let Some(index) = self.find(key) else { return false };
        let service = &mut self.services[index];
        if service.scheduler != config.scheduler {
            service.last = None;
        }
        service.scheduler = config.scheduler.clone();
        service.persistence_s = config.persistence_timeout_s.map(u64::from);
        true
    }

    fn delete_service(&mut self, key: &ServiceKey) -> bool {
        let Some(index) = self.find(key) else { return false };
        for name in self.services.remove(index).servers {
            self.bury(name);
        }
        self.sweep_pending |= self.settings.expire_nodest_conn;
        true
    }

    fn add_server(&mut self, key: &ServiceKey, config: &ServerConfig) -> bool {
        let Some(service) = self.find(key) else { return false };
        if self.find_server(service, &config.key).is_some() || config.lower_threshold > config.upper_threshold {
            return false;
        }
        let at = SocketAddr::new(config.key.address, config.key.port);
        let (protocol, service_at) = address(key);
        let is_same = |server: &&Server| {
            !server.is_listed && server.protocol == protocol && server.service == service_at && server.at == at
        };
        let buried = self.servers.iter().rfind(is_same).map(|server| server.name);
        let name = buried.unwrap_or_else(|| {
            let name = self.new_name();
            self.servers.push(Server {
                name,
                protocol,
                service: service_at,
                at,
                forward: config.forward,
                weight: 0,
                upper: 0,
                lower: 0,
                is_overloaded: false,
                is_listed: true,
                idle_since_s: None,
                counters: Counters::default(),
            });
            name
        });
        let server = self.server_mut(name);
        (server.is_listed, server.idle_since_s) = (true, None);
        self.configure(name, config);
        self.evaluate_overload(name);
        self.services[service].servers.insert(0, name);
        if self.servers.iter().all(|server| server.is_listed) {
            self.trash_due_s = None;
        }
        true
    }

    fn edit_server(&mut self, key: &ServiceKey, config: &ServerConfig) -> bool {
        let Some(service) = self.find(key) else { return false };
        let Some(name) = self.find_server(service, &config.key) else { return false };
        if config.lower_threshold > config.upper_threshold {
            return false;
        }
        let before = (self.server(name).upper, self.server(name).lower);
        self.configure(name, config);
        if before != (config.upper_threshold, config.lower_threshold) {
            self.evaluate_overload(name);
        }
        true
    }

    fn delete_server(&mut self, key: &ServiceKey, server: &Endpoint) -> bool {
        let Some(service) = self.find(key) else { return false };
        let Some(name) = self.find_server(service, server) else { return false };
        let service = &mut self.services[service];
        let position = service.servers.iter().position(|known| *known == name).expect("it was just found");
        if service.last == Some(name) {
            service.last = position.checked_sub(1).map(|before| service.servers[before]);
        }
        service.servers.remove(position);
        self.bury(name);
        self.sweep_pending |= self.settings.expire_nodest_conn;
        true
    }

    fn configure(&mut self, name: u32, config: &ServerConfig) {
        let server = self.server_mut(name);
        (server.forward, server.weight) = (config.forward, config.weight);
        (server.upper, server.lower) = (config.upper_threshold, config.lower_threshold);
    }

    fn evaluate_overload(&mut self, name: u32) {
        let total = self.total(name);
        let server = self.server_mut(name);
        if server.upper == 0 || (total < server.upper && total < server.lower_in_force()) {
            server.is_overloaded = false;
        } else if total >= server.upper {
            server.is_overloaded = true;
        }
    }

    fn bury(&mut self, name: u32) {
        self.server_mut(name).is_listed = false;
        // The newest is found first: it moves to the end.
        let index = self.servers.iter().position(|server| server.name == name).expect("it was just changed");
        let server = self.servers.remove(index);
        self.servers.push(server);
        self.trash_due_s.get_or_insert(self.now_s + 60);
    }

    /// Every 60 s: servers nothing hangs on become idle, and after 120 s of that they are forgotten.
    pub(super) fn look_through_trash(&mut self) {
        if self.trash_due_s != Some(self.now_s) {
            return;
        }
        for index in (0..self.servers.len()).rev().filter(|index| !self.servers[*index].is_listed).collect::<Vec<_>>() {
            let name = self.servers[index].name;
            let is_used = self.total(name) > 0 || self.templates.iter().any(|template| template.server == name);
            match self.servers[index].idle_since_s {
                _ if is_used => {}
                None => self.servers[index].idle_since_s = Some(self.now_s),
                Some(since) if self.now_s - since >= 120 => drop(self.servers.remove(index)),
                Some(_) => {}
            }
        }
        self.trash_due_s = self.servers.iter().any(|server| !server.is_listed).then_some(self.now_s + 60);
    }

    /// Every connection and template.
    pub fn rows(&self) -> Vec<Row> {
        let left = |deadline_s: u64| deadline_s - self.now_s;
        let connections = self.connections.iter().map(|known| {
            let state = tcp_table::name(known.state);
            let (client, left) = (known.client, left(known.deadline_s));
            let key = (false, known.protocol, client, known.destination, known.real);
            (key.0, key.1, key.2, key.3, key.4, known.forward, state, left, known.packets)
        });
        let templates = self.templates.iter().map(|known| {
            let state = if known.is_assured { "ASSURED" } else { "NONE" };
            let (client, left) = (SocketAddr::new(known.client, 0), left(known.deadline_s));
            (true, known.protocol, client, known.destination, known.real, known.forward, state, left, 0)
        });
        let mut rows: Vec<Row> = connections.chain(templates).collect();
        rows.sort();
        rows
    }

    /// The servers of a service in list order, and the service's counters; `None` if there is no such service.
    pub fn service(&self, key: &ServiceKey) -> Option<(Vec<Listed>, Counters)> {
        let service = &self.services[self.find(key)?];
        let listed = |name: &u32| {
            let (server, total, active) = (self.server(*name), self.total(*name), self.active(*name));
            let templates = self.templates.iter().filter(|template| template.server == *name).count() as u32;
            (server.at, server.weight, active, total - active, templates, server.is_overloaded, server.counters)
        };
        Some((service.servers.iter().map(listed).collect(), service.counters))
    }

    /// The counters of the whole director.
    pub fn totals(&self) -> Counters {
        self.totals
    }
}

fn address(key: &ServiceKey) -> (Protocol, SocketAddr) {
    match key {
        ServiceKey::Address { protocol, address, port } => (*protocol, SocketAddr::new(*address, *port)),
        ServiceKey::FwMark { .. } => panic!("the model has no fwmark services"),
    }
}
