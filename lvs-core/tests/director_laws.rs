//! Laws that hold for every packet, whatever it is. `Desk::send` checks three of them on each: dropped and passed
//! packets stay as they were, explain agrees, and checksums that were right stay right.

use std::net::SocketAddr;

use lvs_core::{Instant, PacketBuf, Seed, Verdict};
use lvs_testkit::{Desk, Storage, sctp, strategy, tcp, udp};
use proptest::prelude::*;

const RULES: &str = "
-A -t 192.0.2.1:80 -s wlc
-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m -w 2
-a -t 192.0.2.1:80 -r 10.0.0.3:80 -m
-a -t 192.0.2.1:80 -r 10.0.0.4:80 -g
-A -u 192.0.2.1:80 -s rr -p 60
-a -u 192.0.2.1:80 -r 10.0.0.2:8080 -m
-A --sctp-service 192.0.2.1:80 -s rr
-a --sctp-service 192.0.2.1:80 -r 10.0.0.2:8080 -m
-A -t [2001:db8::1]:80 -s rr
-a -t [2001:db8::1]:80 -r [fd00::2]:8080 -m
-A -u [2001:db8::1]:80 -s rr -o
-a -u [2001:db8::1]:80 -r [fd00::2]:8080 -m
-A --sctp-service [2001:db8::1]:80 -s rr
-a --sctp-service [2001:db8::1]:80 -r [fd00::2]:8080 -m
";

/// A request or reply among few addresses, so that flows meet.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let shape = (0u8..3, any::<u8>(), any::<bool>(), any::<bool>(), 0u16..4, 1u8..4);
    (shape, prop::collection::vec(any::<u8>(), 0..80)).prop_map(|((kind, flags, v6, is_reply, port, hops), payload)| {
        let address = |v4: &str, six: &str| if v6 { six.parse().unwrap() } else { v4.parse().unwrap() };
        let client = SocketAddr::new(address("198.51.100.7", "2001:db8:c::7"), 1024 + port);
        let vip = SocketAddr::new(address("192.0.2.1", "2001:db8::1"), 80);
        let server = SocketAddr::new(address("10.0.0.2", "fd00::2"), 8080);
        let (from, to) = if is_reply { (server, client) } else { (client, vip) };
        let packet = match kind {
            0 => tcp(from, to).flags(flags).payload(&payload),
            1 => udp(from, to).payload(&payload),
            _ => sctp(from, to).chunk(flags % 15, &payload),
        };
        packet.hop_limit(hops).build()
    })
}

proptest! {
    #![proptest_config(strategy::config())]

    #[test]
    fn any_traffic_keeps_the_promises_made_for_every_packet(packets in prop::collection::vec(packet(), 1..40)) {
        let mut desk = Desk::new(RULES);
        for packet in packets {
            desk.send(&packet);
        }
    }

    #[test]
    fn any_bytes_keep_them_too(bytes in strategy::bytes(), damaged in strategy::mutated()) {
        let mut desk = Desk::new(RULES);
        desk.send(&bytes);
        desk.send(&damaged);
    }

    #[test]
    fn a_reply_restores_what_the_request_changed(port in 1024u16.., payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut desk = Desk::new("-A -u 192.0.2.1:80 -s rr\n-a -u 192.0.2.1:80 -r 10.0.0.2:8080 -m");
        let client = format!("198.51.100.7:{port}");
        let request = desk.send(&udp(client.as_str(), "192.0.2.1:80").payload(&payload).build());
        let is_forwarded = matches!(request.verdict, Verdict::Forward { .. });
        prop_assert!(is_forwarded);
        let reply = desk.send(&udp("10.0.0.2:8080", client.as_str()).payload(&payload).build());
        let direct = udp("192.0.2.1:80", client.as_str()).payload(&payload).hop_limit(63).build();
        prop_assert_eq!(reply.bytes, direct, "as if the virtual address had answered itself");
    }

    #[test]
    fn a_batch_is_equal_to_its_packets_one_by_one(packets in prop::collection::vec(packet(), 1..64)) {
        let mut single = Desk::new(RULES);
        let one_by_one: Vec<_> = packets.iter().map(|packet| single.send(packet)).collect();
        let mut batch = Desk::new(RULES);
        let mut storages: Vec<_> = packets.iter().map(|packet| Storage::with_room(packet, 64, 2048)).collect();
        let mut lent: Vec<PacketBuf<'_>> = storages.iter_mut().map(Storage::packet).collect();
        let mut together = Vec::new();
        batch.director.handle_batch(batch.now, &mut lent, |index, packet, verdict| {
            together.push((index, verdict, packet.bytes().to_vec()));
        });
        for (index, outcome) in one_by_one.into_iter().enumerate() {
            prop_assert_eq!(&together[index], &(index, outcome.verdict, outcome.bytes));
        }
        prop_assert_eq!(single.connections(), batch.connections());
        prop_assert_eq!(single.director.services(single.now), batch.director.services(batch.now));
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes(packets in prop::collection::vec(packet(), 1..40)) {
        let run = || {
            let mut desk = Desk::new(RULES);
            packets.iter().map(|packet| desk.send(packet)).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(), run());
    }
}

#[test]
fn a_clock_that_jumps_back_or_leaps_ahead_breaks_nothing() {
    let mut desk = Desk::new(RULES);
    let request = udp("198.51.100.7:1024", "192.0.2.1:80").payload(b"x").build();
    for seconds in [10, 5, 10_000_000, 1, u64::MAX / 2_000_000_000, 0, u64::MAX] {
        desk.now = Instant::from_secs(seconds);
        let sent = desk.send(&request);
        let has_time = desk.now < Instant::from_secs(u64::MAX);
        assert!(!has_time || matches!(sent.verdict, Verdict::Forward { .. }), "at {seconds}: {sent:?}");
        desk.director.handle_timeout(desk.now);
    }
}

/// What becomes of these packets, with the identifications of the director's own ICMP errors left out.
fn run_seeded(seed: u64, rules: &str, packets: &[Vec<u8>]) -> (Desk, Vec<(Verdict, Vec<u8>)>) {
    let mut desk = Desk::seeded(Desk::config(), Seed::new(seed), rules);
    let sent = packets.iter().map(|packet| {
        let mut sent = desk.send(packet);
        if matches!(sent.verdict, Verdict::Reply { .. }) && sent.bytes[0] >> 4 == 4 {
            // The identification, and the checksum over it.
            [4, 5, 10, 11].iter().for_each(|at| sent.bytes[*at] = 0);
        }
        (sent.verdict, sent.bytes)
    });
    let sent = sent.collect();
    (desk, sent)
}

proptest! {
    #![proptest_config(strategy::config())]

    #[test]
    fn different_seeds_differ_only_where_chance_is_asked_for(
        seeds in any::<(u64, u64)>(),
        packets in prop::collection::vec(packet(), 1..40),
    ) {
        let (one, of_one) = run_seeded(seeds.0, RULES, &packets);
        let (other, of_other) = run_seeded(seeds.1, RULES, &packets);
        prop_assert_eq!(of_one, of_other);
        prop_assert_eq!(one.connections(), other.connections());
        prop_assert_eq!(one.templates(), other.templates());
        prop_assert_eq!(one.director.services(one.now), other.director.services(other.now));
    }
}

/// The other half: ports, numbers and choices that nobody may foresee do depend on the seed.
#[test]
fn different_seeds_do_differ_where_chance_is_asked_for() {
    let full_nat = "-A -t 192.0.2.1:80 -s rr\n--add-laddr -t 192.0.2.1:80 --local-address 10.0.0.200\n\
         -a -t 192.0.2.1:80 -r 10.0.0.2:80 --fullnat";
    let gue = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -i --tun-type gue --tun-port 6080";
    let servers = (2..34).map(|host| format!("\n-a -t 192.0.2.1:80 -r 10.0.0.{host}:80 -m"));
    let twos = format!("-A -t 192.0.2.1:80 -s twos{}", servers.collect::<String>());
    let syn = tcp("198.51.100.7:1024", "192.0.2.1:80").syn().build();
    let refused = "-A -t 192.0.2.1:80 -s rr";
    let bytes = |seed, rules: &str| Desk::seeded(Desk::config(), Seed::new(seed), rules).send(&syn).bytes;
    for (what, rules, at) in [
        ("a local port", full_nat, 20..22),
        ("an initial sequence number", full_nat, 24..28),
        ("a GUE source port", gue, 20..22),
        ("a server drawn by lot", twos.as_str(), 16..20),
        ("the identification of an ICMP error", refused, 4..6),
    ] {
        let drawn: std::collections::BTreeSet<_> =
            (0..16).map(|seed| bytes(seed, rules)[at.clone()].to_vec()).collect();
        assert!(drawn.len() > 8, "{what}: {drawn:?}");
    }
}
