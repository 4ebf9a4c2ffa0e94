//! Super-packets cut in software: every segment is a packet of its own, with what belongs to it and right checksums.

use lvs_core::wire::segment::segment;
use lvs_core::wire::tcp::TcpFlags;
use lvs_core::{DropReason, Gso, GsoKind};
use lvs_testkit::{describe, oracle, tcp, udp};

const CWR: u8 = 0x80;

fn segments(packet: &[u8], kind: GsoKind, size: u16) -> Result<Vec<Vec<u8>>, DropReason> {
    let mut all = Vec::new();
    segment(packet, Gso { kind, size, ecn: false }, &mut [0; 2000], |bytes| all.push(bytes.to_vec()))?;
    Ok(all)
}

#[test]
fn flags_stay_on_the_segments_they_belong_to() {
    let flags = TcpFlags::ACK | TcpFlags::PSH | TcpFlags::FIN | CWR;
    let packet = tcp("[2001:db8::7]:1024", "[2001:db8::1]:80").flags(flags).payload_len(25).build();
    let seen: Vec<u8> = segments(&packet, GsoKind::TcpV6, 10).unwrap().iter().map(|bytes| bytes[40 + 13]).collect();
    assert_eq!(seen, [TcpFlags::ACK | CWR, TcpFlags::ACK, TcpFlags::ACK | TcpFlags::PSH | TcpFlags::FIN]);
}

#[test]
fn udp_datagrams_get_lengths_and_checksums_of_their_own() {
    for (source, target) in [("203.0.113.7:1024", "192.0.2.1:53"), ("[2001:db8::7]:1024", "[2001:db8::1]:53")] {
        let packet = udp(source, target).payload_len(25).build();
        let cut = segments(&packet, GsoKind::Udp, 10).unwrap();
        let ip_len = packet.len() - 33;
        let lengths: Vec<usize> = cut.iter().map(|bytes| bytes.len() - ip_len).collect();
        assert_eq!(lengths, [18, 18, 13]);
        for datagram in &cut {
            assert_eq!(oracle::checksum_errors(datagram), [""; 0], "{}", describe(datagram));
            assert_eq!(usize::from(datagram[ip_len + 5]), datagram.len() - ip_len);
        }
        let data: Vec<u8> = cut.iter().flat_map(|bytes| bytes[ip_len + 8..].to_vec()).collect();
        assert_eq!(data, packet[ip_len + 8..]);
    }
}

#[test]
fn a_context_that_contradicts_the_packet_is_refused() {
    let packet = tcp("203.0.113.7:1024", "192.0.2.1:80").payload_len(25).build();
    for (kind, size) in [(GsoKind::Udp, 10), (GsoKind::TcpV6, 10), (GsoKind::TcpV4, 0)] {
        assert_eq!(segments(&packet, kind, size), Err(DropReason::BadOffload), "{kind:?} {size}");
    }
    let longer_than_the_buffer = tcp("203.0.113.7:1024", "192.0.2.1:80").payload_len(3000).build();
    assert_eq!(segments(&longer_than_the_buffer, GsoKind::TcpV4, 2500), Err(DropReason::NoTailroom));
}
