//! The way in: takes the Ethernet header off a frame and decides whether the rest is a packet for the director, a
//! message about the link, or nobody's business here.

use lvs_core::PacketBuf;

use super::address::MacAddress;
use super::frame::Tag;
use super::message::LinkMessage;
use super::{arp, frame, mld, ndp};

/// Reads frames of one station. Keeps nothing but counters.
///
/// ```
/// use lvs_core::PacketBuf;
/// use lvs_io::l2::{FrameReader, MacAddress, Read};
///
/// let mut reader = FrameReader::new(MacAddress([2, 0, 0, 0, 0, 1]), None);
/// let mut bytes = *b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0\x45\0\0\x14";
/// let mut frame = PacketBuf::new(&mut bytes, 0, 18);
/// assert_eq!(reader.read(&mut frame, None), Read::Packet);
/// assert_eq!(frame.bytes(), [0x45, 0, 0, 0x14]);
/// ```
#[derive(Clone, Debug)]
pub struct FrameReader {
    mac: MacAddress,
    vlan: Option<u16>,
    counters: ReaderCounters,
}

/// What a frame held.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// A packet for the director; the window begins at its IP header.
    Packet,
    /// A message for [`super::Edge::handle_message`].
    Message(LinkMessage),
    /// Nothing for us; counted.
    Ignored,
}

/// Frames that were nothing for the director.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReaderCounters {
    /// For another station, or a group.
    pub for_others: u64,
    /// With a tag of 802.1ad, which is not spoken here, whatever it holds.
    pub service_tagged: u64,
    /// In another VLAN, or in one where there should be none, or the other way round.
    pub other_vlan: u64,
    /// Neither IPv4, IPv6 nor ARP.
    pub other_protocol: u64,
    /// Too short, or a message that contradicts itself or is about routers.
    pub malformed: u64,
}

impl ReaderCounters {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.for_others + self.service_tagged + self.other_vlan + self.other_protocol + self.malformed
    }
}

impl FrameReader {
    /// A reader for the station `mac` in the VLAN `vlan` (1 to 4094), or outside all of them.
    pub fn new(mac: MacAddress, vlan: Option<u16>) -> Self {
        Self { mac, vlan, counters: ReaderCounters::default() }
    }

    /// Reads on as the station `mac`.
    pub fn set_mac(&mut self, mac: MacAddress) {
        self.mac = mac;
    }

    /// Takes the header off the frame. `tag` is the one the device has taken off already, if any. A packet may be
    /// followed by padding, which IP lengths tell apart.
    pub fn read(&mut self, frame: &mut PacketBuf<'_>, tag: Option<Tag>) -> Read {
        let Some(header) = frame::strip(frame, tag) else {
            self.counters.malformed += 1;
            return Read::Ignored;
        };
        if header.kind == frame::TYPE_SERVICE_VLAN {
            self.counters.service_tagged += 1;
            return Read::Ignored;
        }
        if header.vlan != self.vlan {
            self.counters.other_vlan += 1;
            return Read::Ignored;
        }
        let is_ours = header.destination == self.mac;
        if !is_ours && header.destination.is_unicast() {
            self.counters.for_others += 1;
            return Read::Ignored;
        }
        match header.kind {
            frame::TYPE_ARP => self.message(arp::parse(frame.bytes())),
            frame::TYPE_IPV6 if ndp::is_neighbor_discovery(frame.bytes()) => {
                self.message(ndp::parse(frame.bytes(), header.source))
            }
            frame::TYPE_IPV6 if mld::is_query(frame.bytes()) => self.message(mld::parse(frame.bytes())),
            frame::TYPE_IPV4 | frame::TYPE_IPV6 if is_ours => {
                frame.link_priority = header.priority;
                Read::Packet
            }
            frame::TYPE_IPV4 | frame::TYPE_IPV6 => {
                self.counters.for_others += 1;
                Read::Ignored
            }
            _ => {
                self.counters.other_protocol += 1;
                Read::Ignored
            }
        }
    }

    fn message(&mut self, message: Option<LinkMessage>) -> Read {
        if let Some(message) = message {
            return Read::Message(message);
        }
        self.counters.malformed += 1;
        Read::Ignored
    }

    /// What has been ignored so far.
    pub fn counters(&self) -> &ReaderCounters {
        &self.counters
    }
}
