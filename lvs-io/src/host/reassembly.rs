//! Fragments for the host itself, put together (RFC 791 §3.2, RFC 8200 §4.5).

use lvs_core::{Instant, PacketBuf};

/// What became of a fragment.
pub(super) enum Collected {
    /// The packet now holds the whole datagram.
    Complete,
    /// The fragment waits for the others.
    Kept,
    /// The fragment is malformed, overlaps another or there is no room.
    Refused,
}

#[derive(Debug, Default)]
pub(super) struct Reassembly {}

impl Reassembly {
    pub(super) fn collect_ipv4(&mut self, now: Instant, packet: &mut PacketBuf<'_>, header_len: usize) -> Collected {
        let _ = (now, packet, header_len);
        Collected::Refused
    }

    pub(super) fn collect_ipv6(
        &mut self,
        now: Instant,
        packet: &mut PacketBuf<'_>,
        fragment_header: usize,
        named_at: usize,
    ) -> Collected {
        let _ = (now, packet, fragment_header, named_at);
        Collected::Refused
    }
}
