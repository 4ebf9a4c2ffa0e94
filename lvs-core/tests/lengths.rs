//! Two lengths that disagree: a datagram that ends before its packet does, or says that it is longer. What a director
//! puts into it, and what it sums, goes by the datagram's own length. NAT alone does as Linux (`conformance/`).

use lvs_core::{DropReason, Verdict};
use lvs_testkit::desk::hand_over;
use lvs_testkit::{Desk, Outcome, Storage, oracle, udp};

const CLIENT: &str = "198.51.100.7:1024";
const CLIENT6: &str = "[2001:db8::7]:1024";
const VIRTUAL: &str = "192.0.2.53:53";
const VIRTUAL6: &str = "[2001:db8:1::53]:53";
const TEXT: &[u8] = b"datagram";

fn full_nat(virtual_endpoint: &str, real: &str, options: &str) -> Desk {
    let local = if real.starts_with('[') { "fd00::200" } else { "10.0.0.200" };
    Desk::new(&format!(
        "-A -u {virtual_endpoint} -s rr {options}\n\
         --add-laddr -u {virtual_endpoint} --local-address {local}\n\
         -a -u {virtual_endpoint} -r {real} --fullnat"
    ))
}

/// A datagram whose packet is `tail` bytes longer than the datagram, and whose length field says `told` more than it is.
fn datagram(client: &str, to: &str, has_checksum: bool, tail: usize, told: i16) -> Vec<u8> {
    let whole = udp(client, to).payload(TEXT);
    let mut packet = if has_checksum { whole.build() } else { whole.no_checksum().build() };
    packet.extend(vec![0x99; tail]);
    let is_ipv4 = packet[0] >> 4 == 4;
    let (field, transport) = if is_ipv4 { (2, 20) } else { (4, 40) };
    let len = packet.len() - if is_ipv4 { 0 } else { 40 };
    packet[field..field + 2].copy_from_slice(&(len as u16).to_be_bytes());
    let told = (8 + TEXT.len() as i16 + told) as u16;
    packet[transport + 4..transport + 6].copy_from_slice(&told.to_be_bytes());
    if is_ipv4 {
        packet[10..12].fill(0);
        let checksum = oracle::checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

fn send(desk: &mut Desk, packet: &[u8]) -> Outcome {
    hand_over(&mut desk.director, desk.now, Storage::with_room(packet, 64, 2048))
}

/// The datagram by its own length, whose checksum is right or absent.
#[track_caller]
fn payload(outcome: &Outcome) -> Vec<u8> {
    assert!(matches!(outcome.verdict, Verdict::Forward { .. }), "{}", outcome.line());
    let parsed = oracle::parse(&outcome.bytes).expect("a packet");
    let len = usize::from(u16::from_be_bytes([parsed.segment[4], parsed.segment[5]]));
    let datagram = &parsed.segment[..len];
    let right = oracle::transport_checksum(parsed.source, parsed.destination, 17, datagram).expect("UDP has one");
    assert!(datagram[6..8] == [0, 0] || datagram[6..8] == right[..], "{}", outcome.line());
    assert!(parsed.source.is_ipv4() || datagram[6..8] != [0, 0], "IPv6 asks for one");
    datagram[8..].to_vec()
}

const REAL: &str = "10.0.0.2:5353";
/// Clients with their virtual endpoints, and servers: within both families, and NAT64.
const WAYS: [(&str, &str, &str); 3] =
    [(CLIENT, VIRTUAL, REAL), (CLIENT6, VIRTUAL6, "[fd00::2]:5353"), (CLIENT6, VIRTUAL6, REAL)];

/// The server's answer on the connection that a whole datagram opens.
fn answer(desk: &mut Desk, (client, virtual_endpoint, real): (&str, &str, &str), tail: usize, told: i16) -> Outcome {
    send(desk, &datagram(client, virtual_endpoint, true, 0, 0));
    let local = desk.connections()[0].local.expect("a FullNAT connection has one").to_string();
    send(desk, &datagram(real, &local, false, tail, told))
}

#[test]
fn a_datagram_without_checksum_stays_right_whatever_is_behind_it() {
    for tail in [0, 3, 8] {
        let sent = send(&mut full_nat(VIRTUAL, REAL, ""), &datagram(CLIENT, VIRTUAL, false, tail, 0));
        assert_eq!(payload(&sent), TEXT, "{tail} bytes behind");
        for way in [WAYS[0], WAYS[2]] {
            let sent = answer(&mut full_nat(way.1, way.2, ""), way, tail, 0);
            assert_eq!(payload(&sent), TEXT, "{tail} bytes behind, {way:?}");
        }
    }
}

#[test]
fn a_datagram_with_checksum_stays_right_whatever_is_behind_it() {
    for tail in [0, 3, 8] {
        for (client, virtual_endpoint, real) in WAYS {
            let mut desk = full_nat(virtual_endpoint, real, "");
            let sent = send(&mut desk, &datagram(client, virtual_endpoint, true, tail, 0));
            assert_eq!(payload(&sent), TEXT, "{tail} bytes behind, {client} to {real}");
        }
    }
}

#[test]
fn a_proxy_header_goes_before_a_datagram_of_its_own_length() {
    for tail in [0, 3, 8] {
        for (client, virtual_endpoint, real) in WAYS {
            for has_checksum in [true, client.starts_with('[')] {
                let mut desk = full_nat(virtual_endpoint, real, "--client-address proxy-v2");
                let sent = send(&mut desk, &datagram(client, virtual_endpoint, has_checksum, tail, 0));
                let got = payload(&sent);
                assert_eq!(&got[..12], b"\r\n\r\n\0\r\nQUIT\n");
                let header_len = if client.starts_with('[') { 52 } else { 28 };
                assert_eq!(&got[header_len..], TEXT, "{tail} bytes behind, {client} to {real}");
            }
        }
    }
}

#[test]
fn what_no_receiver_would_take_is_not_made_to_look_right() {
    // No length at all; half a header; more than there is.
    for told in [-16, -9, 1, 100] {
        let refused = Verdict::Drop(DropReason::BadLength);
        for (client, virtual_endpoint, real) in WAYS {
            let mut desk = full_nat(virtual_endpoint, real, "--client-address proxy-v2");
            let sent = send(&mut desk, &datagram(client, virtual_endpoint, true, 0, told));
            assert_eq!(sent.verdict, refused, "{told}, {client} to {real}");
        }
        let (_, virtual_endpoint, real) = WAYS[2];
        assert_eq!(answer(&mut full_nat(virtual_endpoint, real, ""), WAYS[2], 0, told).verdict, refused, "{told}");
        // Where nothing is put in or summed, it goes on as it came, as with NAT.
        let packet = datagram(CLIENT, VIRTUAL, false, 0, told);
        let sent = send(&mut full_nat(VIRTUAL, REAL, ""), &packet);
        assert_eq!(sent.bytes[24..28], packet[24..28]);
    }
}

#[test]
fn the_other_form_of_uoa_does_not_pass_to_a_server_that_is_told_nothing() {
    let mut desk = full_nat(VIRTUAL, "10.0.0.2:5353", "");
    let sent = send(&mut desk, &udp(CLIENT, VIRTUAL).ipv4_options(&[31, 8, 0, 80, 10, 9, 8, 7]).payload(TEXT).build());
    assert_eq!(sent.bytes[20..28], [1; 8]);
}
