//! The director's place in the network: packets from any link go in, verdicts become packets for the hosts.

use std::net::IpAddr;

use lvs_core::{Director, HEADROOM, Instant, PacketBuf, Verdict};

use crate::packet::{destination, take_hop};

/// What happens to packets the director passes on untouched.
#[derive(Default)]
pub enum OnPass {
    /// They are routed to the host that has the destination's address, one hop less: a director that forwards.
    #[default]
    Route,
    /// They are gone.
    Drop,
    /// Somebody else looks at them and says which packets leave instead (answers, or the packet itself).
    Handler(Box<dyn FnMut(Instant, &[u8]) -> Vec<Vec<u8>>>),
}

impl std::fmt::Debug for OnPass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Route => "Route",
            Self::Drop => "Drop",
            Self::Handler(_) => "Handler",
        })
    }
}

/// How many packets met which verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VerdictCounters {
    /// [`Verdict::Pass`].
    pub pass: u64,
    /// [`Verdict::Forward`].
    pub forward: u64,
    /// [`Verdict::Local`]; nobody is at home here, so these are gone.
    pub local: u64,
    /// [`Verdict::Reply`].
    pub reply: u64,
    /// [`Verdict::Held`].
    pub held: u64,
    /// [`Verdict::Drop`]; [`Director::drops`] tells the reasons.
    pub drop: u64,
    /// Packets of the director's own making, from [`Director::poll_transmit`].
    pub transmit: u64,
}

/// A packet on its way out.
pub(crate) struct Departure {
    pub(crate) next_hop: IpAddr,
    /// Longest packet the director allows, beside what the link carries.
    pub(crate) mtu: u16,
    pub(crate) packet: Vec<u8>,
}

pub(crate) struct DirectorNode {
    pub(crate) director: Director,
    pub(crate) on_pass: OnPass,
    pub(crate) counters: VerdictCounters,
    /// When the simulation will call it next without a packet.
    pub(crate) wake: Option<Instant>,
    /// The buffer each packet is handled in.
    storage: Vec<u8>,
}

impl DirectorNode {
    pub(crate) fn new(director: Director) -> Self {
        let storage = vec![0; HEADROOM + PACKET_MAX + HEADROOM];
        Self { director, on_pass: OnPass::default(), counters: VerdictCounters::default(), wake: None, storage }
    }

    /// A packet arrives; everything that leaves because of it goes to `depart`.
    pub(crate) fn receive(&mut self, now: Instant, packet: &[u8], mut depart: impl FnMut(Departure)) {
        self.storage[HEADROOM..HEADROOM + packet.len()].copy_from_slice(packet);
        let mut buffer = PacketBuf::new(&mut self.storage, HEADROOM, packet.len());
        let verdict = self.director.handle_packet(now, &mut buffer);
        let leave = |next_hop, mtu| Departure { next_hop, mtu, packet: buffer.bytes().to_vec() };
        match verdict {
            Verdict::Forward { next_hop, mtu, .. } => {
                self.counters.forward += 1;
                depart(leave(next_hop, mtu));
            }
            Verdict::Reply { next_hop } => {
                self.counters.reply += 1;
                depart(leave(next_hop, u16::MAX));
            }
            Verdict::Pass => {
                self.counters.pass += 1;
                self.pass(now, packet, &mut depart);
            }
            Verdict::Local => self.counters.local += 1,
            Verdict::Held => self.counters.held += 1,
            Verdict::Drop(_) => self.counters.drop += 1,
        }
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

    fn pass(&mut self, now: Instant, packet: &[u8], depart: &mut impl FnMut(Departure)) {
        let leaving = match &mut self.on_pass {
            OnPass::Drop => Vec::new(),
            OnPass::Route => {
                let mut packet = packet.to_vec();
                take_hop(&mut packet).map_or_else(Vec::new, |()| vec![packet])
            }
            OnPass::Handler(handler) => handler(now, packet),
        };
        for packet in leaving {
            if let Some(next_hop) = destination(&packet) {
                depart(Departure { next_hop, mtu: u16::MAX, packet });
            }
        }
    }

    /// Sends what the director itself owes the wire.
    fn transmit(&mut self, now: Instant, mut depart: impl FnMut(Departure)) {
        loop {
            let mut buffer = PacketBuf::new(&mut self.storage, HEADROOM, 0);
            let Some(verdict) = self.director.poll_transmit(&mut buffer) else { return };
            let packet = buffer.bytes().to_vec();
            self.counters.transmit += 1;
            match verdict {
                Verdict::Forward { next_hop, mtu, .. } => depart(Departure { next_hop, mtu, packet }),
                Verdict::Reply { next_hop } => depart(Departure { next_hop, mtu: u16::MAX, packet }),
                Verdict::Pass => self.pass(now, &packet, &mut depart),
                Verdict::Local | Verdict::Held | Verdict::Drop(_) => {}
            }
        }
    }
}

/// Longest IP packet.
const PACKET_MAX: usize = 65_535;
