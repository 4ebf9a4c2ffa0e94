//! The way out: packets and messages about the link in, frames out. Joins routes, neighbours, responder and listener,
//! and decides what waits. Sans I/O: the time is an argument, frames are fetched.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lvs_core::{Instant, PacketBuf};

use super::address::{MacAddress, solicited_node};
use super::listener::Listener;
use super::message::{LinkMessage, Solicitation};
use super::neighbour::{Neighbours, Resolution};
use super::responder::{Responder, Statement};
use super::routes::Routes;
use super::writer::FrameWriter;

/// Who the director is on one link.
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// The station's own Ethernet address.
    pub mac: MacAddress,
    /// The VLAN its frames are tagged with (802.1Q, 1 to 4094), with the priority of the packet in them; `None` sends
    /// them untagged. 802.1ad is not spoken ([`super::ReaderCounters::service_tagged`]).
    pub vlan: Option<u16>,
    /// The address it asks from for IPv4 neighbours, in the neighbours' own network. Without one it asks as a station
    /// does that has none yet (RFC 5227 §2.1.1), which Linux answers too.
    pub source_ipv4: Option<Ipv4Addr>,
    /// The same for IPv6. Without one it asks from its link-local address.
    pub source_ipv6: Option<Ipv6Addr>,
    /// The addresses it answers for: virtual addresses, and its own where no host does that. No host on the link may
    /// answer for them as well.
    pub answers_for: Vec<IpAddr>,
    /// Who is on the link, and by whom others are reached.
    pub routes: Routes,
    /// Neighbours that are never asked and never forgotten.
    pub static_neighbours: Vec<(IpAddr, MacAddress)>,
}

impl EdgeConfig {
    /// A station that answers for nothing yet, outside any VLAN, to which every address is on the link.
    pub fn new(mac: MacAddress) -> Self {
        Self {
            mac,
            vlan: None,
            source_ipv4: None,
            source_ipv6: None,
            answers_for: Vec::new(),
            routes: Routes::all_direct(),
            static_neighbours: Vec::new(),
        }
    }
}

/// What became of a packet.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sending {
    /// The buffer now holds the frame: send it.
    Ready,
    /// A copy is kept until the neighbour has answered; it leaves through [`Edge::poll_transmit`].
    Waits,
}

/// Why a packet is not sent. Its bytes are untouched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// No route leads to the next hop.
    NoRoute,
    /// The neighbour did not answer when it was asked.
    Unreachable,
    /// Too many packets wait for neighbours.
    WaitingFull,
    /// Less than [`super::LINK_HEADER_MAX`] bytes of headroom.
    NoHeadroom,
}

impl SendError {
    /// The cause, for an operator.
    pub fn text(self) -> &'static str {
        match self {
            Self::NoRoute => "no route leads to the next hop",
            Self::Unreachable => "the next hop does not answer",
            Self::WaitingFull => "too many packets wait for neighbours to answer",
            Self::NoHeadroom => "no room for the Ethernet header",
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for SendError {}

/// What an edge has counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EdgeCounters {
    /// Questions answered.
    pub answered: u64,
    /// Questions not answered because too many answers waited.
    pub answers_full: u64,
    /// Announcements of addresses.
    pub announced: u64,
    /// Neighbours asked for.
    pub asked: u64,
    /// Times another station claimed an address this one answers for.
    pub conflicts: u64,
    /// Packets kept until a neighbour answered.
    pub waited: u64,
    /// Packets lost because too many waited.
    pub waiting_full: u64,
    /// Packets lost because a neighbour did not answer.
    pub unreachable: u64,
    /// Packets lost because no route leads to their next hop.
    pub no_route: u64,
    /// Questions heard about groups (Multicast Listener Discovery).
    pub group_queries: u64,
    /// Reports of groups this station hears.
    pub group_reports: u64,
    /// Frames lost because they did not fit the buffer they were to be written into.
    pub too_long: u64,
    /// Neighbours forgotten because there were too many.
    pub evicted: u64,
}

/// One station on one link.
///
/// ```
/// use lvs_core::{HEADROOM, Instant, PacketBuf};
/// use lvs_io::l2::{Advertisement, Edge, EdgeConfig, LinkMessage, MacAddress, Sending};
///
/// let mut edge = Edge::new(EdgeConfig::new(MacAddress([2, 0, 0, 0, 0, 1])));
/// let server = "10.0.0.2".parse().unwrap();
/// let mut storage = [0x45; HEADROOM + 20];
/// let mut packet = PacketBuf::new(&mut storage, HEADROOM, 20);
/// assert_eq!(edge.send(Instant::ZERO, &mut packet, server), Ok(Sending::Waits));
///
/// // The edge asks who has the address.
/// let mut space = [0; HEADROOM + 64];
/// let mut frame = PacketBuf::new(&mut space, HEADROOM, 0);
/// edge.poll_transmit(&mut frame).expect("an ARP request");
/// assert_eq!(&frame.bytes()[..14], b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x08\x06");
///
/// // The answer lets the packet go.
/// let mac = Some(MacAddress([2, 0, 0, 0, 0, 2]));
/// let answer = Advertisement { address: server, mac, is_solicited: true, overrides: true };
/// edge.handle_message(Instant::ZERO, &LinkMessage::Advertisement(answer));
/// let mut frame = PacketBuf::new(&mut space, HEADROOM, 0);
/// edge.poll_transmit(&mut frame).expect("the packet");
/// assert_eq!(&frame.bytes()[..15], b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0\x45");
/// ```
#[derive(Debug)]
pub struct Edge {
    writer: FrameWriter,
    routes: Routes,
    neighbours: Neighbours,
    responder: Responder,
    listener: Listener,
    counters: EdgeCounters,
    recent: Recent,
}

impl Edge {
    /// A station that announces nothing yet.
    pub fn new(config: EdgeConfig) -> Self {
        let mut neighbours = Neighbours::default();
        for (address, mac) in config.static_neighbours {
            neighbours.set_static(address, mac);
        }
        let mut edge = Self {
            listener: Listener::new(config.mac),
            writer: FrameWriter {
                mac: config.mac,
                vlan: config.vlan,
                source_ipv4: config.source_ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED),
                source_ipv6: config.source_ipv6.unwrap_or(config.mac.link_local()),
            },
            routes: config.routes,
            neighbours,
            responder: Responder::new(config.answers_for),
            counters: EdgeCounters::default(),
            recent: Recent::default(),
        };
        edge.hear_groups();
        edge
    }

    /// Turns the packet into a frame for `next_hop`, or for the gateway that leads there.
    ///
    /// # Errors
    /// The packet cannot be sent; its bytes are untouched.
    pub fn send(&mut self, now: Instant, packet: &mut PacketBuf<'_>, next_hop: IpAddr) -> Result<Sending, SendError> {
        if let Some(mac) = self.recent.get(now, next_hop) {
            self.writer.frame(packet, mac).ok_or(SendError::NoHeadroom)?;
            return Ok(Sending::Ready);
        }
        let Some(neighbour) = self.routes.next_hop(next_hop).filter(|address| is_one_station(*address)) else {
            self.counters.no_route += 1;
            return Err(SendError::NoRoute);
        };
        match self.neighbours.resolve(now, neighbour) {
            Resolution::Known(mac) => {
                self.recent.put(now, next_hop, mac);
                self.writer.frame(packet, mac).ok_or(SendError::NoHeadroom)?;
                Ok(Sending::Ready)
            }
            Resolution::Asked if self.neighbours.wait(neighbour, packet) => Ok(Sending::Waits),
            Resolution::Asked => Err(SendError::WaitingFull),
            Resolution::Unreachable => {
                self.counters.unreachable += 1;
                Err(SendError::Unreachable)
            }
        }
    }

    /// Takes in a message that a [`super::FrameReader`] read.
    pub fn handle_message(&mut self, now: Instant, message: &LinkMessage) {
        self.recent = Recent::default();
        match message {
            LinkMessage::Solicitation(solicitation) => self.handle_solicitation(now, solicitation),
            LinkMessage::Advertisement(advertisement) if self.responder.has(advertisement.address) => {
                self.counters.conflicts += u64::from(advertisement.mac.is_some_and(|mac| mac != self.writer.mac));
            }
            LinkMessage::Advertisement(advertisement) => self.neighbours.handle_advertisement(now, advertisement),
            LinkMessage::GroupQuery(query) => {
                self.counters.group_queries += 1;
                self.listener.handle_query(now, query);
            }
        }
    }

    fn handle_solicitation(&mut self, now: Instant, solicitation: &Solicitation) {
        if !self.responder.has(solicitation.target) {
            return;
        }
        if let Some(sender) = solicitation.sender {
            if self.responder.has(sender) {
                self.counters.conflicts += u64::from(solicitation.sender_mac != self.writer.mac);
                return;
            }
            if self.routes.is_direct(sender) && is_one_station(sender) {
                self.neighbours.handle_sender(now, solicitation);
            }
        }
        self.counters.answers_full += u64::from(!self.responder.answer(*solicitation));
    }

    /// Announces every address this station answers for: it has taken over.
    pub fn announce(&mut self, now: Instant) {
        let addresses = self.responder.addresses().to_vec();
        self.responder.announce(now, &addresses);
        self.listener.announce();
    }

    /// Goes on as the station `mac`: its device has got another address. What is known of neighbours stays.
    pub fn set_mac(&mut self, mac: MacAddress) {
        if self.writer.source_ipv6 == self.writer.mac.link_local() {
            self.writer.source_ipv6 = mac.link_local();
        }
        self.writer.mac = mac;
    }

    /// Starts to answer for an address and announces it; nothing happens if it does already.
    pub fn add_address(&mut self, now: Instant, address: IpAddr) {
        if self.responder.set(address, true) {
            self.responder.announce(now, &[address]);
            self.hear_groups();
        }
    }

    /// No longer answers for an address.
    pub fn remove_address(&mut self, address: IpAddr) {
        self.responder.set(address, false);
        self.hear_groups();
    }

    /// Hears the groups in which others ask for the addresses it answers for.
    fn hear_groups(&mut self) {
        let groups = self.responder.addresses().iter().filter_map(|address| match address {
            IpAddr::V6(address) => Some(solicited_node(*address)),
            IpAddr::V4(_) => None,
        });
        self.listener.hear(groups);
    }

    /// Writes the next frame that is due: an answer, an announcement, a report, a question, or a packet that waited.
    /// `None` if there is none. The buffer comes empty, with [`super::LINK_HEADER_MAX`] bytes of headroom or more; a
    /// frame that does not fit is lost and counted, which with room for 64 KiB none is.
    pub fn poll_transmit(&mut self, into: &mut PacketBuf<'_>) -> Option<()> {
        loop {
            let writer = &self.writer;
            let written = if let Some(statement) = self.responder.poll() {
                match statement {
                    Statement::Answer(question) => {
                        self.counters.answered += 1;
                        writer.answer(into, &question)
                    }
                    Statement::Announcement(address) => {
                        self.counters.announced += 1;
                        writer.announcement(into, address)
                    }
                }
            } else if let Some(report) = self.listener.poll() {
                self.counters.group_reports += 1;
                writer.report(into, &report)
            } else if let Some(ask) = self.neighbours.poll_ask() {
                self.counters.asked += 1;
                writer.question(into, ask.address, ask.to)
            } else {
                let (mac, packet) = self.neighbours.poll_ready()?;
                writer.packet(into, mac, &packet)
            };
            if written.is_some() {
                return written;
            }
            self.counters.too_long += 1;
        }
    }

    /// When [`Self::handle_timeout`] is to be called; at once if a frame waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.neighbours.has_output() || self.responder.has_output() || self.listener.has_output() {
            return Some(Instant::ZERO);
        }
        let timers = [self.neighbours.poll_timeout(), self.responder.poll_timeout(), self.listener.poll_timeout()];
        timers.into_iter().flatten().min()
    }

    /// Does what is due: asks again, announces again, forgets. Then [`Self::poll_transmit`] has the frames.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.recent = Recent::default();
        self.neighbours.handle_timeout(now);
        self.responder.handle_timeout(now);
        self.listener.handle_timeout(now);
    }

    /// What has been counted so far.
    pub fn counters(&self) -> EdgeCounters {
        let counts = self.neighbours.counts();
        EdgeCounters {
            waited: counts.kept,
            waiting_full: counts.waiting_full,
            unreachable: self.counters.unreachable + counts.unreachable,
            evicted: counts.evicted,
            ..self.counters
        }
    }

    /// How many packets wait for neighbours.
    pub fn waiting_count(&self) -> usize {
        self.neighbours.waiting_count()
    }

    /// How many neighbours are known or being asked for.
    pub fn neighbour_count(&self) -> usize {
        self.neighbours.len()
    }
}

/// What the last few next hops were resolved to, for a moment: what a batch of packets needs again and again. Forgotten
/// whenever something is heard or falls due.
#[derive(Debug, Default)]
struct Recent {
    at: Instant,
    entries: [Option<(IpAddr, MacAddress)>; RECENT_MAX],
}

/// A power of two.
const RECENT_MAX: usize = 16;

impl Recent {
    fn get(&self, now: Instant, next_hop: IpAddr) -> Option<MacAddress> {
        let (known, mac) = self.entries[Self::place(next_hop)]?;
        (self.at == now && known == next_hop).then_some(mac)
    }

    fn put(&mut self, now: Instant, next_hop: IpAddr, mac: MacAddress) {
        if self.at != now {
            *self = Self { at: now, ..Self::default() };
        }
        self.entries[Self::place(next_hop)] = Some((next_hop, mac));
    }

    /// Neighbours differ in their last bits.
    fn place(next_hop: IpAddr) -> usize {
        let last = match next_hop {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        };
        usize::from(last) % RECENT_MAX
    }
}

/// Whether an address can be a neighbour's.
fn is_one_station(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !is_broadcast && !address.is_loopback()
}
