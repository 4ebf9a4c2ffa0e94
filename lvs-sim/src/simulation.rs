//! The simulation: hosts around a director, and the clock. Everything that happens is an event with a time; between
//! two events nothing does. The seed decides every accident, so a run repeats itself byte for byte.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lvs_core::{Command, ControlError, Direction, Director, DirectorConfig, Instant, Seed};
use lvs_io::OnPass;

use crate::conversation::{Conversation, ConversationId, Outcome, Report};
use crate::dialogue::Dialogue;
use crate::dialogue::echo::EchoServer;
use crate::dialogue::http::{HttpServer, HttpSite};
use crate::director_node::{Departure, DirectorNode, VerdictCounters};
use crate::flood::Flood;
use crate::host::Host;
use crate::link::{Faults, Heading, Link, LinkCounters, Wire};
use crate::pcap::Capture;
use crate::schedule::Schedule;
use crate::service::TcpService;

/// Names a host of one simulation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HostId(pub(crate) usize);

/// A network of hosts around one director, under a clock of its own.
///
/// Hosts are added first, then told what to do, then the clock runs: [`run_until_idle`](Self::run_until_idle) until
/// every conversation has ended, [`run_for`](Self::run_for) for a while. See the crate's example.
pub struct Simulation {
    now: Instant,
    seed: Seed,
    schedule: Schedule<Event>,
    hosts: Vec<Host>,
    cables: Vec<Cable>,
    owners: BTreeMap<IpAddr, HostId>,
    node: DirectorNode,
    reports: Vec<Report>,
    default_link: Link,
    unroutable: u64,
    /// Identification of the next packet the director's own node fragments.
    identification: u32,
    /// Packets, starts and actions that are still to come: while there are any, the network is not idle.
    pending: usize,
    steps: u64,
    steps_max: u64,
}

/// The link of one host.
struct Cable {
    /// Which side of the director the host is on: what it sends are requests or replies.
    sends: Direction,
    link: Link,
    to_director: Wire,
    to_host: Wire,
    capture: Option<Capture>,
}

enum Event {
    AtDirector { from: HostId, packet: Vec<u8> },
    AtHost { to: HostId, packet: Vec<u8> },
    WakeHost(HostId),
    WakeDirector,
    Start { host: HostId, id: ConversationId, conversation: Box<Conversation> },
    Flood { host: HostId, flood: Box<Flood>, index: u64 },
    Action(Box<dyn FnOnce(&mut Simulation)>),
}

/// A run took more steps than allowed: something goes round in circles, or the bound is too low.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StepsExhausted {
    /// The bound.
    pub steps_max: u64,
    /// How far the clock got.
    pub at: Instant,
}

impl std::fmt::Display for StepsExhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} steps were not enough; stopped at {:?}", self.steps_max, self.at)
    }
}

impl std::error::Error for StepsExhausted {}

impl Simulation {
    /// A network without hosts, around a director with the default configuration.
    pub fn new(seed: Seed) -> Self {
        Self::with_config(seed, DirectorConfig::default())
    }

    /// A network without hosts, around a director with this configuration.
    pub fn with_config(seed: Seed, config: DirectorConfig) -> Self {
        Self {
            now: Instant::ZERO,
            seed,
            schedule: Schedule::new(),
            hosts: Vec::new(),
            cables: Vec::new(),
            owners: BTreeMap::new(),
            node: DirectorNode::new(config, seed.derive(DIRECTOR)),
            reports: Vec::new(),
            default_link: Link::default(),
            unroutable: 0,
            identification: 0,
            pending: 0,
            steps: 0,
            steps_max: STEPS_MAX,
        }
    }

    /// The link that hosts added from now on are given.
    pub fn set_default_link(&mut self, link: Link) {
        self.default_link = link;
    }

    /// Adds a host on the director's client side, with these addresses (at most 8) and a link of its own.
    ///
    /// # Panics
    /// If another host has one of the addresses, or there are more than 8.
    pub fn client(&mut self, addresses: &[IpAddr]) -> HostId {
        self.host(Direction::Request, addresses)
    }

    /// Adds a host on the director's server side, with these addresses (at most 8) and a link of its own.
    /// It does nothing but answer echo requests until it is told what to serve.
    ///
    /// # Panics
    /// If another host has one of the addresses, or there are more than 8.
    pub fn server(&mut self, addresses: &[IpAddr]) -> HostId {
        self.host(Direction::Reply, addresses)
    }

    fn host(&mut self, sends: Direction, addresses: &[IpAddr]) -> HostId {
        let id = HostId(self.hosts.len());
        for address in addresses {
            let earlier = self.owners.insert(*address, id);
            assert!(earlier.is_none(), "{address} belongs to another host");
        }
        let seed = self.seed.derive(HOSTS + id.0 as u64);
        let link = self.default_link;
        let (to_director, to_host) = (Wire::new(Heading::Director, seed), Wire::new(Heading::Host, seed));
        self.hosts.push(Host::new(addresses, link.mtu, seed));
        self.cables.push(Cable { sends, link, to_director, to_host, capture: None });
        id
    }

    /// Has the host answer HTTP requests on `port`.
    pub fn serve_http(&mut self, host: HostId, port: u16, site: HttpSite) {
        self.serve(host, port, move || Box::new(HttpServer::new(site.clone())));
    }

    /// Has the host echo on `port`, over TCP and UDP.
    pub fn serve_echo(&mut self, host: HostId, port: u16) {
        self.serve(host, port, || Box::new(EchoServer::default()));
        self.hosts[host.0].serve_udp_echo(port);
    }

    /// Has the host answer each TCP connection to `port` with a dialogue of its own.
    pub fn serve(&mut self, host: HostId, port: u16, answer: impl FnMut() -> Box<dyn Dialogue> + 'static) {
        self.hosts[host.0].serve(TcpService::new(port, Box::new(answer)));
    }

    /// Has the director carry out a command now. The virtual address of a service becomes the director's own: it
    /// answers there as a host would where no service does.
    ///
    /// # Errors
    /// What [`Director::apply`] says; nothing has changed.
    pub fn apply(&mut self, command: &Command) -> Result<(), ControlError> {
        self.node.director.apply(self.now, command)?;
        if let Command::AddService(key, _) = command {
            self.node.own_address_of(key);
        }
        self.reschedule_director();
        Ok(())
    }

    /// What happens to packets the director passes. Default: [`OnPass::Route`] with a stand-in for the director's host
    /// that owns the virtual addresses and routes everything else.
    pub fn set_on_pass(&mut self, on_pass: OnPass) {
        self.node.set_on_pass(on_pass);
    }

    /// Begins a conversation, now or as late as it says.
    ///
    /// # Panics
    /// If the client has no address of the family it is to speak to.
    pub fn converse(&mut self, client: HostId, conversation: Conversation) -> ConversationId {
        let id = ConversationId(self.reports.len());
        let to = conversation.to;
        let address = self.hosts[client.0].address_towards(to.ip()).expect("the client has an address of that family");
        let starts = self.now + conversation.after;
        self.reports.push(Report {
            client: address,
            to,
            started: starts,
            ended: None,
            outcome: Outcome::Running,
            bytes_sent: 0,
            bytes_received: 0,
            server: None,
        });
        self.plan(starts, Event::Start { host: client, id, conversation: Box::new(conversation) });
        id
    }

    /// Begins an HTTP request now: short for [`Conversation::http`].
    pub fn http_get(&mut self, client: HostId, to: SocketAddr) -> ConversationId {
        self.converse(client, Conversation::http(to))
    }

    /// Begins to send `len` bytes to an echo server and back now: short for [`Conversation::echo`].
    pub fn transfer(&mut self, client: HostId, to: SocketAddr, len: u64) -> ConversationId {
        self.converse(client, Conversation::echo(to, len))
    }

    /// Does something to the simulation after `delay`, while it runs: a command, a power cut, a cut cable.
    pub fn after(&mut self, delay: Duration, action: impl FnOnce(&mut Self) + 'static) {
        self.plan(self.now + delay, Event::Action(Box::new(action)));
    }

    /// Puts packets on the host's link as if it sent them, at an even rate from now on.
    pub fn flood(&mut self, host: HostId, flood: Flood) {
        if flood.count > 0 {
            self.plan(self.now, Event::Flood { host, flood: Box::new(flood), index: 0 });
        }
    }

    /// Puts one packet on the host's link now, as if it sent it.
    pub fn inject(&mut self, host: HostId, packet: Vec<u8>) {
        self.send_to_director(host, packet);
    }

    /// Switches a host off: its connections are gone without a word, packets to it are lost.
    pub fn switch_off(&mut self, host: HostId) {
        self.hosts[host.0].switch_off(self.now, &mut self.reports);
    }

    /// Switches a host on again: its services start anew, its earlier connections are answered by RST.
    pub fn switch_on(&mut self, host: HostId) {
        self.hosts[host.0].switch_on(self.now);
    }

    /// Changes what may befall packets on a host's link, in both directions.
    pub fn set_faults(&mut self, host: HostId, faults: Faults) {
        self.cables[host.0].link.faults = faults;
    }

    /// Changes what may befall packets on every link there is.
    pub fn set_all_faults(&mut self, faults: Faults) {
        for cable in &mut self.cables {
            cable.link.faults = faults;
        }
    }

    /// Records what passes the director's end of the host's link from now on.
    pub fn capture(&mut self, host: HostId) {
        self.cables[host.0].capture = Some(Capture::new());
    }

    /// The capture so far as a pcap file (`LINKTYPE_RAW`); `None` if none was asked for.
    pub fn pcap(&self, host: HostId) -> Option<&[u8]> {
        self.cables[host.0].capture.as_ref().map(Capture::bytes)
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The director, to be looked at.
    pub fn director(&self) -> &Director {
        &self.node.director
    }

    /// The director, to be asked what changes it: events, explanations.
    pub fn director_mut(&mut self) -> &mut Director {
        &mut self.node.director
    }

    /// How many packets met which verdict.
    pub fn verdicts(&self) -> VerdictCounters {
        self.node.counters
    }

    /// What befell packets on the host's link: towards the director, and from it.
    pub fn link_counters(&self, host: HostId) -> [LinkCounters; 2] {
        let cable = &self.cables[host.0];
        [cable.to_director.counters, cable.to_host.counters]
    }

    /// Packets that left the director for an address no host has.
    pub fn unroutable(&self) -> u64 {
        self.unroutable
    }

    /// What became of a conversation so far.
    pub fn report(&self, id: ConversationId) -> &Report {
        &self.reports[id.0]
    }

    /// What became of every conversation so far, in the order they were asked for.
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }

    /// Most steps a single run takes (one for each packet that arrives and each timer that ends).
    /// Default ten million.
    pub fn set_steps_max(&mut self, steps_max: u64) {
        self.steps_max = steps_max;
    }

    /// Lets the clock run for `duration`, whatever happens or not.
    pub fn run_for(&mut self, duration: Duration) -> Result<(), StepsExhausted> {
        let until = self.now + duration;
        self.begin_run();
        while self.step(until)? {}
        self.now = until;
        Ok(())
    }

    /// Lets the clock run until every conversation has ended, no packet is on its way and nothing is planned.
    /// Timers may still be waiting: connections of the director to expire, closed sockets to be forgotten.
    pub fn run_until_idle(&mut self) -> Result<(), StepsExhausted> {
        self.begin_run();
        while !self.is_idle() && self.step(END_OF_TIME)? {}
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.pending == 0 && !self.hosts.iter().any(|host| host.is_talking(&self.reports))
    }

    fn begin_run(&mut self) {
        self.steps = 0;
        // The director may have been asked for something since the last run.
        self.reschedule_director();
    }

    /// Has the next event happen, if it is not after `until`; returns whether there was one.
    fn step(&mut self, until: Instant) -> Result<bool, StepsExhausted> {
        let Some((at, event)) = self.schedule.pop_until(until) else { return Ok(false) };
        self.steps += 1;
        if self.steps > self.steps_max {
            self.schedule.add(at, event);
            return Err(StepsExhausted { steps_max: self.steps_max, at: self.now });
        }
        self.now = at;
        if !matches!(event, Event::WakeHost(_) | Event::WakeDirector) {
            self.pending -= 1;
        }
        self.happen(event);
        Ok(true)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::AtDirector { from, packet } => self.arrive_at_director(from, &packet),
            Event::AtHost { to, packet } => {
                self.hosts[to.0].receive(packet);
                self.advance_host(to);
            }
            Event::WakeHost(host) => {
                // An earlier or later time may have replaced this one.
                if self.hosts[host.0].wake == Some(self.now) {
                    self.hosts[host.0].wake = None;
                    self.advance_host(host);
                }
            }
            Event::WakeDirector => {
                if self.node.wake == Some(self.now) {
                    self.node.wake = None;
                    self.advance_director();
                }
            }
            Event::Start { host, id, conversation } => {
                self.hosts[host.0].start(self.now, id, *conversation, &mut self.reports);
                self.advance_host(host);
            }
            Event::Flood { host, mut flood, index } => {
                let packet = (flood.packet)(index);
                self.send_to_director(host, packet);
                if index + 1 < flood.count {
                    let next = self.now + flood.interval;
                    self.plan(next, Event::Flood { host, flood, index: index + 1 });
                }
            }
            Event::Action(action) => action(self),
        }
    }

    fn arrive_at_director(&mut self, from: HostId, packet: &[u8]) {
        let cable = &mut self.cables[from.0];
        if let Some(capture) = &mut cable.capture {
            capture.add(self.now, packet);
        }
        let mut departures = Vec::new();
        self.node.receive(self.now, cable.sends, packet, |departure| departures.push(departure));
        self.send_all(departures);
    }

    fn advance_director(&mut self) {
        let mut departures = Vec::new();
        self.node.advance(self.now, |departure| departures.push(departure));
        self.send_all(departures);
    }

    /// Puts what leaves the director on the links it leads to.
    fn send_all(&mut self, departures: Vec<Departure>) {
        for departure in departures {
            match self.owners.get(&departure.next_hop) {
                Some(&to) => self.send_to_host(to, departure),
                None => self.unroutable += 1,
            }
        }
        self.reschedule_director();
    }

    fn send_to_host(&mut self, to: HostId, departure: Departure) {
        let cable = &mut self.cables[to.0];
        self.identification = self.identification.wrapping_add(1);
        for packet in departure.into_packets(cable.link.mtu, self.identification) {
            if let Some(capture) = &mut cable.capture {
                capture.add(self.now, &packet);
            }
            let (schedule, pending) = (&mut self.schedule, &mut self.pending);
            cable.to_host.carry(self.now, &cable.link, packet, |at, packet| {
                *pending += 1;
                schedule.add(at, Event::AtHost { to, packet });
            });
        }
    }

    fn send_to_director(&mut self, from: HostId, packet: Vec<u8>) {
        let cable = &mut self.cables[from.0];
        let (schedule, pending) = (&mut self.schedule, &mut self.pending);
        cable.to_director.carry(self.now, &cable.link, packet, |at, packet| {
            *pending += 1;
            schedule.add(at, Event::AtDirector { from, packet });
        });
    }

    fn advance_host(&mut self, id: HostId) {
        let mut sent = Vec::new();
        let host = &mut self.hosts[id.0];
        host.advance(self.now, &mut self.reports, |packet| sent.push(packet));
        let wakes = host.wakes(self.now, &self.reports);
        if wakes != host.wake {
            host.wake = wakes;
            if let Some(at) = wakes {
                self.schedule.add(at, Event::WakeHost(id));
            }
        }
        for packet in sent {
            self.send_to_director(id, packet);
        }
    }

    fn reschedule_director(&mut self) {
        // What is overdue is done at the next moment, not in the past.
        let due = self.node.director.poll_timeout().map(|due| due.max(self.now));
        if due != self.node.wake {
            self.node.wake = due;
            if let Some(at) = due {
                self.schedule.add(at, Event::WakeDirector);
            }
        }
    }

    fn plan(&mut self, at: Instant, event: Event) {
        self.pending += 1;
        self.schedule.add(at, event);
    }
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulation")
            .field("now", &self.now)
            .field("seed", &self.seed)
            .field("hosts", &self.hosts.len())
            .field("conversations", &self.reports.len())
            .finish_non_exhaustive()
    }
}

/// What seeds are derived for.
const DIRECTOR: u64 = 1;
const HOSTS: u64 = 1 << 32;
/// About a gigabyte of full-sized packets.
const STEPS_MAX: u64 = 10_000_000;
const END_OF_TIME: Instant = Instant::from_nanos(u64::MAX);
