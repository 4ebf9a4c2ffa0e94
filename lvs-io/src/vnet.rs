//! The virtio-net header the kernel puts before each packet of a device opened with `IFF_VNET_HDR`, as an [`Offload`]
//! and back. Pure. Layout: virtio 1.2 §5.1.6, the 10-byte form, in the machine's byte order (the legacy form).
//!
//! ```text
//!  0      1          2..4      4..6      6..8        8..10
//!  flags  gso_type   hdr_len   gso_size  csum_start  csum_offset
//! ```

use lvs_core::{ChecksumOffload, Gso, GsoKind, Offload};

/// Length of the header.
pub const HEADER_LEN: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What a header says about its packet. `None` if it names a kind of super-packet that was never asked for.
///
/// ```
/// use lvs_io::vnet;
/// assert_eq!(vnet::decode(&[0; vnet::HEADER_LEN]), Some(lvs_core::Offload::default()));
/// ```
pub fn decode(header: &[u8; HEADER_LEN]) -> Option<Offload> {
    let field = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    // Without NEEDS_CSUM the checksum is complete, or verified by the device (VIRTIO_NET_HDR_F_DATA_VALID).
    let checksum = if header[0] & NEEDS_CHECKSUM != 0 {
        ChecksumOffload::Partial { start: field(6), offset: field(8) }
    } else {
        ChecksumOffload::Full
    };
    let kind = match header[1] & !GSO_ECN {
        GSO_NONE => return Some(Offload { checksum, gso: None }),
        GSO_TCPV4 => GsoKind::TcpV4,
        GSO_TCPV6 => GsoKind::TcpV6,
        GSO_UDP_L4 => GsoKind::Udp,
        _ => return None,
    };
    let gso = Gso { kind, size: field(4), ecn: header[1] & GSO_ECN != 0 };
    Some(Offload { checksum, gso: Some(gso) })
}

/// The header for a packet with this offload context.
pub fn encode(offload: &Offload, packet: &[u8]) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    let mut set = |at: usize, value: u16| header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    if let ChecksumOffload::Partial { start, offset } = offload.checksum {
        set(6, start);
        set(8, offset);
    }
    if let Some(gso) = offload.gso {
        set(2, headers_len(offload, packet));
        set(4, gso.size);
    }
    if offload.checksum != ChecksumOffload::Full {
        header[0] = NEEDS_CHECKSUM;
    }
    if let Some(gso) = offload.gso {
        header[1] = match gso.kind {
            GsoKind::TcpV4 => GSO_TCPV4,
            GsoKind::TcpV6 => GSO_TCPV6,
            GsoKind::Udp => GSO_UDP_L4,
        };
        header[1] |= if gso.ecn { GSO_ECN } else { 0 };
    }
    header
}

/// Length of all headers of a super-packet, transport included: a hint for the kernel's first copy.
fn headers_len(offload: &Offload, packet: &[u8]) -> u16 {
    let ChecksumOffload::Partial { start, .. } = offload.checksum else { return 0 };
    let is_udp = offload.gso.is_some_and(|gso| gso.kind == GsoKind::Udp);
    let transport_len = match packet.get(usize::from(start) + 12) {
        _ if is_udp => 8,
        Some(data_offset) => u16::from(data_offset >> 4) * 4,
        None => 0,
    };
    start.saturating_add(transport_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand from virtio 1.2 §5.1.6, little-endian: TCP over IPv4 with 20 + 32 bytes of headers, 1448-byte segments.
    #[cfg(target_endian = "little")]
    const TCP_SUPER_PACKET: [u8; HEADER_LEN] = [1, 1, 52, 0, 0xa8, 5, 20, 0, 16, 0];

    #[cfg(target_endian = "little")]
    #[test]
    fn a_tcp_super_packet_header_reads_and_writes_the_same() {
        let offload = Offload {
            checksum: ChecksumOffload::Partial { start: 20, offset: 16 },
            gso: Some(Gso { kind: GsoKind::TcpV4, size: 1448, ecn: false }),
        };
        assert_eq!(decode(&TCP_SUPER_PACKET), Some(offload));
        // The header length is not in the context: it comes from the packet, here 20 + 32 bytes.
        let mut packet = [0; 60];
        packet[32] = 8 << 4;
        assert_eq!(encode(&offload, &packet), TCP_SUPER_PACKET);
    }

    #[test]
    fn every_kind_of_super_packet_survives_the_round_trip() {
        for kind in [GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::Udp] {
            for ecn in [false, true] {
                let checksum = ChecksumOffload::Partial { start: 40, offset: 6 };
                let offload = Offload { checksum, gso: Some(Gso { kind, size: 1200, ecn }) };
                assert_eq!(decode(&encode(&offload, &[0; 100])), Some(offload));
            }
        }
    }

    #[test]
    fn a_verified_checksum_counts_as_complete() {
        let mut header = [0; HEADER_LEN];
        header[0] = 2;
        assert_eq!(decode(&header), Some(Offload::default()));
    }

    #[test]
    fn a_super_packet_of_an_unknown_kind_is_refused() {
        let mut header = [0; HEADER_LEN];
        header[1] = 3; // VIRTIO_NET_HDR_GSO_UDP: fragments, not datagrams
        assert_eq!(decode(&header), None);
    }

    #[test]
    fn the_udp_header_length_needs_no_look_at_the_packet() {
        let checksum = ChecksumOffload::Partial { start: 20, offset: 6 };
        let offload = Offload { checksum, gso: Some(Gso { kind: GsoKind::Udp, size: 1200, ecn: false }) };
        assert_eq!(encode(&offload, &[])[2..4], 28u16.to_ne_bytes());
    }
}
