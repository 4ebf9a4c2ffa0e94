//! ICMP errors: which packets may be answered, which errors are taken for ours, what happens where room is short.
//! The bytes Linux makes of them are in `wire_recordings.rs`.

use lvs_core::wire::icmp::{self, IcmpError};
use lvs_core::wire::parse::parse;
use lvs_core::wire::rewrite::Rewrite;
use lvs_core::{ChecksumOffload, DropReason, Endpoint, Gso, GsoKind, Offload};
use lvs_testkit::{Storage, icmp as message, icmp_error, oracle, raw, tcp, udp};

#[test]
fn ordinary_packets_may_be_answered() {
    answered(&udp("203.0.113.7:1", "192.0.2.1:2").build(), true);
    answered(&tcp("[2001:db8::7]:1", "[2001:db8::1]:2").build(), true);
    answered(&message("203.0.113.7", "192.0.2.1", 8, 0, 0).build(), true);
    answered(&message("2001:db8::7", "2001:db8::1", 128, 0, 0).build(), true);
    answered(&udp("203.0.113.7:1", "192.0.2.1:2").payload_len(100).fragments(64)[0], true);
}

#[test]
fn errors_and_redirects_are_never_answered() {
    for icmp_type in [3, 4, 5, 11, 12] {
        answered(&message("203.0.113.7", "192.0.2.1", icmp_type, 0, 0).build(), false);
    }
    for icmp_type in [1, 2, 3, 4, 127, 137] {
        answered(&message("2001:db8::7", "2001:db8::1", icmp_type, 0, 0).build(), false);
    }
    // Too short to tell.
    answered(&raw("203.0.113.7", "192.0.2.1", 1).build(), false);
}

#[test]
fn nobody_and_everybody_are_not_answered() {
    for source in ["0.0.0.0:1", "127.0.0.1:1", "224.0.0.1:1", "255.255.255.255:1"] {
        answered(&udp(source, "192.0.2.1:2").build(), false);
    }
    for source in ["[::]:1", "[::1]:1", "[ff02::1]:1"] {
        answered(&udp(source, "[2001:db8::1]:2").build(), false);
    }
    for (source, many) in
        [("203.0.113.7:1", "224.0.0.1:2"), ("203.0.113.7:1", "255.255.255.255:2"), ("[2001:db8::7]:1", "[ff02::1]:2")]
    {
        answered(&udp(source, many).build(), false);
    }
    answered(&udp("203.0.113.7:1", "192.0.2.1:2").payload_len(100).fragments(64)[1], false);
}

#[test]
fn only_some_types_are_taken_for_errors_about_a_flow() {
    let quoted = udp("192.0.2.1:2", "203.0.113.7:1").payload_len(30).build();
    for icmp_type in 0..=255 {
        let is_related = matches!(icmp_type, 3 | 4 | 11);
        related(&icmp_error("203.0.113.7", icmp_type, 0, 0, &quoted).build(), Ok(is_related));
    }
    let quoted = udp("[2001:db8::1]:2", "[2001:db8::7]:1").payload_len(30).build();
    for icmp_type in 0..=255 {
        related(&icmp_error("2001:db8::7", icmp_type, 0, 0, &quoted).build(), Ok(icmp_type < 128));
    }
}

#[test]
fn an_error_that_quotes_nothing_readable_is_like_any_other_packet() {
    let v6 = udp("[2001:db8::1]:2", "[2001:db8::7]:1").build();
    let later = &udp("192.0.2.1:2", "203.0.113.7:1").payload_len(100).fragments(64)[1];
    related(&message("203.0.113.7", "192.0.2.1", 3, 3, 0).build(), Ok(false));
    related(&message("203.0.113.7", "192.0.2.1", 3, 3, 0).payload(&v6).build(), Ok(false));
    related(&icmp_error("203.0.113.7", 3, 3, 0, later).build(), Ok(false));
    // Of a tunnel, the caller wants to see what is quoted; of AH and ESP, it needs no ports.
    related(&icmp_error("203.0.113.7", 3, 3, 0, &raw("192.0.2.1", "203.0.113.7", 4).build()).build(), Ok(true));
    let esp = raw("192.0.2.1", "203.0.113.7", 50).payload_len(8).fragment(64, false).build();
    related(&icmp_error("203.0.113.7", 3, 3, 0, &esp).build(), Ok(true));
}

#[test]
fn a_fragmented_error_is_put_together_in_ipv4_and_dropped_in_ipv6() {
    let quoted = udp("192.0.2.1:2", "203.0.113.7:1").payload_len(100).build();
    for fragment in icmp_error("203.0.113.7", 3, 3, 0, &quoted).fragments(64) {
        related(&fragment, Ok(false));
    }
    let quoted = udp("[2001:db8::1]:2", "[2001:db8::7]:1").payload_len(100).build();
    let fragments = icmp_error("2001:db8::7", 1, 4, 0, &quoted).fragments(64);
    related(&fragments[0], Err(DropReason::TruncatedIcmp));
    related(&fragments[1], Ok(false));
    let echo = message("2001:db8::7", "2001:db8::1", 128, 0, 0).payload_len(100);
    related(&echo.fragments(64)[0], Ok(false));
}

#[test]
fn a_quote_without_ports_cannot_be_translated() {
    let quoted = udp("192.0.2.1:2", "203.0.113.7:1").build();
    let bytes = icmp_error("203.0.113.7", 3, 3, 0, &quoted[..23]).build();
    let headers = parse(&bytes).unwrap();
    let related = icmp::related(&bytes, &headers).unwrap().expect("an error about a flow");
    assert_eq!(related.quoted.ports(&bytes), None);
    let mut storage = Storage::new(&bytes);
    let to = Rewrite { source: None, destination: Some(Endpoint::new([10, 0, 0, 2].into(), 80)) };
    let refused = icmp::rewrite_error(&mut storage.packet(), &headers, &related, &to, &to);
    assert_eq!(refused, Err(DropReason::TruncatedIcmp));
    assert_eq!(storage.packet().bytes(), bytes);
}

#[test]
fn a_translated_quote_has_a_right_header_checksum_even_if_it_had_a_wrong_one() {
    let quoted = udp("192.0.2.1:2", "203.0.113.7:1").bad_ip_checksum().build();
    let mut storage = Storage::new(&icmp_error("203.0.113.7", 3, 3, 0, &quoted).build());
    storage.offload.checksum = ChecksumOffload::Partial { start: 20, offset: 2 };
    let mut packet = storage.packet();
    let headers = parse(packet.bytes()).unwrap();
    let related = icmp::related(packet.bytes(), &headers).unwrap().expect("an error about a flow");
    let server = Some(Endpoint::new([10, 0, 0, 2].into(), 80));
    let (outer, quoted) =
        (Rewrite { source: None, destination: server }, Rewrite { source: server, destination: None });
    icmp::rewrite_error(&mut packet, &headers, &related, &outer, &quoted).unwrap();
    assert_eq!(oracle::checksum_errors(packet.bytes()), Vec::<&str>::new());
    assert_eq!(oracle::checksum(&packet.bytes()[28..48]), 0);
    assert_eq!(packet.offload, Offload::default());
}

#[test]
fn an_answer_to_a_super_packet_is_an_ordinary_packet() {
    let request = tcp("203.0.113.7:1", "192.0.2.1:2").partial_checksum().payload_len(3000);
    let gso = Some(Gso { kind: GsoKind::TcpV4, size: 1460, ecn: false });
    let mut storage = Storage::new(&request.build()).offload(Offload { checksum: request.offload(), gso });
    let mut packet = storage.packet();
    let headers = parse(packet.bytes()).unwrap();
    icmp::make_error(&mut packet, &headers, IcmpError::TooBig { mtu: 1400 }, headers.destination, 0).unwrap();
    assert_eq!((packet.offload, packet.len()), (Offload::default(), 576));
}

#[test]
fn a_damaged_error_is_told_from_a_whole_one() {
    for (from, icmp_type, quoted) in [
        ("203.0.113.7", 3, udp("192.0.2.1:2", "203.0.113.7:1").build()),
        ("2001:db8::7", 1, udp("[2001:db8::1]:2", "[2001:db8::7]:1").build()),
    ] {
        let error = icmp_error(from, icmp_type, 3, 0, &quoted);
        for (bytes, is_valid) in [(error.build(), true), (error.bad_checksum().build(), false)] {
            assert_eq!(icmp::checksum_is_valid(&bytes, &parse(&bytes).unwrap()), is_valid);
        }
    }
}

#[test]
fn an_answer_needs_its_headers_length_of_headroom() {
    for (packet, source, needed) in [
        (udp("203.0.113.7:1", "192.0.2.1:2").build(), [192, 0, 2, 1].into(), 28),
        (udp("[2001:db8::7]:1", "[2001:db8::1]:2").build(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(), 48),
    ] {
        let headers = parse(&packet).unwrap();
        let answer = |room| {
            let mut storage = Storage::with_room(&packet, room, 0);
            icmp::make_error(&mut storage.packet(), &headers, IcmpError::HostUnreachable, source, 0)
        };
        assert_eq!(answer(needed), Ok(()));
        assert_eq!(answer(needed - 1), Err(DropReason::NoHeadroom));
    }
}

#[test]
fn every_error_has_the_number_of_its_version() {
    use lvs_core::AddressFamily::{Ipv4, Ipv6};
    for (error, v4, v6) in [
        (IcmpError::PortUnreachable, (3, 3, 0), (1, 4, 0)),
        (IcmpError::HostUnreachable, (3, 1, 0), (1, 3, 0)),
        (IcmpError::TimeExceeded, (11, 0, 0), (3, 0, 0)),
        (IcmpError::TooBig { mtu: 0x1_0578 }, (3, 4, 0xffff), (2, 0, 0x1_0578)),
        (IcmpError::Other { error_type: 12, code: 1, rest: 9 }, (12, 1, 9), (12, 1, 9)),
    ] {
        assert_eq!((error.header(Ipv4), error.header(Ipv6)), (v4, v6));
    }
}

fn answered(bytes: &[u8], expected: bool) {
    assert_eq!(icmp::may_answer(&parse(bytes).unwrap(), bytes), expected, "{}", lvs_testkit::describe(bytes));
}

/// Whether the packet is an error about a flow, or why it is refused.
fn related(bytes: &[u8], expected: Result<bool, DropReason>) {
    let found = icmp::related(bytes, &parse(bytes).unwrap()).map(|related| related.is_some());
    assert_eq!(found, expected, "{}", lvs_testkit::describe(bytes));
}
