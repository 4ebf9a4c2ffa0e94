//! Captures: the packets that pass one point of the network, as a classic pcap file that Wireshark opens.

use lvs_core::Instant;

/// A capture in memory, already in the file format.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Capture(Vec<u8>);

impl Capture {
    pub(crate) fn new() -> Self {
        let mut file = Vec::new();
        for word in [MAGIC, VERSION_2_4, 0, 0, SNAPLEN, LINKTYPE_RAW] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        Self(file)
    }

    pub(crate) fn add(&mut self, at: Instant, packet: &[u8]) {
        let len = packet.len() as u32;
        let seconds = (at.as_nanos() / 1_000_000_000) as u32;
        let nanos = (at.as_nanos() % 1_000_000_000) as u32;
        for word in [seconds, nanos, len, len] {
            self.0.extend_from_slice(&word.to_le_bytes());
        }
        self.0.extend_from_slice(packet);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Times in nanoseconds (pcap-savefile(5)).
const MAGIC: u32 = 0xa1b2_3c4d;
/// Major version 2 in the lower half, minor version 4 in the upper one.
const VERSION_2_4: u32 = 0x0004_0002;
const SNAPLEN: u32 = 65_535;
/// Packets begin with an IPv4 or IPv6 header.
const LINKTYPE_RAW: u32 = 101;
