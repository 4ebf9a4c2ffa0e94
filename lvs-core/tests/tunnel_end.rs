//! What comes through a tunnel in parts is put together, within bounds of number, bytes and time.

use std::net::IpAddr;
use std::time::Duration;

use lvs_core::service::{TunnelChecksum, TunnelConfig, TunnelKind};
use lvs_core::tunnel::{Accepts, Ending, Tunnel, TunnelEnd, encapsulate};
use lvs_core::wire::fragment::fragment;
use lvs_core::wire::parse::parse;
use lvs_core::{DropReason, Instant, Seed};
use lvs_testkit::{Storage, raw, udp};

const GUE_PORT: u16 = 6080;
const KINDS: [TunnelKind; 3] = [TunnelKind::Ipip, TunnelKind::Gre, TunnelKind::Gue];
const OUTSIDE: [[&str; 2]; 2] = [["10.0.0.254", "10.0.0.2"], ["fd00::fe", "fd00::2"]];
const INSIDE: [[&str; 2]; 2] = [["203.0.113.7:1024", "192.0.2.1:53"], ["[2001:db8:c::7]:1024", "[2001:db8::1]:53"]];

fn address(text: &str) -> IpAddr {
    text.parse().expect("a constant")
}

/// The end of every kind of tunnel.
fn end() -> TunnelEnd {
    let accepts = Accepts { ipip: true, gre: true, gue_port: Some(GUE_PORT) };
    TunnelEnd::new(accepts, ["192.0.2.1", "2001:db8::1"].map(address).to_vec(), Seed::new(7))
}

/// The packet in a tunnel, in parts of at most `mtu` bytes.
fn parts_of(inner: &[u8], kind: TunnelKind, [source, destination]: [&str; 2], mtu: u16, id: u32) -> Vec<Vec<u8>> {
    let config = TunnelConfig { kind, port: GUE_PORT, checksum: TunnelChecksum::None };
    let mut tunnel = Tunnel::new(config, address(source), address(destination));
    (tunnel.mtu, tunnel.identification) = (mtu, id);
    let mut storage = Storage::with_room(inner, 64, 0);
    let mut packet = storage.packet();
    encapsulate(&mut packet, &parse(inner).expect("whole"), &tunnel).expect("it fits");
    let mut parts = Vec::new();
    let mut buffer = vec![0; usize::from(mtu)];
    fragment(packet.bytes(), mtu.into(), id, &mut buffer, |part| parts.push(part.to_vec())).expect("no DF");
    parts
}

fn offer(end: &mut TunnelEnd, now: Instant, bytes: &[u8]) -> Ending {
    let mut storage = Storage::new(bytes);
    let mut packet = storage.packet();
    let ending = end.handle_packet(now, &mut packet);
    if ending != Ending::TakenOut {
        assert_eq!(packet.bytes(), bytes, "{ending:?} leaves the bytes alone");
    }
    ending
}

#[test]
fn what_came_in_parts_is_put_together_in_every_tunnel_and_order() {
    for (kind, outside, inside) in KINDS.iter().flat_map(|kind| {
        OUTSIDE.iter().flat_map(move |outside| INSIDE.iter().map(move |inside| (*kind, *outside, *inside)))
    }) {
        for (len, mtu) in [(1470, 1480), (3000, 1500), (3000, 1280)] {
            let inner = udp(inside[0], inside[1]).payload_len(len).build();
            let forwards = parts_of(&inner, kind, outside, mtu, 7);
            assert!(forwards.len() > 1, "{kind:?} {outside:?} {len}");
            let backwards: Vec<_> = forwards.iter().rev().cloned().collect();
            for parts in [forwards, backwards] {
                let mut end = end();
                for part in &parts {
                    assert!(end.poll_joined().is_none());
                    assert_eq!(offer(&mut end, Instant::ZERO, part), Ending::Held, "{kind:?} {outside:?}");
                }
                let mut joined = end.poll_joined().expect("all of it is there");
                assert_eq!(joined.packet().bytes(), inner, "{kind:?} {outside:?} {inside:?}");
                assert!(joined.packet().headroom() >= lvs_core::HEADROOM);
                assert!(end.poll_joined().is_none());
                assert_eq!((end.counters().taken_out, end.counters().joined), (1, 1));
            }
        }
    }
}

#[test]
fn datagrams_between_each_other_are_kept_apart() {
    let mut end = end();
    let inner = |fill| udp(INSIDE[0][0], INSIDE[0][1]).payload(&[fill; 2000]).build();
    let parts = [1, 2].map(|fill| parts_of(&inner(fill), TunnelKind::Ipip, OUTSIDE[0], 1500, fill.into()));
    for index in 0..2 {
        for parts in &parts {
            assert_eq!(offer(&mut end, Instant::ZERO, &parts[index]), Ending::Held);
        }
    }
    for fill in [1, 2] {
        assert_eq!(end.poll_joined().expect("two").packet().bytes(), inner(fill));
    }
}

#[test]
fn parts_whose_others_do_not_come_are_given_up_after_half_a_minute() {
    let mut end = end();
    let inner = udp(INSIDE[0][0], INSIDE[0][1]).payload_len(3000).build();
    let parts = parts_of(&inner, TunnelKind::Gre, OUTSIDE[0], 1500, 7);
    for part in &parts[1..] {
        assert_eq!(offer(&mut end, Instant::ZERO, part), Ending::Held);
    }
    let late = Instant::ZERO + Duration::from_secs(30);
    end.handle_timeout(late);
    assert_eq!(end.counters().parts_timed_out, parts.len() as u64 - 1);
    assert_eq!(offer(&mut end, late, &parts[0]), Ending::Held);
    assert!(end.poll_joined().is_none(), "it came too late");
}

#[test]
fn what_waits_is_bounded_and_the_oldest_gives_way_and_is_counted() {
    let lone = |id: u32, len: usize, is_one_source: bool| {
        let inner = udp(INSIDE[0][0], INSIDE[0][1]).payload_len(len).build();
        let from = format!("10.16.{}.{}", id / 256, id % 256);
        let from = if is_one_source { OUTSIDE[0][0] } else { &from };
        parts_of(&inner, TunnelKind::Ipip, [from, OUTSIDE[0][1]], 8_000.min(len as u16), id).swap_remove(0)
    };
    // By number: short parts. By bytes: long ones. And what one source may have of it.
    let cases = [(100, false, 1_024), (10_000, false, (4 << 20) / 8_000), (100, true, 1_024 / 8)];
    for (len, is_one_source, kept_max) in cases {
        let mut end = end();
        for id in 0..4_000 {
            assert_eq!(offer(&mut end, Instant::ZERO, &lone(id, len, is_one_source)), Ending::Held);
        }
        // When their time is over there is nothing left of those that stayed.
        let late = Instant::from_secs(31);
        (0..100).for_each(|_| end.handle_timeout(late));
        let (gone, kept) = (end.counters().parts_full, end.counters().parts_timed_out);
        assert_eq!(gone + kept, 4_000);
        assert!((kept_max / 2..=kept_max).contains(&kept), "{kept} parts of {len}");
        assert_eq!(offer(&mut end, late, &lone(9_999, len, is_one_source)), Ending::Held);
    }
}

#[test]
fn overlapping_parts_are_refused_and_counted() {
    let mut end = end();
    let inner = udp(INSIDE[0][0], INSIDE[0][1]).payload_len(3000).build();
    let parts = parts_of(&inner, TunnelKind::Ipip, OUTSIDE[0], 1500, 7);
    assert_eq!(offer(&mut end, Instant::ZERO, &parts[0]), Ending::Held);
    assert_eq!(offer(&mut end, Instant::ZERO, &parts[0]), Ending::Refused(DropReason::OverlappingFragment));
    assert_eq!(end.counters().parts_overlapping, 1);
}

#[test]
fn what_is_no_tunnel_of_ours_is_left_to_the_host() {
    let mut end = end();
    let whole = raw("10.0.0.254", "10.0.0.2", 50).payload_len(2000).build();
    let mut parts = Vec::new();
    fragment(&whole, 1500, 7, &mut [0; 1500], |part| parts.push(part.to_vec())).expect("no DF");
    for part in &parts {
        assert_eq!(offer(&mut end, Instant::ZERO, part), Ending::NotOurs, "ESP");
    }
    // Datagrams to other ports than GUE's: the first part says so, and takes what waited with it.
    let dns = udp("10.0.0.254:53", "10.0.0.2:53").payload_len(4000).build();
    let mut parts = Vec::new();
    fragment(&dns, 1500, 8, &mut [0; 1500], |part| parts.push(part.to_vec())).expect("no DF");
    assert_eq!(offer(&mut end, Instant::ZERO, &parts[1]), Ending::Held);
    assert_eq!(offer(&mut end, Instant::ZERO, &parts[0]), Ending::NotOurs);
    assert_eq!(offer(&mut end, Instant::ZERO, &parts[2]), Ending::NotOurs);
    assert!(end.poll_joined().is_none());
    // And what comes out for another address is nobody's.
    let stray = udp("203.0.113.7:1024", "192.0.2.99:53").payload_len(2000).build();
    for part in parts_of(&stray, TunnelKind::Ipip, OUTSIDE[0], 1500, 9) {
        assert_eq!(offer(&mut end, Instant::ZERO, &part), Ending::Held);
    }
    assert!(end.poll_joined().is_none());
    assert_eq!(end.counters().taken_out, 0);
}

#[test]
fn only_peers_may_send_where_they_are_named() {
    let inner = udp(INSIDE[0][0], INSIDE[0][1]).payload_len(3_000).build();
    let short = udp(INSIDE[0][0], INSIDE[0][1]).payload_len(30).build();
    let peers = || vec![(address("10.0.0.254"), 32), (address("fd00::"), 64)];
    let strangers = [["10.0.0.253", "10.0.0.2"], ["fd00:0:0:1::fe", "fd00::2"]];
    for kind in KINDS {
        for (peer, stranger) in OUTSIDE.iter().zip(strangers) {
            let mut end = end().with_peers(peers());
            let whole = |from| parts_of(&short, kind, from, 1_500, 7).swap_remove(0);
            assert_eq!(
                offer(&mut end, Instant::ZERO, &whole(stranger)),
                Ending::Refused(DropReason::UnknownTunnelPeer)
            );
            // Later parts of UDP do not tell whose they are.
            for part in parts_of(&inner, kind, stranger, 1_500, 7) {
                assert_ne!(offer(&mut end, Instant::ZERO, &part), Ending::Held);
            }
            assert!(end.poll_joined().is_none());
            assert!(end.counters().strangers >= 2);
            assert_eq!(offer(&mut end, Instant::ZERO, &whole(*peer)), Ending::TakenOut);
            for part in parts_of(&inner, kind, *peer, 1_500, 7) {
                assert_eq!(offer(&mut end, Instant::ZERO, &part), Ending::Held);
            }
            assert!(end.poll_joined().is_some());
        }
    }
    // What is no tunnel is the host's, whoever sends it.
    let mut end = end().with_peers(peers());
    let dns = udp("10.0.0.253:53", "10.0.0.2:53").payload_len(40).build();
    assert_eq!(offer(&mut end, Instant::ZERO, &dns), Ending::NotOurs);
    assert_eq!(end.counters().strangers, 0);
}
