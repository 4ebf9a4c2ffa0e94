//! The simulation: hosts around a director, and the clock. Everything that happens is an event with a time; between
//! two events nothing does. The seed decides every accident, so a run repeats itself byte for byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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
use crate::link::{Faults, Link, LinkCounters};
use crate::network::{Arrival, Network};
use crate::pcap::Capture;
use crate::schedule::Schedule;
use crate::service::TcpService;

/// Names a host of one simulation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HostId(pub(crate) usize);

/// A network of hosts around one director, under a clock of its own.
///
/// Hosts are added first, then told what to do, then the clock runs: [`run_until_idle`](Self::run_until_idle) until
/// every conversation has ended, [`run_for`](Self::run_for) for a while.
///
/// ```
/// use std::time::Duration;
/// use lvs_core::Seed;
/// use lvs_sim::{Outcome, Simulation};
///
/// let mut sim = Simulation::new(Seed::new(1));
/// let client = sim.client(&["198.51.100.7".parse().unwrap()]);
/// let server = sim.server(&["10.0.0.2".parse().unwrap()]);
/// sim.serve_echo(server, 7);
/// // A gigabyte is on its way when the server loses power and comes back without its connections.
/// let transfer = sim.transfer(client, "10.0.0.2:7".parse().unwrap(), 1 << 30);
/// sim.after(Duration::from_millis(50), move |sim| sim.switch_off(server));
/// sim.after(Duration::from_millis(60), move |sim| sim.switch_on(server));
/// sim.run_until_idle().unwrap();
/// assert_eq!(sim.report(transfer).outcome, Outcome::Reset);
/// ```
pub struct Simulation {
    now: Instant,
    seed: Seed,
    schedule: Schedule<Event>,
    hosts: Vec<Host>,
    network: Network,
    node: DirectorNode,
    reports: Vec<Report>,
    default_link: Link,
    steps: u64,
    steps_max: u64,
}

enum Event {
    Arrival(Arrival),
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
            network: Network::default(),
            node: DirectorNode::new(config, seed.derive(DIRECTOR)),
            reports: Vec::new(),
            default_link: Link::default(),
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
        let seed = self.seed.derive(HOSTS + self.hosts.len() as u64);
        let link = self.default_link;
        let id = self.network.add(sends, addresses, link, seed);
        self.hosts.push(Host::new(addresses, link.mtu, seed));
        id
    }

    /// Sets a server up for direct routing (ipvsadm: `-g`): it owns these virtual addresses, beside its own, without
    /// being reached by them, and what it sends goes to whom it is for, past the director.
    ///
    /// # Panics
    /// If it has more than 8 addresses then.
    pub fn route_directly(&mut self, server: HostId, virtual_addresses: &[IpAddr]) {
        self.hosts[server.0].add_virtual_addresses(virtual_addresses);
        self.network.lead_past_director(server);
    }

    /// Puts a server on the director's own host: packets that the director leaves to its host
    /// ([`lvs_core::Verdict::Local`]) go to it, and what it sends meets the director on its way out. It accepts packets
    /// for these virtual addresses, beside its own, as servers of [`lvs_core::ForwardMethod::Local`] must. Only one
    /// server can be there; the stand-in goes on to answer and to route what the director passes.
    ///
    /// # Panics
    /// If it has more than 8 addresses then.
    pub fn place_on_director(&mut self, server: HostId, virtual_addresses: &[IpAddr]) {
        let host = &mut self.hosts[server.0];
        let own = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()].map(|any| host.address_towards(any));
        self.node.set_local(own);
        host.add_virtual_addresses(virtual_addresses);
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
    /// If the client has no address of the family it is to speak to; when it starts, if a port is 0.
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
        self.schedule.add(starts, Event::Start { host: client, id, conversation: Box::new(conversation) });
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
        self.schedule.add(self.now + delay, Event::Action(Box::new(action)));
    }

    /// Puts packets on the host's link as if it sent them, at an even rate from now on.
    pub fn flood(&mut self, host: HostId, flood: Flood) {
        if flood.count > 0 {
            self.schedule.add(self.now, Event::Flood { host, flood: Box::new(flood), index: 0 });
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
        self.network.set_faults(host, faults);
    }

    /// Changes what may befall packets on every link there is.
    pub fn set_all_faults(&mut self, faults: Faults) {
        self.network.set_all_faults(faults);
    }

    /// Records what passes the director's end of the host's link from now on.
    pub fn capture(&mut self, host: HostId) {
        self.network.start_capture(host);
    }

    /// The capture so far as a pcap file (`LINKTYPE_RAW`); `None` if none was asked for.
    pub fn pcap(&self, host: HostId) -> Option<&[u8]> {
        self.network.capture(host).map(Capture::bytes)
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
        self.network.counters(host)
    }

    /// Packets that left the director for an address no host has.
    pub fn unroutable(&self) -> u64 {
        self.network.unroutable
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
    ///
    /// # Errors
    /// [`StepsExhausted`]; the next run goes on from there.
    pub fn run_for(&mut self, duration: Duration) -> Result<(), StepsExhausted> {
        let until = self.now + duration;
        self.begin_run();
        while self.step(until)? {}
        self.now = until;
        Ok(())
    }

    /// Lets the clock run until every conversation has ended, no packet is on its way and nothing is planned.
    /// Timers may still be waiting: connections of the director to expire, closed sockets to be forgotten.
    ///
    /// # Errors
    /// [`StepsExhausted`]; the next run goes on from there.
    pub fn run_until_idle(&mut self) -> Result<(), StepsExhausted> {
        self.begin_run();
        while !self.is_idle() && self.step(END_OF_TIME)? {}
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.schedule.is_idle() && !self.hosts.iter().any(|host| host.is_talking(&self.reports))
    }

    fn begin_run(&mut self) {
        self.steps = 0;
        // The director may have been asked for something since the last run.
        self.reschedule_director();
    }

    /// Has the next event happen, if it is not after `until`; returns whether there was one.
    fn step(&mut self, until: Instant) -> Result<bool, StepsExhausted> {
        if !self.schedule.is_due(until) {
            return Ok(false);
        }
        if self.steps == self.steps_max {
            return Err(StepsExhausted { steps_max: self.steps_max, at: self.now });
        }
        self.steps += 1;
        if let Some((at, event)) = self.schedule.pop_until(until) {
            self.now = at;
            self.happen(event);
        }
        Ok(true)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival(Arrival::AtDirector { from, packet }) => self.arrive_at_director(from, &packet),
            Event::Arrival(Arrival::AtHost { to, packet }) => {
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
                    self.schedule.add(next, Event::Flood { host, flood, index: index + 1 });
                }
            }
            Event::Action(action) => action(self),
        }
    }

    fn arrive_at_director(&mut self, from: HostId, packet: &[u8]) {
        self.network.record(self.now, from, packet);
        if self.network.is_past_director(from) {
            let schedule = &mut self.schedule;
            return self.network.route(self.now, packet, |at, arrival| schedule.add(at, Event::Arrival(arrival)));
        }
        let mut departures = Vec::new();
        self.node.receive(self.now, self.network.sends(from), packet, |departure| departures.push(departure));
        self.deliver(departures);
    }

    fn advance_director(&mut self) {
        let mut departures = Vec::new();
        self.node.advance(self.now, |departure| departures.push(departure));
        self.deliver(departures);
    }

    fn deliver(&mut self, departures: Vec<Departure>) {
        let schedule = &mut self.schedule;
        for departure in departures {
            self.network.deliver(self.now, departure, |at, arrival| schedule.add(at, Event::Arrival(arrival)));
        }
        self.reschedule_director();
    }

    fn send_to_director(&mut self, from: HostId, packet: Vec<u8>) {
        let schedule = &mut self.schedule;
        self.network.send_to_director(self.now, from, packet, |at, arrival| schedule.add(at, Event::Arrival(arrival)));
    }

    fn advance_host(&mut self, id: HostId) {
        let mut sent = Vec::new();
        let host = &mut self.hosts[id.0];
        host.advance(self.now, &mut self.reports, |packet| sent.push(packet));
        let wakes = host.wakes(self.now, &self.reports);
        if wakes != host.wake {
            host.wake = wakes;
            if let Some(at) = wakes {
                self.schedule.add_timer(at, Event::WakeHost(id));
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
                self.schedule.add_timer(at, Event::WakeDirector);
            }
        }
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
