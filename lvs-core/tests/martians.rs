//! Sources that no other host can have: they open no connection, whatever the protocol.
//! What Linux does with each is recorded in `conformance/goldens/x_martian_al0.json` and `x_martian_al1.json`.

use lvs_core::{DropReason, Verdict};
use lvs_testkit::{Desk, Packet, Storage, icmp_error, sctp, tcp, udp};

const MARTIAN: Verdict = Verdict::Drop(DropReason::MartianSource);

/// A service of each protocol on the echo port, in both families, by NAT.
fn rules() -> String {
    let rules = [("192.0.2.1:7", "10.0.0.2:7"), ("[2001:db8::1]:7", "[fd00::2]:7")].map(|(service, server)| {
        ["-t", "-u", "--sctp-service"]
            .map(|protocol| format!("-A {protocol} {service} -s rr\n-a {protocol} {service} -r {server} -m\n"))
            .concat()
    });
    rules.concat()
}

fn desk() -> Desk {
    let host_addresses = HOSTS.map(|address| address.parse().unwrap()).into();
    Desk::with_config(Desk::config().with(|config| config.host_addresses = host_addresses), &rules())
}

/// The first packet of a connection from this source, in each protocol.
fn openings(source: &str) -> [Packet; 3] {
    let (source, service) = match source.contains(':') {
        false => (format!("{source}:7"), "192.0.2.1:7"),
        true => (format!("[{source}]:7"), "[2001:db8::1]:7"),
    };
    let source = source.as_str();
    // INIT with a tag, a window and streams.
    let init = [0, 0, 0, 9, 0, 0, 255, 255, 0, 1, 0, 1, 0, 0, 0, 5];
    [tcp(source, service).syn(), udp(source, service).payload(b"e"), sctp(source, service).chunk(1, &init)]
}

#[track_caller]
fn check(desk: &mut Desk, source: &str, is_refused: bool) {
    for opening in openings(source) {
        let verdict = desk.send(&opening.build()).verdict;
        assert_eq!(verdict == MARTIAN, is_refused, "{source}: {verdict:?}");
        assert_eq!(matches!(verdict, Verdict::Forward { .. }), !is_refused, "{source}: {verdict:?}");
    }
}

const NEVER: [&str; 12] = [
    "0.0.0.0",
    "0.1.2.3",
    "127.0.0.1",
    "127.255.255.254",
    "224.0.0.1",
    "239.255.255.255",
    "255.255.255.255",
    "::",
    "::1",
    "ff02::1",
    "::ffff:198.51.100.7",
    "::ffff:127.0.0.1",
];

/// Other addresses of the director's host.
const HOSTS: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

/// Virtual addresses, those of both sides, and the host's.
const OWN: [&str; 8] =
    ["192.0.2.1", "203.0.113.254", "10.0.0.254", "2001:db8::1", "2001:db8:ffff::1", "fd00::ff", HOSTS[0], HOSTS[1]];

/// Strange, but somebody's; the last two are servers that are their own clients.
const SOMEBODY: [&str; 7] = ["240.0.0.1", "255.255.255.254", "169.254.1.1", "fe80::1", "::7", "10.0.0.2", "fd00::2"];

#[test]
fn nobody_has_an_address_that_no_host_may_have() {
    for accept_local in [false, true] {
        let mut desk = desk();
        desk.set(|settings| settings.accept_local = accept_local);
        NEVER.iter().for_each(|source| check(&mut desk, source, true));
        SOMEBODY.iter().for_each(|source| check(&mut desk, source, false));
        assert_eq!(desk.director.drops(DropReason::MartianSource), 3 * NEVER.len() as u64);
    }
}

#[test]
fn the_directors_own_addresses_are_no_clients_unless_they_are_let() {
    let mut desk = desk();
    OWN.iter().for_each(|source| check(&mut desk, source, true));
    assert_eq!(desk.director.gauges().connections, 0);
    desk.set(|settings| settings.accept_local = true);
    OWN.iter().for_each(|source| check(&mut desk, source, false));
    // What they have opened goes on.
    desk.set(|settings| settings.accept_local = false);
    let known = tcp("10.0.0.254:7", "192.0.2.1:7").ack().build();
    assert!(matches!(desk.send(&known).verdict, Verdict::Forward { .. }));
}

#[test]
fn an_address_that_servers_see_is_no_client() {
    let mut desk = Desk::new(
        "-A -t 192.0.2.1:7 -s rr\n-a -t 192.0.2.1:7 -r 10.0.0.2:7 --fullnat\n\
         --add-laddr -t 192.0.2.1:7 --local-address 10.0.0.250",
    );
    let opening = |source: &str| tcp(source, "192.0.2.1:7").syn().build();
    assert_eq!(desk.send(&opening("10.0.0.250:9")).verdict, MARTIAN);
    assert!(matches!(desk.send(&opening("10.0.0.251:9")).verdict, Verdict::Forward { .. }));
}

#[test]
fn a_packet_from_its_own_destination_is_refused_by_mark_too() {
    let mut desk = Desk::new("-A -f 5 -s rr\n-a -f 5 -r 10.0.0.2:0 -m");
    let loops = udp("192.0.2.9:7", "192.0.2.9:7").payload(b"e").build();
    assert_eq!(desk.send_marked(5, &loops).verdict, MARTIAN);
}

#[test]
fn the_host_is_a_client_by_its_own_addresses_but_not_by_virtual_ones() {
    let mut desk = desk();
    for (source, is_refused) in
        [("203.0.113.254", false), ("10.0.0.254", false), (HOSTS[1], false), ("192.0.2.1", true)]
    {
        for opening in openings(source) {
            let sent = desk.send_storage(Storage::with_room(&opening.build(), 64, 2048).from_host());
            assert_eq!(sent.verdict == MARTIAN, is_refused, "{source}: {:?}", sent.verdict);
        }
    }
    // Unless the host has the virtual address itself, as nobody else can then.
    let host_addresses = ["192.0.2.1", "2001:db8::1"].map(|address| address.parse().unwrap()).into();
    let mut desk = Desk::with_config(Desk::config().with(|config| config.host_addresses = host_addresses), &rules());
    for opening in ["192.0.2.1", "2001:db8::1"].into_iter().flat_map(openings) {
        let opening = opening.build();
        assert_eq!(desk.send(&opening).verdict, MARTIAN);
        let sent = desk.send_storage(Storage::with_room(&opening, 64, 2048).from_host());
        assert!(matches!(sent.verdict, Verdict::Forward { .. }), "{:?}", sent.verdict);
    }
    for opening in openings("127.0.0.1") {
        assert_eq!(desk.send_storage(Storage::new(&opening.build()).from_host()).verdict, MARTIAN);
    }
}

#[test]
fn what_no_service_takes_passes_whatever_its_source() {
    let mut desk = desk();
    for source in ["127.0.0.1:7", "192.0.2.1:7"] {
        assert_eq!(desk.send(&udp(source, "192.0.2.1:8").build()).verdict, Verdict::Pass);
    }
}

#[test]
fn an_icmp_error_that_nobody_can_have_sent_is_not_believed() {
    for (client, service, server, never) in [
        ("198.51.100.7:9", "192.0.2.1:7", "10.0.0.2:7", ["127.0.0.1", "224.0.0.1"]),
        ("[2001:db8:9::7]:9", "[2001:db8::1]:7", "[fd00::2]:7", ["::1", "ff02::1"]),
    ] {
        let mut desk = desk();
        let request = udp(client, service).payload(b"e").build();
        let delivered = desk.send(&request).bytes;
        let (unreachable, router) = if client.starts_with('[') { ((1, 4), "fd00::9") } else { ((3, 3), "10.0.0.9") };
        let mut error =
            |source: &str| desk.send(&icmp_error(source, unreachable.0, unreachable.1, 0, &delivered).build()).verdict;
        never.iter().for_each(|source| assert_eq!(error(source), MARTIAN, "{source}"));
        assert!(matches!(error(router), Verdict::Forward { .. }), "of {server}");
    }
}

#[test]
fn the_rest_of_a_datagram_from_nobody_is_dropped_with_its_beginning() {
    let mut desk = desk();
    let parts = udp("192.0.2.1:7", "192.0.2.1:7").payload_len(600).fragments(304);
    assert_eq!(desk.send(&parts[0]).verdict, MARTIAN);
    assert_eq!(desk.send(&parts[1]).verdict, MARTIAN);
}

/// A server with direct routing whose replies pass the director sends them with the virtual address.
#[test]
fn replies_of_known_connections_have_the_virtual_address() {
    let mut desk = Desk::new("-A -t 192.0.2.1:7 -s rr\n-a -t 192.0.2.1:7 -r 10.0.0.2:7 -g");
    desk.feed(&tcp("198.51.100.7:9", "192.0.2.1:7").syn().build());
    let reply = tcp("192.0.2.1:7", "198.51.100.7:9").syn().ack().build();
    assert!(matches!(desk.send(&reply).verdict, Verdict::Forward { .. }));
}
