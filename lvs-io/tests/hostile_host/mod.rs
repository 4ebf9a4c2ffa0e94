//! Any packets for the stand-in for a host, for the fuzz target `host` and for the properties beside it. It answers only
//! what a host answers, to whom it came from; what it routes stays as it was but for the hop limit; every packet ends in
//! one counter.

use std::net::IpAddr;
use std::time::Duration;

use lvs_core::wire::parse::{Headers, parse};
use lvs_core::{Direction, HEADROOM, Instant, PacketBuf, Seed, Side};
use lvs_io::{Host, HostConfig};
use lvs_testkit::{icmp, tcp, udp};

const OWN: [&str; 4] = ["192.0.2.80", "2001:db8::80", "203.0.113.254", "10.0.0.254"];

/// Plays the packets that `data` is: a byte for what the host is, then kinds, lengths and bytes.
pub fn play(data: &[u8]) {
    let Some((&choice, mut script)) = data.split_first() else { return };
    let side = |ipv4: &str, mtu| {
        Side::default().with(|side| {
            side.ipv4 = ipv4.parse().ok();
            side.ipv6 = "2001:db8:ffff::1".parse().ok();
            side.mtu = mtu;
        })
    };
    let config = HostConfig {
        answer_rates: Default::default(),
        client_side: side(OWN[2], 1500),
        server_side: side(OWN[3], if choice & 2 == 0 { 1500 } else { 576 }),
        local_addresses: OWN[..2].iter().map(|text| address(text)).collect(),
        servers: vec![(address("10.0.0.0"), 24), (address("fd00::"), 64)],
        answers_only: choice & 1 != 0,
    };
    let mut host = Host::new(config, Seed::new(1));
    let (mut now, mut packets) = (Instant::from_secs(1), 0);
    while let Some((&step, after)) = script.split_first() {
        let take = usize::from(after.first().copied().unwrap_or(0)).min(after.len());
        let (bytes, after) = after.split_at(take);
        script = after;
        if step % 8 == 0 {
            now = now + Duration::from_secs(u64::from(step));
        }
        let came = if step & 128 == 0 { Direction::Request } else { Direction::Reply };
        offer(&mut host, now, came, &made(step, bytes), choice & 1 != 0);
        packets += 1;
    }
    let counted = host.counters();
    assert_eq!(packets, counted.answered + counted.routed + counted.fragments_kept + counted.dropped);
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("a constant")
}

/// These bytes as they are, or in a packet that is well made but for them.
fn made(step: u8, bytes: &[u8]) -> Vec<u8> {
    let byte = |index: usize| bytes.get(index).copied().unwrap_or(0);
    let packet = match step / 8 % 6 {
        0 => return bytes.to_vec(),
        1 => tcp("198.51.100.7:9", "192.0.2.80:80").flags(byte(1)),
        2 => udp("[2001:db8:c::7]:9", "[2001:db8::80]:80").payload(bytes),
        3 => icmp("198.51.100.7", "192.0.2.80", byte(1), byte(2), 7).payload(bytes),
        4 => icmp("2001:db8:c::7", "2001:db8::80", byte(1), byte(2), 7).payload(bytes),
        _ => udp("198.51.100.7:9", "10.0.0.9:80").hop_limit(byte(1)).payload(bytes),
    };
    let len = usize::from(byte(3)) * 8;
    if step & 64 == 0 {
        return packet.build();
    }
    let parts = packet.payload_len(len).fragments(64);
    parts.into_iter().nth(usize::from(byte(2)) % 4).unwrap_or_default()
}

fn offer(host: &mut Host, now: Instant, came: Direction, bytes: &[u8], answers_only: bool) {
    let before = *host.counters();
    let mut storage = vec![0; HEADROOM + bytes.len().max(1280) + 600];
    storage[HEADROOM..][..bytes.len()].copy_from_slice(bytes);
    let mut packet = PacketBuf::new(&mut storage, HEADROOM, bytes.len());
    let sent = host.handle_packet(now, came, &mut packet);
    let after = *host.counters();
    let Some(sent) = sent else {
        assert_eq!((after.answered, after.routed), (before.answered, before.routed));
        return;
    };
    let asked = parse(bytes).expect("only what is a packet is answered or routed");
    let made = parse(packet.bytes()).expect("what is sent is a packet");
    if after.answered > before.answered {
        check_answer(&asked, &made, packet.bytes());
        assert_eq!(sent.next_hop, asked.source, "to whom it came from");
        return;
    }
    assert!(!answers_only, "another host routes");
    assert_eq!(after.routed, before.routed + 1);
    assert!(!OWN.iter().any(|own| address(own) == asked.destination), "not what is its own");
    assert_eq!((made.source, made.destination, made.protocol), (asked.source, asked.destination, asked.protocol));
    assert_eq!(made.hop_limit + 1, asked.hop_limit);
    assert_eq!(packet.bytes()[asked.transport..], bytes[asked.transport..asked.packet_len], "its payload is its own");
}

/// A host sends resets, ICMP errors and echo replies, and none of them to an error, or to many.
fn check_answer(asked: &Headers, made: &Headers, answer: &[u8]) {
    assert_eq!(made.destination, asked.source);
    assert!(!asked.source.is_multicast() && !asked.destination.is_multicast());
    assert!(!asked.source.is_unspecified(), "nobody is there");
    let own = OWN.iter().any(|own| address(own) == made.source) || made.source == address("2001:db8:ffff::1");
    assert!(own, "from an address of its own, not {}", made.source);
    let payload = made.payload(answer);
    match made.protocol {
        6 => {
            assert_eq!(asked.protocol, 6);
            assert!(payload[13] & 4 != 0, "a reset");
        }
        1 => assert!([0, 3, 4, 11, 12].contains(&payload[0]), "ICMP type {}", payload[0]),
        58 => assert!([129, 1, 2, 3, 4].contains(&payload[0]), "ICMPv6 type {}", payload[0]),
        other => panic!("protocol {other}"),
    }
}
