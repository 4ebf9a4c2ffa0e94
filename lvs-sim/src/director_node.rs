//! The director's place in the network: packets from any link go in, verdicts become packets for the hosts.

use std::net::IpAddr;

use lvs_core::wire::fragment::fragment;
use lvs_core::{Direction, Director, DirectorConfig, HEADROOM, Instant, PacketBuf, Seed, ServiceKey, Verdict};
use lvs_io::{Host, HostConfig, OnPass, Transmit};

use crate::packet::destination;

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

/// A packet on its way out.
pub(crate) struct Departure {
    pub(crate) next_hop: IpAddr,
    packet: Vec<u8>,
    /// Longest packet the director allows, beside what the link carries.
    mtu: u16,
}

impl Departure {
    pub(crate) fn new(next_hop: IpAddr, mtu: u16, packet: &[u8]) -> Self {
        Self { next_hop, mtu, packet: packet.to_vec() }
    }

    /// The packets as which it leaves by a link of this MTU. What may not be fragmented stays whole, for the link to
    /// refuse.
    pub(crate) fn into_packets(self, link_mtu: u16, identification: u32) -> Vec<Vec<u8>> {
        // On its way an IPv6 packet is only split by who made it (RFC 8200 §4.5), that is, if the director says so.
        let mtu = if self.next_hop.is_ipv4() { self.mtu.min(link_mtu) } else { self.mtu };
        let mut packets = Vec::new();
        let mut buffer = vec![0; usize::from(mtu)];
        let split = fragment(&self.packet, mtu.into(), identification, &mut buffer, |part| packets.push(part.to_vec()));
        if split.is_ok() { packets } else { vec![self.packet] }
    }
}

pub(crate) struct DirectorNode {
    pub(crate) director: Director,
    pub(crate) counters: VerdictCounters,
    /// When the simulation will call it next without a packet.
    pub(crate) wake: Option<Instant>,
    on_pass: OnPass,
    /// Where its own servers are reached, if they are a host of the simulation.
    local: Option<[Option<IpAddr>; 2]>,
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
            on_pass: OnPass::Route(Box::new(Host::new(host.clone(), seed))),
            local: None,
            host: Some(host),
            seed,
            storage: vec![0; HEADROOM + PACKET_MAX + HEADROOM],
        }
    }

    /// Packets for its own servers go to the host that has these addresses, an IPv4 and an IPv6 one.
    pub(crate) fn set_local(&mut self, addresses: [Option<IpAddr>; 2]) {
        self.local = Some(addresses);
    }

    pub(crate) fn set_on_pass(&mut self, on_pass: OnPass) {
        self.on_pass = on_pass;
        self.host = None;
    }

    /// Lets the stand-in own the virtual address of a new service, as an operator would.
    pub(crate) fn own_address_of(&mut self, key: &ServiceKey) {
        let ServiceKey::Address { address, .. } = key else { return };
        if let Some(host) = &mut self.host
            && !host.local_addresses.contains(address)
        {
            host.local_addresses.push(*address);
            self.on_pass = OnPass::Route(Box::new(Host::new(host.clone(), self.seed)));
        }
    }

    /// A packet arrives, from the client side (`Request`) or the server side; everything that leaves because of it goes
    /// to `depart`.
    pub(crate) fn receive(&mut self, now: Instant, came: Direction, packet: &[u8], mut depart: impl FnMut(Departure)) {
        self.storage[HEADROOM..HEADROOM + packet.len()].copy_from_slice(packet);
        let mut packet = PacketBuf::new(&mut self.storage, HEADROOM, packet.len());
        let verdict = self.director.handle_packet(now, &mut packet);
        self.counters.count(verdict);
        let mut surroundings =
            Surroundings { director: &mut self.director, on_pass: &mut self.on_pass, local: self.local };
        surroundings.obey(verdict, now, came, &mut packet, &mut depart);
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
            let mut surroundings =
                Surroundings { director: &mut self.director, on_pass: &mut self.on_pass, local: self.local };
            surroundings.obey(verdict, now, Direction::Request, &mut packet, &mut depart);
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

/// The director, and who stands behind it.
struct Surroundings<'a> {
    director: &'a mut Director,
    on_pass: &'a mut OnPass,
    local: Option<[Option<IpAddr>; 2]>,
}

impl Surroundings<'_> {
    /// Does with a packet what the verdict says.
    fn obey(
        &mut self,
        verdict: Verdict,
        now: Instant,
        came: Direction,
        packet: &mut PacketBuf<'_>,
        depart: &mut impl FnMut(Departure),
    ) {
        match verdict {
            Verdict::Forward { next_hop, mtu, .. } => depart(Departure::new(next_hop, mtu, packet.bytes())),
            Verdict::Reply { next_hop } => depart(Departure::new(next_hop, u16::MAX, packet.bytes())),
            Verdict::Held | Verdict::Drop(_) => {}
            Verdict::Pass => {
                if let Some(transmit) = self.hand_to_host(now, came, packet) {
                    depart(Departure::new(transmit.next_hop, transmit.mtu, packet.bytes()));
                }
            }
            Verdict::Local => match self.local {
                Some(addresses) => {
                    let family = usize::from(packet.bytes().first().is_some_and(|first| first >> 4 == 6));
                    if let Some(address) = addresses[family] {
                        depart(Departure::new(address, u16::MAX, packet.bytes()));
                    }
                }
                None => {
                    let Some(transmit) = self.hand_to_host(now, came, packet) else { return };
                    // What a server on the host itself answers passes the director on its way out, as in Linux.
                    match self.director.handle_packet(now, packet) {
                        Verdict::Pass => {
                            depart(Departure::new(transmit.next_hop, transmit.mtu, packet.bytes()));
                        }
                        Verdict::Forward { next_hop, mtu, .. } => {
                            depart(Departure::new(next_hop, mtu, packet.bytes()));
                        }
                        // For the host again, which listens to nobody.
                        Verdict::Local | Verdict::Reply { .. } | Verdict::Held | Verdict::Drop(_) => {}
                    }
                }
            },
        }
    }

    /// What the stand-in has to send because of it is in the buffer then.
    fn hand_to_host(&mut self, now: Instant, came: Direction, packet: &mut PacketBuf<'_>) -> Option<Transmit> {
        match self.on_pass {
            OnPass::Drop => None,
            OnPass::Route(host) => host.handle_packet(now, came, packet),
            OnPass::ToHost(sink) => {
                // What the sink refuses is lost, as on a full queue.
                let _ = sink.send(packet, destination(packet.bytes())?);
                None
            }
        }
    }
}

/// Longest IP packet.
const PACKET_MAX: usize = 65_535;
