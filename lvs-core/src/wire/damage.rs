//! Whether a packet was damaged on its way, by the checksum of its transport protocol. Whoever receives such a packet
//! throws it away, so it proves nothing of its sender.

use crate::flow::Protocol;
use crate::packet::{ChecksumOffload, PacketBuf};
use crate::wire::parse::Headers;
use crate::wire::{checksum, read_u16, sctp, udp};

/// Whether the transport checksum is wrong. One that is left to the device, that is not all here (a fragment), that UDP
/// leaves out, or that no service knows cannot be judged and is not.
pub(crate) fn is_damaged(packet: &PacketBuf<'_>, headers: &Headers) -> bool {
    if headers.fragment.is_some() || packet.offload.checksum != ChecksumOffload::Full {
        return false;
    }
    let segment = headers.payload(packet.bytes());
    let is_wrong = |segment: &[u8]| {
        checksum::transport_checksum(headers.source, headers.destination, headers.protocol, segment) != 0
    };
    match Protocol::from_number(headers.protocol) {
        Some(Protocol::Tcp) => is_wrong(segment),
        Some(Protocol::Udp) => match udp::datagram_len(segment) {
            // RFC 768, RFC 6936: zero is no checksum.
            Some(len) => read_u16(segment, udp::CHECKSUM) != Some(0) && is_wrong(&segment[..len]),
            None => true,
        },
        Some(Protocol::Sctp) => !sctp::is_intact(segment),
        None => false,
    }
}
