//! The director's place in the network: packets from any link go in, verdicts become packets for the hosts.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use lvs_core::wire::fragment::fragment;
use lvs_core::{Direction, Director, DirectorConfig, HEADROOM, Instant, PacketBuf, Seed, ServiceKey, Verdict};
use lvs_io::{Exits, Host, HostConfig, OnPass, PacketSink, SinkFn};

/// How many packets met which verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VerdictCounters {
    /// [`Verdict::Pass`].
    pub pass: u64,
    /// [`Verdict::Forward`].
    pub forward: u64,
    /// [`Verdict::Local`].
    pub local: u64,
    /// [`Verdict::Reply`].
    pub reply: u64,
    /// [`Verdict::Held`].
    pub held: u64,
    /// [`Verdict::Drop`]; [`Director::drops`] tells the reasons.
    pub drop: u64,
    /// Packets that had waited, from [`Director::poll_transmit`].
    pub transmit: u64,
}

/// A packet on its way out, no longer than the director allows.
pub(crate) struct Departure {
    pub(crate) next_hop: IpAddr,
    packet: Vec<u8>,
}

impl Departure {
    pub(crate) fn new(next_hop: IpAddr, packet: &[u8]) -> Self {
        Self { next_hop, packet: packet.to_vec() }
    }

    /// The packets as which it leaves by a link of this MTU. What may not be fragmented stays whole, for the link to
    /// refuse: on its way an IPv6 packet is only split by who made it (RFC 8200 §4.5).
    pub(crate) fn into_packets(self, link_mtu: u16, identification: u32) -> Vec<Vec<u8>> {
        if self.next_hop.is_ipv6() {
            return vec![self.packet];
        }
        let mut packets = Vec::new();
        let mut buffer = vec![0; usize::from(link_mtu)];
        let each = |part: &[u8]| packets.push(part.to_vec());
        let split = fragment(&self.packet, link_mtu.into(), identification, &mut buffer, each);
        if split.is_ok() { packets } else { vec![self.packet] }
    }
}

pub(crate) struct DirectorNode {
    pub(crate) director: Director,
    pub(crate) counters: VerdictCounters,
    /// When the simulation will call it next without a packet.
    pub(crate) wake: Option<Instant>,
    surroundings: Surroundings,
    /// What the stand-in for the director's host is made of, while nobody has chosen something else.
    host: Option<HostConfig>,
    seed: Seed,
    /// The buffer each packet is handled in.
    storage: Vec<u8>,
}

impl DirectorNode {
    pub(crate) fn new(config: DirectorConfig, seed: Seed) -> Self {
        let (client_side, server_side) = (config.client_side, config.server_side);
        let host = HostConfig { client_side, server_side, ..HostConfig::default() };
        Self {
            director: Director::new(config, seed),
            counters: VerdictCounters::default(),
            wake: None,
            surroundings: Surroundings::new(OnPass::Route(Box::new(Host::new(host.clone(), seed)))),
            host: Some(host),
            seed,
            storage: vec![0; HEADROOM + PACKET_MAX + HEADROOM],
        }
    }

    /// Packets for its own servers go to the host that has these addresses, an IPv4 and an IPv6 one.
    pub(crate) fn set_local(&mut self, addresses: [Option<IpAddr>; 2]) {
        self.surroundings.local = Some(addresses);
    }

    pub(crate) fn set_on_pass(&mut self, on_pass: OnPass) {
        self.surroundings.exits.set_on_pass(on_pass);
        self.host = None;
    }

    /// Lets the stand-in own the virtual address of a new service, as an operator would.
    pub(crate) fn own_address_of(&mut self, key: &ServiceKey) {
        let ServiceKey::Address { address, .. } = key else { return };
        if let Some(host) = &mut self.host
            && !host.local_addresses.contains(address)
        {
            host.local_addresses.push(*address);
            let stand_in = Host::new(host.clone(), self.seed);
            self.surroundings.exits.set_on_pass(OnPass::Route(Box::new(stand_in)));
        }
    }

    /// A packet arrives, from the client side (`Request`) or the server side; everything that leaves because of it goes
    /// to `depart`.
    pub(crate) fn receive(&mut self, now: Instant, came: Direction, packet: &[u8], mut depart: impl FnMut(Departure)) {
        self.storage[HEADROOM..HEADROOM + packet.len()].copy_from_slice(packet);
        let mut packet = PacketBuf::new(&mut self.storage, HEADROOM, packet.len());
        let verdict = self.director.handle_packet(now, &mut packet);
        self.counters.count(verdict);
        self.surroundings.carry_out(now, came, verdict, &mut packet);
        self.surroundings.leave(now, &mut self.director, &mut depart);
        self.transmit(now, depart);
    }

    /// Time has passed; does what is due and hands over what leaves because of it.
    pub(crate) fn advance(&mut self, now: Instant, mut depart: impl FnMut(Departure)) {
        // Each call does a bounded amount of work, and some of it each time.
        while self.director.poll_timeout().is_some_and(|due| due <= now) {
            self.director.handle_timeout(now);
            self.transmit(now, &mut depart);
        }
    }

    /// Sends what the director itself owes the wire.
    fn transmit(&mut self, now: Instant, mut depart: impl FnMut(Departure)) {
        loop {
            let mut packet = PacketBuf::new(&mut self.storage, HEADROOM, 0);
            let Some(verdict) = self.director.poll_transmit(&mut packet) else { return };
            self.counters.transmit += 1;
            // Where it once came from is not known any more; requests are what waits most.
            self.surroundings.carry_out(now, Direction::Request, verdict, &mut packet);
            self.surroundings.leave(now, &mut self.director, &mut depart);
        }
    }
}

impl VerdictCounters {
    fn count(&mut self, verdict: Verdict) {
        let counter = match verdict {
            Verdict::Pass => &mut self.pass,
            Verdict::Forward { .. } => &mut self.forward,
            Verdict::Local => &mut self.local,
            Verdict::Reply { .. } => &mut self.reply,
            Verdict::Held => &mut self.held,
            Verdict::Drop(_) => &mut self.drop,
        };
        *counter += 1;
    }
}

/// The ways out of the director, and who stands behind it.
struct Surroundings {
    exits: Exits,
    /// What has gone out and is to be delivered.
    departed: Arc<Mutex<Vec<Departure>>>,
    /// Where its own servers are reached, if they are a host of the simulation.
    local: Option<[Option<IpAddr>; 2]>,
}

impl Surroundings {
    fn new(on_pass: OnPass) -> Self {
        let departed = Arc::new(Mutex::new(Vec::new()));
        let side = || -> Box<dyn PacketSink> {
            let departed = Arc::clone(&departed);
            Box::new(SinkFn(move |packet: &[u8], next_hop| {
                departed.lock().expect("nobody panics with it").push(Departure::new(next_hop, packet));
            }))
        };
        let mut exits = Exits::new(vec![side(), side()]);
        exits.set_on_pass(on_pass);
        Self { exits, departed, local: None }
    }

    /// Does with a packet what the verdict says.
    fn carry_out(&mut self, now: Instant, came: Direction, verdict: Verdict, packet: &mut PacketBuf<'_>) {
        if let (Verdict::Local, Some(addresses)) = (verdict, self.local) {
            let family = usize::from(packet.bytes().first().is_some_and(|first| first >> 4 == 6));
            if let Some(address) = addresses[family] {
                self.departed.lock().expect("nobody panics with it").push(Departure::new(address, packet.bytes()));
            }
            return;
        }
        self.exits.carry_out(now, usize::from(came == Direction::Reply), packet, verdict);
    }

    /// Lets the host's answers leave, and hands over all that has.
    fn leave(&mut self, now: Instant, director: &mut Director, depart: impl FnMut(Departure)) {
        self.exits.hear_host(now, director);
        let departed = std::mem::take(&mut *self.departed.lock().expect("nobody panics with it"));
        departed.into_iter().for_each(depart);
    }
}

/// Longest IP packet.
const PACKET_MAX: usize = 65_535;
