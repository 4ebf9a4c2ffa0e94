//! What a verdict means: where a packet leaves, what the director's own host makes of it and answers, what the answer
//! meets on its way out, and how a packet is cut to its way. The one place for it: the worker loop, the simulator and
//! the judge of the recordings differ only in the sinks they put behind it. It does no I/O itself.

use std::net::IpAddr;

use std::time::Duration;

use lvs_core::answer_limit::AnswerRates;
use lvs_core::{Direction, Director, HEADROOM, Instant, PacketBuf, Verdict};

use crate::counters::{ArmCounters, Counters};
use crate::device::PacketSink;
use crate::egress::Egress;
use crate::host::{Host, Transmit};
use crate::known::AddressChange;

/// What becomes of packets that belong to no virtual service.
#[derive(Default)]
pub enum OnPass {
    /// They are handed, untouched, to the host's own network stack through this sink. So are `Local` packets.
    ToHost(Box<dyn PacketSink>),
    /// No host stands behind the director: this stand-in answers what is for its own addresses and routes the rest. Its
    /// answers to `Local` packets pass the director on their way out, as in Linux.
    Route(Box<Host>),
    /// They are dropped and counted ([`Counters::pass_dropped`]).
    #[default]
    Drop,
}

/// The ways out of a director.
///
/// ```
/// use lvs_core::{Instant, PacketBuf, Verdict};
/// use lvs_io::{Exits, MemoryPort};
///
/// let (wire, device) = MemoryPort::pair(16);
/// let mut exits = Exits::new(vec![device.into_arm().sink]);
/// let mut bytes = [0x45, 0, 0, 20];
/// let verdict = Verdict::reply([198, 51, 100, 7].into());
/// exits.carry_out(Instant::ZERO, 0, &mut PacketBuf::new(&mut bytes, 0, 4), verdict);
/// assert_eq!(exits.counters().client.sent, 1);
/// ```
pub struct Exits {
    sinks: Vec<Box<dyn PacketSink>>,
    egress: Egress,
    on_pass: OnPass,
    /// What the host has answered to `Local` packets since [`Exits::hear_host`].
    answers: Vec<Answer>,
    counters: Counters,
}

/// A packet of the host stand-in on its way to the director, with [`HEADROOM`] before it.
struct Answer {
    storage: Vec<u8>,
    transmit: Transmit,
}

impl Exits {
    /// Ways out by these sinks: the client side's first, then, if it is another, the server side's. Packets that are not
    /// the director's are dropped; see [`Exits::set_on_pass`].
    ///
    /// # Panics
    /// If there is none.
    pub fn new(sinks: Vec<Box<dyn PacketSink>>) -> Self {
        assert!(!sinks.is_empty(), "packets leave by one side at least");
        Self { sinks, egress: Egress::new(), on_pass: OnPass::Drop, answers: Vec::new(), counters: Counters::default() }
    }

    /// Sets what becomes of packets that are not the director's. Default: [`OnPass::Drop`].
    pub fn set_on_pass(&mut self, on_pass: OnPass) {
        self.on_pass = on_pass;
    }

    /// What has been counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts packets that came in by side `arm`.
    pub(crate) fn count_received(&mut self, arm: usize, packets: &[PacketBuf<'_>]) {
        let counters = self.arm_counters(arm);
        counters.received += packets.len() as u64;
        counters.received_bytes += packets.iter().map(|packet| packet.len() as u64).sum::<u64>();
    }

    /// Counts a packet that the director itself owes the wire, before it is carried out.
    pub(crate) fn count_owed(&mut self) {
        self.counters.owed += 1;
    }

    /// Counts jobs of other threads, and the time they took together.
    pub(crate) fn count_jobs(&mut self, count: u64, time: Duration) {
        let jobs = &mut self.counters.jobs;
        jobs.count += count;
        jobs.time += time;
        jobs.longest = jobs.longest.max(time);
    }

    /// Changes how many ICMP errors and RSTs the host stand-in may send, if there is one.
    pub fn set_answer_rates(&mut self, rates: AnswerRates) {
        if let OnPass::Route(host) = &mut self.on_pass {
            host.set_answer_rates(rates);
        }
    }

    /// Tells the host stand-in, if there is one, that an address of the services has come or gone.
    pub fn learn(&mut self, change: &AddressChange) {
        if let OnPass::Route(host) = &mut self.on_pass {
            host.learn(change);
        }
    }

    /// Does what the verdict says with a packet that came in by side `arm`: 0 is the client side. After it, the host may
    /// have answered: see [`Exits::hear_host`].
    pub fn carry_out(&mut self, now: Instant, arm: usize, packet: &mut PacketBuf<'_>, verdict: Verdict) {
        match verdict {
            Verdict::Forward { next_hop, direction, mtu, .. } => {
                self.counters.forwarded += 1;
                self.send(direction, packet, next_hop, mtu);
            }
            Verdict::Reply { next_hop, .. } => {
                self.counters.replied += 1;
                // An ICMP error or a reset: short by construction.
                self.send_by(arm, packet, next_hop, u16::MAX);
            }
            Verdict::Pass => {
                self.counters.passed += 1;
                if let Some(transmit) = self.hand_to_host(now, arm, packet) {
                    self.counters.host_sent += 1;
                    self.send(transmit.direction, packet, transmit.next_hop, transmit.mtu);
                }
            }
            Verdict::Local => {
                self.counters.local += 1;
                if let Some(transmit) = self.hand_to_host(now, arm, packet) {
                    let storage = [&[0; HEADROOM], packet.bytes()].concat();
                    self.answers.push(Answer { storage, transmit });
                }
            }
            Verdict::Held => self.counters.held += 1,
            Verdict::Drop(_) => self.counters.dropped += 1,
        }
    }

    /// Hands what the host has answered to `Local` packets to the director, as in Linux: they are replies of its servers.
    /// Whether there was anything.
    pub fn hear_host(&mut self, now: Instant, director: &mut Director) -> bool {
        let answers = std::mem::take(&mut self.answers);
        let busy = !answers.is_empty();
        for Answer { mut storage, transmit } in answers {
            let len = storage.len() - HEADROOM;
            let mut packet = PacketBuf::new(&mut storage, HEADROOM, len);
            packet.from_host = true;
            self.counters.heard += 1;
            match director.handle_packet(now, &mut packet) {
                Verdict::Pass => {
                    self.counters.forwarded += 1;
                    self.send(transmit.direction, &mut packet, transmit.next_hop, transmit.mtu);
                }
                // For the host again, which listens to nobody.
                Verdict::Local | Verdict::Reply { .. } => {
                    self.counters.local += 1;
                    self.counters.pass_dropped += 1;
                }
                verdict => self.carry_out(now, self.sinks.len() - 1, &mut packet, verdict),
            }
        }
        busy
    }

    fn send(&mut self, direction: Direction, packet: &mut PacketBuf<'_>, next_hop: IpAddr, mtu: u16) {
        let arm = match direction {
            Direction::Request => self.sinks.len() - 1,
            Direction::Reply => 0,
        };
        self.send_by(arm, packet, next_hop, mtu);
    }

    fn send_by(&mut self, arm: usize, packet: &mut PacketBuf<'_>, next_hop: IpAddr, mtu: u16) {
        let sent = self.egress.send(&mut *self.sinks[arm], packet, next_hop, mtu);
        let counters = self.arm_counters(arm);
        counters.sent += sent.packets;
        counters.sent_bytes += sent.bytes;
        counters.queue_full += sent.queue_full;
        counters.send_failed += sent.failed;
        counters.cut += sent.cut;
    }

    /// What the stand-in has to send because of it is in the buffer then.
    fn hand_to_host(&mut self, now: Instant, arm: usize, packet: &mut PacketBuf<'_>) -> Option<Transmit> {
        match &mut self.on_pass {
            OnPass::ToHost(sink) => {
                let sent = destination(packet.bytes()).is_some_and(|next_hop| sink.send(packet, next_hop).is_ok());
                *if sent { &mut self.counters.to_host } else { &mut self.counters.pass_dropped } += 1;
                None
            }
            OnPass::Route(host) => {
                let came = if arm == 0 { Direction::Request } else { Direction::Reply };
                let transmit = host.handle_packet(now, came, packet);
                self.counters.host = *host.counters();
                transmit
            }
            OnPass::Drop => {
                self.counters.pass_dropped += 1;
                None
            }
        }
    }

    /// Hands what the sinks have gathered to the devices.
    pub fn flush(&mut self) {
        for arm in 0..self.sinks.len() {
            // What is lost of it is counted by the sink.
            let _ = self.sinks[arm].flush();
            self.arm_counters(arm).sent_lost = self.sinks[arm].lost();
        }
        if let OnPass::ToHost(sink) = &mut self.on_pass {
            let _ = sink.flush();
            self.counters.to_host_lost = sink.lost();
        }
    }

    pub(crate) fn arm_counters(&mut self, arm: usize) -> &mut ArmCounters {
        if arm == 0 { &mut self.counters.client } else { &mut self.counters.server }
    }
}

impl std::fmt::Debug for Exits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exits").field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// The destination address of an IP packet; `None` if it is too short to have one.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(16..20)?.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        6 => packet.get(24..40)?.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}
