//! A naive director: plain lists, searched from end to end, and a clock that ticks in whole seconds. No index, no
//! wheel, no ids that could go stale. Written from the specification, and only as much of it as [`Model`] names; what
//! it says is what the real director must do. Packets are not rewritten here but built anew.

mod bounds;
mod choice;
mod commands;
mod tcp_table;

use std::net::{IpAddr, SocketAddr};

use lvs_core::service::stats::Counters;
use lvs_core::{DropReason, ForwardMethod, Protocol, Settings};

use crate::{Packet, tcp, udp};
pub use bounds::Bounds;
use tcp_table::{Side, State};

/// NAT and direct routing, TCP and UDP over both families, rr and wlc, persistence, any-port services, thresholds, port
/// reuse, deleted and revived servers, settings, timeouts, counters, and who gives way where tables are full.
#[derive(Clone, Debug)]
pub struct Model {
    now_s: u64,
    services: Vec<Service>,
    /// Every server there is or was, deleted ones until they are forgotten.
    servers: Vec<Server>,
    /// Newest last.
    connections: Vec<Connection>,
    templates: Vec<Template>,
    settings: Settings,
    /// TCP ESTABLISHED, FIN_WAIT and UDP, in seconds.
    timeouts_s: [u64; 3],
    totals: Counters,
    sweep_pending: bool,
    trash_due_s: Option<u64>,
    names: u32,
    bounds: Bounds,
    /// Counts whatever takes its place at the end of a line.
    turns: u64,
}

#[derive(Clone, Debug)]
struct Service {
    protocol: Protocol,
    at: SocketAddr,
    scheduler: String,
    persistence_s: Option<u64>,
    /// Names of its servers, newest first.
    servers: Vec<u32>,
    /// What rr chose last.
    last: Option<u32>,
    counters: Counters,
}

#[derive(Clone, Debug)]
struct Server {
    name: u32,
    protocol: Protocol,
    service: SocketAddr,
    at: SocketAddr,
    forward: ForwardMethod,
    weight: u32,
    upper: u32,
    lower: u32,
    is_overloaded: bool,
    is_listed: bool,
    /// In the trash, since when nothing hangs on it.
    idle_since_s: Option<u64>,
    counters: Counters,
}

#[derive(Clone, Debug)]
struct Connection {
    protocol: Protocol,
    client: SocketAddr,
    destination: SocketAddr,
    real: SocketAddr,
    forward: ForwardMethod,
    server: u32,
    template: Option<u32>,
    state: State,
    client_alone: bool,
    timeout_s: u64,
    deadline_s: u64,
    packets: u64,
    /// Of datagrams: 1 once the server has answered, 2 once the client has talked on.
    heard: u8,
    /// Since when it stands in the line of those who have proved nothing.
    came: u64,
}

#[derive(Clone, Debug)]
struct Template {
    name: u32,
    protocol: Protocol,
    client: IpAddr,
    destination: SocketAddr,
    real: SocketAddr,
    forward: ForwardMethod,
    server: u32,
    timeout_s: u64,
    deadline_s: u64,
    is_assured: bool,
    is_invalid: bool,
    /// A client that was there has used it.
    is_proven: bool,
    /// A client that talked on after an answer has.
    is_talked: bool,
    /// When it was used last, or became invalid.
    used: u64,
}

/// A packet, before it is bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// TCP flags; nothing to UDP.
    pub flags: u8,
    /// Bytes behind the transport header.
    pub payload_len: usize,
}

impl Flow {
    /// The packet, with hop limit 64.
    pub fn packet(&self) -> Packet {
        let packet = match self.protocol {
            Protocol::Udp => udp(self.source, self.destination),
            _ => tcp(self.source, self.destination).flags(self.flags).numbers(77, 99),
        };
        packet.payload_len(self.payload_len)
    }

    fn len(&self) -> u64 {
        self.packet().build().len() as u64
    }
}

/// What must become of a packet.
#[derive(Clone, Debug)]
pub enum Expected {
    /// Not ours.
    Pass,
    /// Its server is gone.
    Dropped,
    /// A table is full of those who have proved themselves.
    Full(DropReason),
    /// Port unreachable, to the client.
    Refused,
    /// These bytes, to this neighbour, on this side.
    Sent {
        /// The packet as it leaves.
        bytes: Vec<u8>,
        /// Whom it is handed to.
        next_hop: IpAddr,
        /// Whether it goes to a server.
        is_request: bool,
    },
}

impl Model {
    /// A director without services, at this second.
    pub fn new(now_s: u64) -> Self {
        Self::bounded(now_s, Bounds::default())
    }

    /// The same with so much room.
    pub fn bounded(now_s: u64, bounds: Bounds) -> Self {
        Self {
            bounds,
            turns: 0,
            now_s,
            services: vec![],
            servers: vec![],
            connections: vec![],
            templates: vec![],
            settings: Settings::default(),
            timeouts_s: [900, 120, 300],
            totals: Counters::default(),
            sweep_pending: false,
            trash_due_s: None,
            names: 0,
        }
    }

    /// One second passes.
    pub fn tick(&mut self) {
        self.now_s += 1;
        if std::mem::take(&mut self.sweep_pending) {
            let gone = |model: &Self, server| !model.server(server).is_listed;
            (0..self.connections.len()).rev().for_each(|index| {
                if gone(self, self.connections[index].server) {
                    self.end(index);
                }
            });
            let servers = self.servers.clone();
            let is_listed = |name: u32| servers.iter().any(|server| server.name == name && server.is_listed);
            self.templates.retain(|template| is_listed(template.server));
        }
        let now_s = self.now_s;
        while let Some(index) = self.connections.iter().position(|connection| connection.deadline_s <= now_s) {
            self.end(index);
        }
        for index in (0..self.templates.len()).rev() {
            if self.templates[index].deadline_s > now_s {
                continue;
            }
            if self.children(self.templates[index].name) > 0 {
                let template = &mut self.templates[index];
                (template.timeout_s, template.deadline_s) = (60, now_s + 60);
            } else {
                self.templates.remove(index);
            }
        }
        self.look_through_trash();
    }

    /// A packet arrives.
    pub fn packet(&mut self, flow: &Flow) -> Expected {
        if !self.services.iter().any(|service| service.at.is_ipv4() == flow.source.is_ipv4()) {
            return Expected::Pass;
        }
        if let Some(index) = self.find_request(flow) {
            let connection = &self.connections[index];
            let server = self.server(connection.server);
            if self.opens_again(flow, connection, server) || (!server.is_listed && self.settings.expire_nodest_conn) {
                let old = connection.clone();
                let expected = self.open(flow);
                // The answer comes from the virtual address: where replies bypass us it passes for the old one's.
                if matches!(expected, Expected::Refused) && old.forward != ForwardMethod::Nat {
                    let answer_len = flow.len() + if flow.source.is_ipv4() { 28 } else { 48 };
                    self.count(old.server, |counters| {
                        counters.out_packets += 1;
                        counters.out_bytes += answer_len;
                    });
                }
                let is_old = |known: &Connection| known.same_as(&old);
                // It may have given way to the new one already.
                if let Some(index) = self.connections.iter().position(is_old) {
                    self.end(index);
                }
                return expected;
            }
            if !server.is_listed {
                return Expected::Dropped;
            }
            return self.request(index, flow);
        }
        if let Some(index) = self.find_reply(flow) {
            return self.reply(index, flow);
        }
        self.open(flow)
    }

    /// A connection's client and the endpoint that answers it, by number, for packets that hit something.
    pub fn some_flow(&self, number: usize) -> Option<(Protocol, SocketAddr, SocketAddr, SocketAddr)> {
        let connection = self.connections.get(number.checked_rem(self.connections.len())?)?;
        let answers_as =
            if connection.forward == ForwardMethod::Nat { connection.real } else { connection.destination };
        Some((connection.protocol, connection.client, connection.destination, answers_as))
    }

    fn find_request(&self, flow: &Flow) -> Option<usize> {
        self.connections.iter().rposition(|known| {
            known.protocol == flow.protocol && known.client == flow.source && known.destination == flow.destination
        })
    }

    fn find_reply(&self, flow: &Flow) -> Option<usize> {
        self.connections.iter().rposition(|known| {
            let answers_as = if known.forward == ForwardMethod::Nat { known.real } else { known.destination };
            known.protocol == flow.protocol && known.client == flow.destination && answers_as == flow.source
        })
    }

    /// Whether a SYN gives the connection up and is scheduled anew.
    fn opens_again(&self, flow: &Flow, connection: &Connection, server: &Server) -> bool {
        if flow.protocol != Protocol::Tcp || flow.flags & 0x02 == 0 {
            return false;
        }
        if self.settings.expire_nodest_conn && server.weight == 0 {
            return true;
        }
        let mode = self.settings.conn_reuse_mode;
        mode != 0
            && connection.template.is_none()
            && (["TW", "CL"].contains(&connection.state)
                || (mode & 2 != 0 && connection.state == "FW" && connection.client_alone))
    }

    fn request(&mut self, index: usize, flow: &Flow) -> Expected {
        self.count(self.connections[index].server, |counters| {
            counters.in_packets += 1;
            counters.in_bytes += flow.len();
        });
        let side = if self.connections[index].client_alone { Side::ClientAlone } else { Side::Client };
        let gives_way = self.reopening(index, flow, side);
        if self.connections[index].heard == 1 {
            self.connections[index].heard = 2;
            self.connections[index].came = self.next_turn();
        }
        if self.connections[index].heard == 2 {
            self.note_talk(self.connections[index].template);
        }
        self.move_state(index, flow, side);
        let connection = &mut self.connections[index];
        connection.packets += 1;
        let is_nat = connection.forward == ForwardMethod::Nat;
        let onward = if is_nat { Flow { destination: connection.real, ..*flow } } else { *flow };
        let bytes = onward.packet().hop_limit(63).build();
        let next_hop = connection.real.ip();
        if let Some(other) = gives_way {
            self.evict(other, None);
        }
        Expected::Sent { bytes, next_hop, is_request: true }
    }

    /// Who gives way to a known connection that the packet makes half-open.
    fn reopening(&self, index: usize, flow: &Flow, side: Side) -> Option<usize> {
        let connection = &self.connections[index];
        let half_open = self.half_open();
        let reopens = connection.protocol == Protocol::Tcp
            && !bounds::is_half_open(connection.state)
            && bounds::is_half_open(tcp_table::next(connection.state, side, flow.flags));
        half_open.first().copied().filter(|_| reopens && half_open.len() >= self.bounds.half_open)
    }

    fn reply(&mut self, index: usize, flow: &Flow) -> Expected {
        self.count(self.connections[index].server, |counters| {
            counters.out_packets += 1;
            counters.out_bytes += flow.len();
        });
        let heard = self.connections[index].heard;
        if flow.protocol == Protocol::Udp {
            self.connections[index].heard = heard.max(1);
        }
        self.move_state(index, flow, Side::Server);
        let connection = &mut self.connections[index];
        connection.client_alone = false;
        let is_nat = connection.forward == ForwardMethod::Nat;
        let onward = if is_nat { Flow { source: connection.destination, ..*flow } } else { *flow };
        let bytes = onward.packet().hop_limit(63).build();
        Expected::Sent { bytes, next_hop: connection.client.ip(), is_request: false }
    }

    fn move_state(&mut self, index: usize, flow: &Flow, side: Side) {
        let [tcp_s, tcp_fin_s, udp_s] = self.timeouts_s;
        let turn = self.next_turn();
        let connection = &mut self.connections[index];
        let before = connection.state;
        let assures;
        if connection.protocol == Protocol::Udp {
            connection.timeout_s = udp_s;
            assures = side == Side::Server;
        } else {
            connection.state = tcp_table::next(before, side, flow.flags);
            connection.timeout_s = match connection.state {
                "ES" => tcp_s,
                "FW" => tcp_fin_s,
                state => tcp_table::timeout_s(state),
            };
            assures = connection.state == "ES" && before != "ES";
            let enters = |line: fn(&str) -> bool| line(connection.state) && !line(before);
            if enters(bounds::is_half_open) || enters(bounds::is_over) {
                connection.came = turn;
            }
        }
        connection.deadline_s = self.now_s + connection.timeout_s;
        let (parent, is_tcp) = (connection.template, connection.protocol == Protocol::Tcp);
        if let Some(template) = self.templates.iter_mut().find(|template| assures && Some(template.name) == parent) {
            template.is_assured = true;
            template.is_proven |= is_tcp;
        }
    }

    /// A connection leaves: the flag of a server that falls below its lower threshold is cleared.
    fn end(&mut self, index: usize) {
        let total = self.total(self.connections[index].server);
        let connection = self.connections.remove(index);
        let server = self.server_mut(connection.server);
        if server.upper != 0 && total == server.lower_in_force() {
            server.is_overloaded = total > server.upper;
        }
    }

    /// Counts for a server that is listed, its service and the whole.
    fn count(&mut self, name: u32, add: impl Fn(&mut Counters)) {
        let server = self.server_mut(name);
        if !server.is_listed {
            return;
        }
        add(&mut server.counters);
        let (protocol, at) = (server.protocol, server.service);
        let service = self.services.iter_mut().find(|service| service.protocol == protocol && service.at == at);
        add(&mut service.expect("a listed server's service exists").counters);
        add(&mut self.totals);
    }

    fn server(&self, name: u32) -> &Server {
        self.servers.iter().find(|server| server.name == name).expect("kept while anything hangs on it")
    }

    fn server_mut(&mut self, name: u32) -> &mut Server {
        self.servers.iter_mut().find(|server| server.name == name).expect("kept while anything hangs on it")
    }

    fn total(&self, server: u32) -> u32 {
        self.connections.iter().filter(|connection| connection.server == server).count() as u32
    }

    fn active(&self, server: u32) -> u32 {
        let is_active = |known: &&Connection| known.server == server && tcp_table::is_active(known.state);
        self.connections.iter().filter(is_active).count() as u32
    }

    fn children(&self, template: u32) -> usize {
        self.connections.iter().filter(|connection| connection.template == Some(template)).count()
    }

    fn new_name(&mut self) -> u32 {
        self.names += 1;
        self.names
    }
}

impl Server {
    fn lower_in_force(&self) -> u32 {
        if self.lower != 0 { self.lower } else { self.upper - self.upper / 4 }
    }
}

impl Connection {
    fn same_as(&self, other: &Self) -> bool {
        let key = |known: &Self| (known.protocol, known.client, known.destination, known.real, known.server);
        key(self) == key(other) && self.packets == other.packets && self.state == other.state
    }
}
