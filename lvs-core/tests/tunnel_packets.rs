//! What goes into a tunnel comes out of it, and looks on its way as Linux's packets do.

use std::net::IpAddr;

use TunnelKind::{Gre, Gue, Ipip};
use lvs_core::service::{TunnelChecksum, TunnelConfig, TunnelKind};
use lvs_core::tunnel::{Accepts, Tunnel, decapsulate, encapsulate};
use lvs_core::wire::parse::parse;
use lvs_core::wire::rewrite::{complete_checksum, decrement_hop_limit};
use lvs_core::{AddressFamily, ChecksumOffload, DropReason, Gso, GsoKind, HEADROOM, Offload, PacketBuf};
use lvs_testkit::{Storage, oracle, raw, strategy, tcp, udp};
use proptest::prelude::*;

/// Recording and step; tunnel; the client's packet; Linux's packet to the server.
const RECORDED: [(&str, TunnelKind, TunnelChecksum, u16, &str, &str); 13] = [
    (
        "tun_ipip 13",
        Ipip,
        TunnelChecksum::None,
        0,
        "45030025123440000211038aac1421510aee8ab49597005000110fe2eab062c37949403cf0",
        "45020039000040000104ea480a01fffe0a017b7645030025123440000111048aac1421510aee8ab49597005000110fe2eab062c37949403cf0",
    ),
    (
        "tun_gre 13",
        Gre,
        TunnelChecksum::None,
        0,
        "45030025123440000211c4cbcb0071430a955aed7a7a1f900011bf05ab0c09bb9a27ce05e8",
        "4502003d00004000012f1eb80a01fffe0a0146d80000080045030025123440000111c5cbcb0071430a955aed7a7a1f900011bf05ab0c09bb9a27ce05e8",
    ),
    (
        "tun_grecsum 13",
        Gre,
        TunnelChecksum::Full,
        0,
        "4503002512344000021143f3ac1421fe0a734a198cb41f900011602ab9420976ed1553efcd",
        "4502004100004000012f24ca0a01fffe0a0140c2800008009ac000004503002512344000011144f3ac1421fe0a734a198cb41f900011602ab9420976ed1553efcd",
    ),
    (
        "tun_gue 13",
        Gue,
        TunnelChecksum::None,
        6080,
        "45030025123440000211512ecb0071910acece03bac7003500116444b27082e1ce4f0085c7",
        "4502004500004000011100560a01fffe0a016550aa1817c0003100000004000045030025123440000111522ecb0071910acece03bac7003500116444b27082e1ce4f0085c7",
    ),
    (
        "tun_guecsum 13",
        Gue,
        TunnelChecksum::Full,
        5555,
        "4503002512344000021126d7c633641b0a670b0527a42f910011ec8107bb1624386a1f1107",
        "450200450000400001112b9b0a01fffe0a013a0be12915b30031fa7c000400004503002512344000011127d7c633641b0a670b0527a42f910011ec8107bb1624386a1f1107",
    ),
    (
        "tun6_ipip 13",
        Ipip,
        TunnelChecksum::None,
        0,
        "603000000011110220010db8e8e0bf95000000000000f290fd00477e000000000000000000004ae28d1113c40011b2e62e7501fd56228b5942",
        "6020000000392901fd0100000000000000000000000000fffd010000000000000000000000eec663603000000011110120010db8e8e0bf95000000000000f290fd00477e000000000000000000004ae28d1113c40011b2e62e7501fd56228b5942",
    ),
    (
        "tun6_grecsum 13",
        Gre,
        TunnelChecksum::Full,
        0,
        "603000000011110220010db8984e5f98000000000000227efd00a8bb0000000000000000000019fd2d611f9000117c24cef19696a3504805de",
        "6020000000412f01fd0100000000000000000000000000fffd010000000000000000000000aee44b800086dd88010000603000000011110120010db8984e5f98000000000000227efd00a8bb0000000000000000000019fd2d611f9000117c24cef19696a3504805de",
    ),
    (
        "tun6_guecsum 13",
        Gue,
        TunnelChecksum::Full,
        5555,
        "603000000011110220010db8a16f74070000000000004c97fd00cc88000000000000000000008f20bb9823280011ffd45882785e90c078235f",
        "6020000000451101fd0100000000000000000000000000fffd010000000000000000000000929539dada15b300450cbf00290000603000000011110120010db8a16f74070000000000004c97fd00cc88000000000000000000008f20bb9823280011ffd45882785e90c078235f",
    ),
    (
        "tun_4over6_gre 7",
        Gre,
        TunnelChecksum::None,
        0,
        "452b002412340000401160a3644007360abe9193cfccccb2001056a9a0942d90bd3e797a",
        "62a0000000282f3ffd0100000000000000000000000000fffd01000000000000000000000085e17500000800452b0024123400003f1161a3644007360abe9193cfccccb2001056a9a0942d90bd3e797a",
    ),
    (
        "tun_4over6_guecsum 7",
        Gue,
        TunnelChecksum::Full,
        6080,
        "452b0024123400004011add9ac1421650acce24bac0d01bb0010eb29b86b385c6a9b50e7",
        "62a000000030113ffd0100000000000000000000000000fffd0100000000000000000000004f6fc3c78917c000306fde00040000452b0024123400003f11aed9ac1421650acce24bac0d01bb0010eb29b86b385c6a9b50e7",
    ),
    (
        "tun_6over4_ipip 7",
        Ipip,
        TunnelChecksum::None,
        0,
        "62b000000010114020010db8b06be7f6000000000000dd87fd00e4fd0000000000000000000074437d3c1f900010e1b3bb7119a082c12f95",
        "452a004c679e00003f2918810a01fffe0a01e73f62b000000010113f20010db8b06be7f6000000000000dd87fd00e4fd0000000000000000000074437d3c1f900010e1b3bb7119a082c12f95",
    ),
    (
        "tun_6over4_gre 7",
        Gre,
        TunnelChecksum::None,
        0,
        "62b000000010114020010db8b3c84d9d000000000000b5d1fd006459000000000000000000004aa2e43104aa001015523e3155e17d4c5f54",
        "452a00505a5d00003f2fdc630a01fffe0a013094000086dd62b000000010113f20010db8b3c84d9d000000000000b5d1fd006459000000000000000000004aa2e43104aa001015523e3155e17d4c5f54",
    ),
    (
        "tun_6over4_guecsum 7",
        Gue,
        TunnelChecksum::Full,
        6080,
        "62b000000010114020010db8d6dcc1c5000000000000e01efd0028ef000000000000000000003d83b94513bb001049a6014d2c5fd06ae122",
        "452a005836ce00003f1183f00a01fffe0a01acaca04417c0004412ad0029000062b000000010113f20010db8d6dcc1c5000000000000e01efd0028ef000000000000000000003d83b94513bb001049a6014d2c5fd06ae122",
    ),
];

const PORT: u16 = 6080;
const EVERYTHING: Accepts = Accepts { ipip: true, gre: true, gue_port: Some(PORT) };

fn tunnel(kind: TunnelKind, checksum: TunnelChecksum, v6: bool) -> Tunnel {
    let config = TunnelConfig { kind, port: PORT, checksum };
    let (source, destination) = if v6 { ("fd00::ff", "fd00::2") } else { ("10.0.0.254", "10.0.0.2") };
    Tunnel { source_port: 40_000, ..Tunnel::new(config, source.parse().unwrap(), destination.parse().unwrap()) }
}

/// Every kind of tunnel, over both families.
fn tunnels() -> impl Strategy<Value = Tunnel> {
    let kinds = [
        (Ipip, TunnelChecksum::None),
        (Gre, TunnelChecksum::None),
        (Gre, TunnelChecksum::Full),
        (Gue, TunnelChecksum::None),
        (Gue, TunnelChecksum::Full),
        (Gue, TunnelChecksum::Remote),
    ];
    (prop::sample::select(kinds.to_vec()), any::<bool>()).prop_map(|((kind, checksum), v6)| tunnel(kind, checksum, v6))
}

fn put_in(packet: &mut PacketBuf<'_>, tunnel: &Tunnel) -> Result<(), DropReason> {
    let headers = parse(packet.bytes()).expect("a well-formed packet");
    encapsulate(packet, &headers, tunnel)
}

/// Encapsulates a packet and takes it out again; what was on the wire between, as a device would have sent it.
fn check_round_trip(bytes: &[u8], checksum: ChecksumOffload, tunnel: &Tunnel) -> Vec<u8> {
    let offload = Offload { checksum, gso: None };
    let mut storage = Storage::new(bytes).offload(offload);
    let mut packet = storage.packet();
    put_in(&mut packet, tunnel).expect("it fits");
    let mut sent = Storage::new(packet.bytes()).offload(packet.offload);
    let mut sent = sent.packet();
    complete_checksum(&mut sent).unwrap();

    let mut nearby = Storage::new(packet.bytes()).offload(packet.offload);
    let mut nearby = nearby.packet();
    assert_eq!(decapsulate(&mut nearby, &EVERYTHING), Ok(Some(tunnel.config.kind)));
    assert_eq!((nearby.bytes(), nearby.offload), (bytes, offload), "without a wire between");

    let mut far = Storage::new(sent.bytes());
    let mut far = far.packet();
    assert_eq!(decapsulate(&mut far, &EVERYTHING), Ok(Some(tunnel.config.kind)));
    complete_checksum(&mut far).unwrap();
    let mut original = Storage::new(bytes).offload(offload);
    let mut original = original.packet();
    complete_checksum(&mut original).unwrap();
    assert_eq!(far.bytes(), original.bytes(), "over a wire");
    sent.bytes().to_vec()
}

#[test]
fn packets_to_servers_are_linuxes_to_the_byte() {
    for (name, kind, checksum, port, inside, outside) in RECORDED {
        let (inside, outside) = (hex(inside), hex(outside));
        let expected = parse(&outside).unwrap();
        let tunnel = Tunnel {
            // What Linux drew by lot.
            source_port: if kind == Gue { expected.ports(&outside).unwrap().0 } else { 0 },
            // What has DF gets none.
            identification: match (expected.family, expected.dont_fragment) {
                (AddressFamily::Ipv4, false) => u32::from(u16::from_be_bytes([outside[4], outside[5]])),
                _ => 0x5a5a_5a5a,
            },
            ..Tunnel::new(TunnelConfig { kind, port, checksum }, expected.source, expected.destination)
        };
        let mut storage = Storage::new(&inside);
        let mut packet = storage.packet();
        let family = parse(packet.bytes()).unwrap().family;
        decrement_hop_limit(packet.bytes_mut(), family);
        put_in(&mut packet, &tunnel).unwrap();
        assert_eq!(packet.bytes(), outside, "{name}");
    }
}

#[test]
fn linuxes_packets_come_out_as_they_went_in() {
    for (name, kind, _, port, inside, outside) in RECORDED {
        let mut storage = Storage::new(&hex(outside));
        let mut packet = storage.packet();
        let accepts = Accepts { gue_port: Some(port), ..EVERYTHING };
        assert_eq!(decapsulate(&mut packet, &accepts), Ok(Some(kind)), "{name}");
        let mut expected = hex(inside);
        let family = parse(&expected).unwrap().family;
        decrement_hop_limit(&mut expected, family);
        assert_eq!(packet.bytes(), expected, "{name}");
    }
}

proptest! {
    #![proptest_config(strategy::config())]

    #[test]
    fn what_goes_in_comes_out(packet in strategy::balanced_packet(), tunnel in tunnels()) {
        let sent = check_round_trip(&packet.build(), ChecksumOffload::Full, &tunnel);
        prop_assert!(parse(&sent).is_ok());
    }

    #[test]
    fn a_checksum_left_to_the_device_is_right_inside_and_outside(
        (from, to) in strategy::endpoints(), len in 0usize..200, is_tcp: bool, tunnel in tunnels(),
    ) {
        let packet = if is_tcp { tcp(from, to).ack() } else { udp(from, to) };
        let packet = packet.payload_len(len).partial_checksum();
        let sent = check_round_trip(&packet.build(), packet.offload(), &tunnel);
        let is_remote = tunnel.config.checksum == TunnelChecksum::Remote;
        if tunnel.config.kind == Gue {
            prop_assert_eq!(oracle::checksum_errors(&sent), [""; 0]);
        }
        // GUE says what is left to the receiver in eight more bytes.
        let base = Tunnel { config: TunnelConfig { checksum: TunnelChecksum::None, ..tunnel.config }, ..tunnel };
        if is_remote {
            prop_assert_eq!(tunnel.overhead(packet.offload()), base.overhead(ChecksumOffload::Full) + 8);
        }
    }

    #[test]
    fn damage_under_a_checksum_is_found(len in 0usize..64, at in any::<prop::sample::Index>(), bit in 0u8..8, v6: bool) {
        let bytes = udp("198.51.100.7:1024", "192.0.2.1:53").payload_len(len).build();
        for (kind, outer_len) in [(Gre, 20), (Gue, 20)] {
            let tunnel = tunnel(kind, TunnelChecksum::Full, v6);
            let mut storage = Storage::new(&bytes);
            let mut packet = storage.packet();
            put_in(&mut packet, &tunnel).unwrap();
            let outer_len = if v6 { outer_len + 20 } else { outer_len };
            let at = outer_len + at.index(packet.len() - outer_len);
            packet.bytes_mut()[at] ^= 1 << bit;
            let before = packet.bytes().to_vec();
            let outcome = decapsulate(&mut packet, &EVERYTHING);
            // A flag or a port that says "none of your business" is the only other way out.
            prop_assert!(!matches!(outcome, Ok(Some(_))), "{outcome:?} at {at}");
            prop_assert_eq!(packet.bytes(), before);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_taken_whole(bytes in strategy::bytes()) {
        let mut storage = Storage::new(&bytes);
        let mut packet = storage.packet();
        match decapsulate(&mut packet, &EVERYTHING) {
            Ok(Some(_)) => prop_assert!(parse(packet.bytes()).is_ok()),
            _ => prop_assert_eq!(packet.bytes(), bytes),
        }
    }
}

#[test]
fn tunnels_inside_tunnels_come_off_one_by_one() {
    let bytes = tcp("198.51.100.7:1024", "192.0.2.1:80").syn().build();
    let mut storage = Storage::with_room(&bytes, 4 * HEADROOM, 0);
    let mut packet = storage.packet();
    let kinds = [Ipip, Gre, Gue, Ipip];
    for (kind, v6) in kinds.into_iter().zip([false, true, false, true]) {
        put_in(&mut packet, &tunnel(kind, TunnelChecksum::Full, v6)).unwrap();
    }
    for kind in kinds.into_iter().rev() {
        assert_eq!(decapsulate(&mut packet, &EVERYTHING), Ok(Some(kind)));
    }
    assert_eq!(packet.bytes(), bytes);
}

#[test]
fn congestion_on_the_way_is_marked_inside() {
    for (inside, expected) in [(0b10, Ok(0b11)), (0b01, Ok(0b11)), (0b00, Err(DropReason::CongestionLost))] {
        for v6 in [false, true] {
            let ends = if v6 { ("[2001:db8::7]:1", "[2001:db8::1]:2") } else { ("198.51.100.7:1", "192.0.2.1:2") };
            let packet = |class: u8| udp(ends.0, ends.1).traffic_class(0xb8 | class).payload(b"x").build();
            let mut storage = Storage::new(&packet(inside));
            let mut buffer = storage.packet();
            put_in(&mut buffer, &tunnel(Ipip, TunnelChecksum::None, false)).unwrap();
            // A router on the way marks the outside.
            buffer.bytes_mut()[1] |= 0b11;
            lvs_core::wire::ipv4::recompute_checksum(buffer.bytes_mut(), 20);
            let outcome = decapsulate(&mut buffer, &EVERYTHING).map(|_| ());
            assert_eq!(outcome, expected.map(|_| ()), "{inside:02b}");
            if let Ok(class) = expected {
                assert_eq!(buffer.bytes(), packet(class), "{inside:02b}");
            }
        }
    }
}

#[test]
fn a_server_leaves_alone_what_it_does_not_accept() {
    let bytes = tcp("198.51.100.7:1024", "192.0.2.1:80").syn().build();
    let nothing = Accepts::default();
    for kind in [Ipip, Gre, Gue] {
        let mut storage = Storage::new(&bytes);
        let mut packet = storage.packet();
        put_in(&mut packet, &tunnel(kind, TunnelChecksum::None, false)).unwrap();
        let before = packet.bytes().to_vec();
        assert_eq!(decapsulate(&mut packet, &nothing), Ok(None));
        let other_port = Accepts { ipip: kind != Ipip, gre: kind != Gre, gue_port: Some(PORT + 1) };
        assert_eq!(decapsulate(&mut packet, &other_port), Ok(None));
        assert_eq!(packet.bytes(), before);
    }
}

#[test]
fn a_dialect_we_do_not_speak_is_left_alone() {
    let inside = tcp("198.51.100.7:1024", "192.0.2.1:80").syn().build();
    let outside = |protocol, header: &[u8]| {
        lvs_testkit::raw("10.0.0.254", "10.0.0.2", protocol).payload(&[header, &inside].concat()).build()
    };
    let gre_with_key = outside(47, &[0x20, 0, 8, 0, 0, 0, 0, 7]);
    let gre_of_ethernet = outside(47, &[0, 0, 0x65, 0x58]);
    let gue = |first: u8, protocol: u8, flags: u8| {
        let ports = [0x9c, 0x40, 0x17, 0xc0];
        let len = (12 + inside.len() as u16).to_be_bytes();
        outside(17, &[ports.as_slice(), &len, &[0, 0, first, protocol, 0, flags]].concat())
    };
    for packet in [gre_with_key, gre_of_ethernet, gue(0x20, 4, 0), gue(0x40, 4, 0), gue(0, 17, 0), gue(0, 4, 2)] {
        let mut storage = Storage::new(&packet);
        assert_eq!(decapsulate(&mut storage.packet(), &EVERYTHING), Ok(None), "{}", lvs_testkit::describe(&packet));
    }
    let mut understood = Storage::new(&gue(0, 4, 0));
    assert_eq!(decapsulate(&mut understood.packet(), &EVERYTHING), Ok(Some(Gue)));
}

#[test]
fn headers_that_are_cut_off_or_contradict_each_other_are_refused() {
    let inside = tcp("198.51.100.7:1024", "192.0.2.1:80").syn().build();
    let raw = |protocol, payload: &[u8]| lvs_testkit::raw("10.0.0.254", "10.0.0.2", protocol).payload(payload).build();
    let cases = [
        ("half a GRE header", raw(47, &[0, 0, 8]), DropReason::MalformedTunnel),
        ("GRE without its checksum", raw(47, &[0x80, 0, 8, 0, 1]), DropReason::MalformedTunnel),
        ("IPv4 announced as IPv6", raw(41, &inside), DropReason::MalformedTunnel),
        ("nothing inside", raw(4, &[]), DropReason::MalformedIp),
        ("GUE cut off", raw(17, &[0, 1, 0x17, 0xc0, 0, 10, 0, 0, 0, 4]), DropReason::MalformedTunnel),
        (
            "a UDP length beyond the packet",
            raw(17, &[0, 1, 0x17, 0xc0, 0, 99, 0, 0, 0, 4, 0, 0]),
            DropReason::MalformedTunnel,
        ),
        ("GUE options cut off", raw(17, &[0, 1, 0x17, 0xc0, 0, 12, 0, 0, 2, 4, 0, 1]), DropReason::MalformedTunnel),
    ];
    for (name, packet, reason) in cases {
        let mut storage = Storage::new(&packet);
        assert_eq!(decapsulate(&mut storage.packet(), &EVERYTHING), Err(reason), "{name}");
    }
}

#[test]
fn a_checksum_left_to_us_must_lie_inside_the_packet() {
    let inside = udp("198.51.100.7:1024", "192.0.2.1:53").payload(b"abcd").build();
    for (start, field, is_inside) in [(20u16, 26u16, true), (20, 31, false), (26, 20, false), (60, 66, false)] {
        let len = 20 + inside.len() as u16;
        let mut payload = vec![0x9c, 0x40, 0x17, 0xc0, (len >> 8) as u8, len as u8, 0, 0, 2, 4, 0, 1, 0x80, 0, 0, 0];
        payload.extend([start.to_be_bytes(), field.to_be_bytes()].concat());
        payload.extend(&inside);
        let packet = lvs_testkit::raw("10.0.0.254", "10.0.0.2", 17).payload(&payload).build();
        let mut storage = Storage::new(&packet);
        let mut packet = storage.packet();
        let outcome = decapsulate(&mut packet, &EVERYTHING);
        if is_inside {
            assert_eq!(outcome, Ok(Some(Gue)));
            assert_eq!(packet.offload.checksum, ChecksumOffload::Partial { start: 20, offset: 6 });
        } else {
            assert_eq!(outcome, Err(DropReason::MalformedTunnel), "{start} {field}");
        }
    }
}

#[test]
fn what_lies_behind_the_inner_packet_stays_behind() {
    let inner = udp("198.51.100.7:1024", "192.0.2.1:80").payload(b"hi");
    let padded = raw("10.0.0.254", "10.0.0.2", 4).payload(&inner.trailing(&[0xee; 3]).build()).trailing(&[0xee; 9]);
    let mut storage = Storage::new(&padded.build());
    let mut packet = storage.packet();
    assert_eq!(decapsulate(&mut packet, &EVERYTHING), Ok(Some(Ipip)));
    assert_eq!(packet.bytes(), udp("198.51.100.7:1024", "192.0.2.1:80").payload(b"hi").build());
}

#[test]
fn what_does_not_fit_stays_as_it_was() {
    let bytes = tcp("198.51.100.7:1024", "192.0.2.1:80").syn().build();
    let check = |mut storage: Storage, tunnel: Tunnel, reason| {
        let mut packet = storage.packet();
        let before = packet.bytes().to_vec();
        assert_eq!(put_in(&mut packet, &tunnel), Err(reason));
        assert_eq!(packet.bytes(), before);
    };
    let gue = tunnel(Gue, TunnelChecksum::None, true);
    check(Storage::with_room(&bytes, 51, 0), gue, DropReason::NoHeadroom);
    let mixed = Tunnel { source: "10.0.0.254".parse::<IpAddr>().unwrap(), ..gue };
    check(Storage::new(&bytes), mixed, DropReason::NotForwardable);
    let gso = Some(Gso { kind: GsoKind::TcpV4, size: 10, ecn: false });
    check(Storage::new(&bytes).offload(Offload { gso, ..Offload::default() }), gue, DropReason::NotForwardable);
    let checksum = ChecksumOffload::Partial { start: 20, offset: 200 };
    check(Storage::new(&bytes).offload(Offload { checksum, gso: None }), gue, DropReason::BadOffload);
    let longest = udp("198.51.100.7:1024", "192.0.2.1:80").payload_len(65_507).build();
    check(Storage::new(&longest), tunnel(Ipip, TunnelChecksum::None, false), DropReason::TooBig);
}

#[test]
fn sixty_four_bytes_of_headroom_are_enough_for_every_tunnel() {
    // 40 IPv6, 8 fragment header, 8 UDP, 4 GUE; or 12 GUE without a fragment header.
    let packet = udp("198.51.100.7:1024", "192.0.2.1:80").payload_len(1400).partial_checksum();
    for mtu in [1300, 9000] {
        for (kind, checksum) in
            [(Gue, TunnelChecksum::Remote), (Gre, TunnelChecksum::Full), (Gue, TunnelChecksum::Full)]
        {
            let offload = Offload { checksum: packet.offload(), gso: None };
            let mut storage = Storage::with_room(&packet.build(), HEADROOM, 0).offload(offload);
            let tunnel = Tunnel { mtu, ..tunnel(kind, checksum, true) };
            assert_eq!(put_in(&mut storage.packet(), &tunnel), Ok(()), "{kind:?} {mtu}");
        }
    }
}

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}
