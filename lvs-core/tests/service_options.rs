//! What a service may ask for beyond Linux, each off by default: timeouts of its own, what happens to connections whose
//! server was deleted, and port reuse that never waits for a server that is gone.

use std::time::Duration;

use lvs_core::{
    Command, ControlError, DirectorConfig, DropReason, OnServerGone, ServiceConfig, ServiceTimeouts, Verdict,
};
use lvs_testkit::desk::{nat, tcp_service, udp_service};
use lvs_testkit::{Desk, Outcome, Packet, describe, tcp, udp};

const WEB: &str = "192.0.2.80:80";
const WEB6: &str = "[2001:db8::80]:80";
const CLIENT: &str = "198.51.100.7:1024";
const CLIENT6: &str = "[2001:db8:c::7]:1024";

fn is_forwarded(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Forward { .. })
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

/// A director with one TCP and one UDP service of this configuration; 10.0.0.2 takes the first connection.
fn desk(config: &ServiceConfig) -> Desk {
    let mut desk = Desk::bare(DirectorConfig::default());
    for service in [tcp_service(WEB), udp_service(WEB)] {
        desk.add(service, config.clone(), [nat("10.0.0.3:80"), nat("10.0.0.2:80")]);
    }
    desk.add(tcp_service(WEB6), config.clone(), [nat("[fd00::3]:80"), nat("[fd00::2]:80")]);
    desk
}

fn on_gone(what: OnServerGone) -> ServiceConfig {
    let mut config = ServiceConfig::new("rr");
    config.on_server_gone = what;
    config
}

/// Opens one connection of each kind, all to the first server, and deletes that.
fn orphaned(what: OnServerGone) -> Desk {
    let mut desk = desk(&on_gone(what));
    for (client, service) in [(CLIENT, WEB), (CLIENT6, WEB6)] {
        desk.feed(&tcp(client, service).syn().build());
        desk.feed(&tcp(client, service).ack().build());
    }
    desk.feed(&udp(CLIENT, WEB).payload(b"?").build());
    desk.apply(&Command::DeleteServer(tcp_service(WEB), nat("10.0.0.2:80").key));
    desk.apply(&Command::DeleteServer(udp_service(WEB), nat("10.0.0.2:80").key));
    desk.apply(&Command::DeleteServer(tcp_service(WEB6), nat("[fd00::2]:80").key));
    desk
}

fn segment() -> Packet {
    tcp(CLIENT, WEB).ack().psh().numbers(5_000, 9_000).payload(b"data")
}

#[test]
fn a_services_timeouts_replace_the_directors_for_its_connections_only() {
    let mut config = ServiceConfig::new("rr");
    config.timeouts = Some(ServiceTimeouts { tcp: seconds(5), tcp_fin: seconds(7), udp: seconds(9) });
    let mut desk = desk(&config);
    let plain = tcp_service("192.0.2.81:80");
    desk.add(plain, ServiceConfig::new("rr"), [nat("10.0.0.2:80")]);
    desk.feed(&tcp(CLIENT, "192.0.2.81:80").syn().build());
    desk.feed(&tcp(CLIENT, "192.0.2.81:80").ack().build());

    let expires = |desk: &Desk, state: &str| {
        let connections = desk.connections();
        let rows = connections.iter().filter(|row| row.state == state);
        rows.map(|row| row.expires_in.as_secs()).collect::<Vec<_>>()
    };
    desk.feed(&tcp(CLIENT, WEB).syn().build());
    assert_eq!(expires(&desk, "SYN_RECV"), [60]);
    desk.feed(&tcp(CLIENT, WEB).ack().build());
    assert_eq!(expires(&desk, "ESTABLISHED"), [5, 900]);
    desk.feed(&tcp("10.0.0.2:80", CLIENT).fin().ack().build());
    assert_eq!(expires(&desk, "FIN_WAIT"), [7]);
    desk.feed(&udp(CLIENT, WEB).payload(b"?").build());
    assert_eq!(expires(&desk, "UDP"), [9]);

    // Taken back, the next packet goes by the director's again.
    desk.apply(&Command::EditService(udp_service(WEB), ServiceConfig::new("rr")));
    desk.feed(&udp(CLIENT, WEB).payload(b"?").build());
    assert_eq!(expires(&desk, "UDP"), [300]);
}

#[test]
fn a_way_to_a_server_takes_more_than_no_bytes() {
    let mut desk = desk(&ServiceConfig::new("rr"));
    let mut server = nat("10.0.0.2:80");
    server.mtu = Some(0);
    let refused = desk.director.apply(desk.now, &Command::EditServer(tcp_service(WEB), server));
    assert_eq!(refused, Err(ControlError::Invalid("mtu")));
}

#[test]
fn timeouts_of_zero_or_beyond_linuxs_are_refused() {
    for timeout in [Duration::ZERO, Duration::from_secs(8_589_935)] {
        let mut config = ServiceConfig::new("rr");
        config.timeouts = Some(ServiceTimeouts { udp: Some(timeout), ..ServiceTimeouts::default() });
        let mut desk = Desk::bare(DirectorConfig::default());
        let refused = desk.director.apply(desk.now, &Command::AddService(tcp_service(WEB), config));
        assert_eq!(refused, Err(ControlError::Invalid("timeout")));
    }
}

#[test]
fn by_default_and_on_request_packets_for_a_deleted_server_are_dropped() {
    for what in [OnServerGone::Default, OnServerGone::Drop] {
        let mut desk = orphaned(what);
        let dropped = Verdict::Drop(DropReason::ServerGone);
        assert_eq!(desk.send(&segment().build()).verdict, dropped);
        assert_eq!(desk.send(&tcp(CLIENT, WEB).syn().build()).verdict, dropped);
        assert_eq!(desk.send(&udp(CLIENT, WEB).payload(b"?").build()).verdict, dropped);
    }
    let mut desk = orphaned(OnServerGone::Drop);
    desk.set(|settings| settings.expire_nodest_conn = true);
    assert_eq!(desk.send(&segment().build()).verdict, Verdict::Drop(DropReason::ServerGone));
}

#[test]
fn flows_of_a_deleted_server_go_to_another_one() {
    let mut desk = orphaned(OnServerGone::Reschedule);
    assert!(is_forwarded(desk.send(&udp(CLIENT, WEB).payload(b"?").build()).verdict));
    assert_eq!(desk.bytes[16..20], [10, 0, 0, 3]);
    assert!(is_forwarded(desk.send(&segment().build()).verdict));
    assert_eq!(desk.bytes[16..20], [10, 0, 0, 3]);
    assert!(is_forwarded(desk.send(&tcp(CLIENT6, WEB6).ack().build()).verdict));
    // A RST opens nothing.
    let mut desk = orphaned(OnServerGone::Reschedule);
    assert_eq!(desk.send(&tcp(CLIENT, WEB).rst().build()).verdict, Verdict::Pass);
}

#[test]
fn a_deleted_servers_connection_is_reset_on_both_sides_by_the_clients_next_segment() {
    let mut desk = orphaned(OnServerGone::Reset);
    assert_eq!(desk.send(&segment().build()).verdict, Verdict::reply("198.51.100.7".parse().unwrap()));
    // RFC 9293 §3.10.7.1: the number the client's own segment acknowledged.
    let expected = "192.0.2.80.80 > 198.51.100.7.1024 TCP R seq=9000 ack=0 pl=0 id=0 DF ttl=64 len=40";
    assert_eq!(describe(&desk.bytes), expected);
    let Outcome { verdict, bytes, .. } = desk.transmit().expect("the server is told too");
    assert!(is_forwarded(verdict));
    let expected = "198.51.100.7.1024 > 10.0.0.2.80 TCP RA seq=5000 ack=9000 pl=0 id=0 DF ttl=63 len=40";
    assert_eq!(describe(&bytes), expected);
    // What was under way is answered, and the server is not told twice.
    assert!(matches!(desk.send(&segment().build()).verdict, Verdict::Reply { .. }));
    assert_eq!(desk.transmit(), None);
    assert!(desk.states().contains(&"CLOSE"));
    desk.pass(Duration::from_secs(11));
    assert!(!desk.states().contains(&"CLOSE"));
}

#[test]
fn a_deleted_servers_connection_is_reset_in_ipv6_too() {
    let mut desk = orphaned(OnServerGone::Reset);
    let segment = tcp(CLIENT6, WEB6).ack().fin().numbers(7, 8).build();
    assert_eq!(desk.send(&segment).verdict, Verdict::reply("2001:db8:c::7".parse().unwrap()));
    let expected = "2001:db8::80.80 > 2001:db8:c::7.1024 TCP R seq=8 ack=0 pl=0 ttl=64 len=60";
    assert_eq!(describe(&desk.bytes), expected);
    let Outcome { bytes, .. } = desk.transmit().expect("the server is told too");
    assert_eq!(describe(&bytes), "2001:db8:c::7.1024 > fd00::2.80 TCP RA seq=7 ack=8 pl=0 ttl=63 len=60");
}

#[test]
fn a_deleted_servers_connection_is_reset_by_the_servers_next_segment() {
    let mut desk = orphaned(OnServerGone::Reset);
    let segment = tcp("10.0.0.2:80", CLIENT).ack().numbers(9_000, 5_000).payload(b"more").build();
    assert_eq!(desk.send(&segment).verdict, Verdict::reply("10.0.0.2".parse().unwrap()));
    let expected = "198.51.100.7.1024 > 10.0.0.2.80 TCP R seq=5000 ack=0 pl=0 id=0 DF ttl=64 len=40";
    assert_eq!(describe(&desk.bytes), expected);
    let Outcome { verdict, bytes, .. } = desk.transmit().expect("the client is told too");
    assert!(is_forwarded(verdict));
    let expected = "192.0.2.80.80 > 198.51.100.7.1024 TCP RA seq=9000 ack=5000 pl=0 id=0 DF ttl=63 len=40";
    assert_eq!(describe(&bytes), expected);
}

#[test]
fn a_segment_without_ack_is_answered_by_the_number_behind_it() {
    let mut desk = orphaned(OnServerGone::Reset);
    let bare = tcp(CLIENT, WEB).fin().numbers(100, 0).payload(b"abc").build();
    assert!(matches!(desk.send(&bare).verdict, Verdict::Reply { .. }));
    let expected = "192.0.2.80.80 > 198.51.100.7.1024 TCP RA seq=0 ack=104 pl=0 id=0 DF ttl=64 len=40";
    assert_eq!(describe(&desk.bytes), expected);
}

#[test]
fn a_rst_of_a_deleted_servers_connection_is_let_through_and_never_answered() {
    let mut desk = orphaned(OnServerGone::Reset);
    assert!(is_forwarded(desk.send(&tcp(CLIENT, WEB).rst().build()).verdict));
    let mut desk = orphaned(OnServerGone::Reset);
    assert!(is_forwarded(desk.send(&tcp("10.0.0.2:80", CLIENT).rst().build()).verdict));
}

#[test]
fn clients_of_a_deleted_server_are_told_by_icmp_and_their_syn_goes_to_another() {
    for what in [OnServerGone::IcmpUnreachable, OnServerGone::Reset] {
        let mut desk = orphaned(what);
        for _ in 0..2 {
            let verdict = desk.send(&udp(CLIENT, WEB).payload(b"?").build()).verdict;
            assert_eq!(verdict, Verdict::reply("198.51.100.7".parse().unwrap()));
            assert!(
                describe(&desk.bytes).starts_with("192.0.2.80 > 198.51.100.7 ICMP 3/3"),
                "{}",
                describe(&desk.bytes)
            );
        }
        assert!(is_forwarded(desk.send(&tcp(CLIENT, WEB).syn().build()).verdict));
        assert_eq!(desk.bytes[16..20], [10, 0, 0, 3]);
    }
    let mut desk = orphaned(OnServerGone::IcmpUnreachable);
    assert!(matches!(desk.send(&segment().build()).verdict, Verdict::Reply { .. }));
    assert!(describe(&desk.bytes).contains("ICMP 3/3"));
    // What the server still has to say reaches its client.
    assert!(is_forwarded(desk.send(&tcp("10.0.0.2:80", CLIENT).ack().build()).verdict));
}

#[test]
fn a_deleted_services_connections_follow_linux_whatever_it_asked_for() {
    let mut desk = desk(&on_gone(OnServerGone::Reset));
    desk.feed(&tcp(CLIENT, WEB).syn().build());
    desk.apply(&Command::DeleteService(tcp_service(WEB)));
    assert_eq!(desk.send(&segment().build()).verdict, Verdict::Drop(DropReason::ServerGone));
}

/// A connection in TIME_WAIT or half-open, and then the SYN that would reuse its port.
#[track_caller]
fn check_reuse(config: ServiceConfig, is_finished: bool, change: &Command, expected: Option<[u8; 4]>) {
    let mut desk = desk(&config);
    desk.feed(&tcp(CLIENT, WEB).syn().build());
    if is_finished {
        desk.feed(&tcp(CLIENT, WEB).fin().ack().build());
        desk.feed(&tcp("10.0.0.2:80", CLIENT).fin().ack().build());
        desk.feed(&tcp("10.0.0.2:80", CLIENT).rst().build());
    }
    desk.apply(change);
    let is_sent = is_forwarded(desk.send(&tcp(CLIENT, WEB).syn().numbers(77, 0).build()).verdict);
    assert_eq!(is_sent.then(|| <[u8; 4]>::try_from(&desk.bytes[16..20]).unwrap()), expected);
}

#[test]
fn a_syn_that_reuses_a_port_goes_to_a_live_server_at_once() {
    let key = nat("10.0.0.2:80").key;
    let delete = Command::DeleteServer(tcp_service(WEB), key);
    let quiesce = Command::EditServer(tcp_service(WEB), nat("10.0.0.2:80").weight(0));
    let (plain, sticky) = (ServiceConfig::new("rr"), ServiceConfig::new("rr").persistent(300));
    let asking = |config: &ServiceConfig| {
        let mut config = config.clone();
        config.reuse_reschedules = true;
        config
    };
    let (gone, other, same) = (None, Some([10, 0, 0, 3]), Some([10, 0, 0, 2]));
    // Linux reschedules finished connections that are not persistent.
    check_reuse(plain.clone(), true, &delete, other);
    check_reuse(plain.clone(), true, &quiesce, other);
    // What it leaves out, the option covers.
    check_reuse(plain.clone(), false, &delete, gone);
    check_reuse(asking(&plain), false, &delete, other);
    check_reuse(sticky.clone(), true, &delete, gone);
    check_reuse(asking(&sticky), true, &delete, other);
    check_reuse(sticky.clone(), false, &delete, gone);
    check_reuse(asking(&sticky), false, &delete, other);
    // A quiesced server is alive: those it knows stay with it.
    check_reuse(asking(&plain), false, &quiesce, same);
    check_reuse(asking(&sticky), true, &quiesce, same);
}
