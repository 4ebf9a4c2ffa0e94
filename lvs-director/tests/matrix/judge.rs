//! What is expected of a row, whatever the way it took: whole answers from both servers, and on the wires what the
//! method promises.

use std::collections::BTreeSet;

use lvs_core::service::{TunnelChecksum, TunnelConfig, TunnelKind};

use crate::Played;
use crate::client::LONG_COUNT;
use crate::ground::NAMES;
use crate::rows::{Family, Layout, Method, Row};
use crate::traffic::LONG;
use crate::wire::{SeenChecksum, SeenTunnel};

/// Bytes of the long answers, and of what was sent.
const LONG_BYTES: u64 = (LONG_COUNT * LONG) as u64;

/// Panics where something is not as it should be.
pub fn judge(row: &Row, played: &Played) {
    both_servers_answer_half(played);
    servers_see_whom_they_should(row, played);
    if row.method.is_answered_straight() {
        replies_bypass_the_director(row, played);
    } else {
        replies_pass_the_director(row, played);
    }
    if let Method::Tunnel(config) = row.method {
        requests_come_in_the_right_tunnel(row, config, played);
    }
    let counters = &played.directed.counters;
    assert_eq!(counters.client.send_failed + counters.server.send_failed, 0, "{counters:?}");
}

fn both_servers_answer_half(played: &Played) {
    for by in &played.browsed.by {
        for name in NAMES {
            assert_eq!(by.iter().filter(|server| *server == name).count() * NAMES.len(), by.len(), "{by:?}");
        }
    }
}

fn servers_see_whom_they_should(row: &Row, played: &Played) {
    let ends: BTreeSet<_> = played.browsed.ends.iter().copied().collect();
    let guests = || played.served.iter().map(|served| &served.guests);
    let tcp: BTreeSet<_> = guests().flat_map(|guests| guests.tcp.clone()).collect();
    let named: BTreeSet<_> = played.served.iter().flat_map(|served| served.wire.named.clone()).collect();
    let expected = if row.method == Method::FullNat {
        // The client's address is on the wire instead.
        assert_eq!(named, ends);
        assert_eq!(tcp.len(), ends.len());
        row.local_address()
    } else {
        assert_eq!(named, BTreeSet::new());
        assert_eq!(tcp, ends);
        row.client()
    };
    for guest in guests().flat_map(|guests| guests.tcp.iter().chain(&guests.udp)) {
        assert_eq!(guest.ip(), expected);
    }
}

fn replies_bypass_the_director(row: &Row, played: &Played) {
    let Played { directed, browsed, .. } = played;
    let (client, virtual_address) = (row.client(), row.virtual_address().ip());
    // What was captured at the director's port.
    assert!(directed.wire.has_to(virtual_address), "{directed:?}");
    assert!(!directed.wire.has_from(virtual_address) && !directed.wire.has_to(client), "{directed:?}");
    // What the kernel counted there: the long answers went another way.
    assert!(browsed.received > LONG_BYTES, "{browsed:?}");
    assert!((LONG_BYTES..LONG_BYTES * 3 / 2).contains(&directed.received), "{directed:?}");
    // The director counts what it says of a flow itself: that packets do not fit into the tunnel.
    assert_eq!(directed.statistics.out_packets, directed.icmp_errors, "{directed:?}");
    assert!(directed.statistics.in_bytes > LONG_BYTES, "{directed:?}");
}

fn replies_pass_the_director(row: &Row, played: &Played) {
    let directed = &played.directed;
    for index in 0..NAMES.len() {
        assert!(directed.wire.has_from(row.server(index).ip()), "{directed:?}");
    }
    assert!(directed.statistics.out_bytes > LONG_BYTES, "{directed:?}");
    if row.layout == Layout::TwoSwitches {
        assert!(directed.received > LONG_BYTES, "{directed:?}");
        // Passed through unsplit.
        let bytes_a_packet = directed.counters.server.received_bytes / directed.counters.server.received;
        assert!(bytes_a_packet > 3000, "{directed:?}");
    } else {
        assert!(directed.received > 2 * LONG_BYTES, "{directed:?}");
    }
}

fn requests_come_in_the_right_tunnel(row: &Row, config: TunnelConfig, played: &Played) {
    let version = if row.servers == Family::Ipv4 { 4 } else { 6 };
    // IANA's protocol numbers.
    let protocol = match (config.kind, row.clients) {
        (TunnelKind::Ipip, Family::Ipv4) => 4,
        (TunnelKind::Ipip, Family::Ipv6) => 41,
        (TunnelKind::Gre, _) => 47,
        (TunnelKind::Gue, _) => 17,
    };
    let seen = |checksum| SeenTunnel { version, protocol, checksum };
    // Only a checksum that is still to be computed can be left to the receiver; segments cut from a super-packet have
    // it.
    let expected = match config.checksum {
        TunnelChecksum::None => vec![seen(SeenChecksum::None)],
        TunnelChecksum::Full => vec![seen(SeenChecksum::Full)],
        TunnelChecksum::Remote => vec![seen(SeenChecksum::Full), seen(SeenChecksum::Remote)],
    };
    for served in &played.served {
        assert_eq!(served.wire.tunnels, expected.iter().copied().collect());
    }
}
