//! Opening a connection: which service, which server, and what if there is none.

use std::net::SocketAddr;

use lvs_core::{ForwardMethod, Protocol};

use super::{Connection, Expected, Flow, Model, Template};

/// What ties a new connection's client to its server.
enum Stuck {
    /// The template of this name.
    By(u32),
    /// This one, which is still to be added.
    From(Template),
}

impl Model {
    /// A packet without a connection.
    pub(super) fn open(&mut self, flow: &Flow) -> Expected {
        let (syn, rst) = (flow.flags & 0x02 != 0, flow.flags & 0x04 != 0);
        if flow.protocol == Protocol::Tcp && (rst || !(syn || self.settings.sloppy_tcp)) {
            return Expected::Pass;
        }
        let at = |port| {
            let wanted = SocketAddr::new(flow.destination.ip(), port);
            self.services.iter().position(|service| service.protocol == flow.protocol && service.at == wanted)
        };
        let Some(service) = at(flow.destination.port()).or_else(|| at(0)) else { return Expected::Pass };
        if flow.source.port() == 20 {
            return Expected::Pass;
        }
        let is_own_port = flow.destination.port() == self.services[service].at.port();
        let (server, stuck) = match self.services[service].persistence_s {
            Some(timeout_s) => match self.stick(flow, service, is_own_port, timeout_s) {
                Some((server, stuck)) => (server, Some(stuck)),
                None => return Expected::Refused,
            },
            None if !is_own_port => return Expected::Refused,
            None => match self.schedule(service) {
                Some(server) => (server, None),
                None => return Expected::Refused,
            },
        };
        let (kept, new) = match stuck {
            Some(Stuck::By(name)) => (Some(name), None),
            Some(Stuck::From(template)) => (None, Some(template)),
            None => (None, None),
        };
        let is_syn = syn && flow.protocol == Protocol::Tcp;
        let room = match self.room(flow.source.ip(), new.is_some(), is_syn) {
            Ok(room) => room,
            Err(reason) => return Expected::Full(reason),
        };
        self.make_room(&room, kept);
        let template = kept.or(new.as_ref().map(|template| template.name));
        self.templates.extend(new);
        let turn = self.next_turn();
        let chosen = self.server(server);
        let (at, forward) = (chosen.at, chosen.forward);
        let port = if is_own_port && at.port() != 0 { at.port() } else { flow.destination.port() };
        self.connections.push(Connection {
            protocol: flow.protocol,
            client: flow.source,
            destination: flow.destination,
            real: SocketAddr::new(at.ip(), port),
            forward,
            server,
            template,
            state: if flow.protocol == Protocol::Tcp { "NO" } else { "UDP" },
            client_alone: forward != ForwardMethod::Nat,
            timeout_s: 3,
            deadline_s: self.now_s + 3,
            packets: 0,
            heard: 0,
            came: turn,
        });
        let total = self.total(server);
        let bound = self.server_mut(server);
        if bound.upper != 0 && total == bound.upper {
            bound.is_overloaded = true;
        }
        let now_s = self.now_s;
        if let Some(template) = self.templates.iter_mut().find(|known| Some(known.name) == template) {
            template.deadline_s = now_s + template.timeout_s;
            template.used = turn;
        }
        self.count(server, |counters| counters.connections += 1);
        self.request(self.connections.len() - 1, flow)
    }

    /// The server a client has by persistence, or a new one for it, and the template that says so.
    fn stick(&mut self, flow: &Flow, service: usize, is_own_port: bool, timeout_s: u64) -> Option<(u32, Stuck)> {
        let virtual_port = if is_own_port { flow.destination.port() } else { 0 };
        let destination = SocketAddr::new(flow.destination.ip(), virtual_port);
        let found = self.templates.iter().rposition(|known| {
            !known.is_invalid
                && known.protocol == flow.protocol
                && known.client == flow.source.ip()
                && known.destination == destination
        });
        if let Some(index) = found {
            let server = self.server(self.templates[index].server);
            if server.is_listed && !(self.settings.expire_quiescent_template && server.weight == 0) {
                return Some((server.name, Stuck::By(self.templates[index].name)));
            }
            let turn = self.next_turn();
            let template = &mut self.templates[index];
            template.is_invalid = true;
            // Of no use to anybody any more, but those without a client give way before it.
            if template.is_proven || template.is_talked {
                template.used = turn;
            }
            template.destination.set_port(65535);
            template.real.set_port(65535);
        }
        let server = self.schedule(service)?;
        let (at, forward) = (self.server(server).at, self.server(server).forward);
        let name = self.new_name();
        let template = Template {
            name,
            protocol: flow.protocol,
            client: flow.source.ip(),
            destination,
            real: SocketAddr::new(at.ip(), if virtual_port == 0 { 0 } else { at.port() }),
            forward,
            server,
            timeout_s,
            deadline_s: self.now_s + timeout_s,
            is_assured: false,
            is_invalid: false,
            is_proven: false,
            is_talked: false,
            used: 0,
        };
        Some((server, Stuck::From(template)))
    }

    fn schedule(&mut self, service: usize) -> Option<u32> {
        let names = self.services[service].servers.clone();
        let is_eligible = |model: &Self, name: u32| {
            let server = model.server(name);
            server.weight > 0 && !server.is_overloaded
        };
        if self.services[service].scheduler == "rr" {
            let last = self.services[service].last;
            let start = last.and_then(|last| names.iter().position(|name| *name == last)).map_or(0, |at| at + 1);
            let mut circle = names[start..].iter().chain(&names[..start]);
            let chosen = circle.find(|name| is_eligible(self, **name)).copied()?;
            self.services[service].last = Some(chosen);
            return Some(chosen);
        }
        // wlc: overhead / weight, compared crosswise; of equals the earlier one.
        let load = |name: u32| u64::from(self.active(name) * 256 + self.total(name));
        let weight = |name: u32| u64::from(self.server(name).weight);
        let mut eligible = names.iter().copied().filter(|name| is_eligible(self, *name));
        let first = eligible.next()?;
        Some(eligible.fold(
            first,
            |least, name| {
                if load(least) * weight(name) > load(name) * weight(least) { name } else { least }
            },
        ))
    }
}
