//! A packet of a known connection costs no allocation, in either direction, for every protocol and both families.

use lvs_core::Verdict;
use lvs_testkit::{Desk, Storage, sctp, tcp, udp};

const RULES: &str = "
-A -t 192.0.2.1:80 -s wlc
-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m
-A -u 192.0.2.1:53 -s rr -p 60
-a -u 192.0.2.1:53 -r 10.0.0.2:5353 -m
-A --sctp-service 192.0.2.1:36412 -s rr
-a --sctp-service 192.0.2.1:36412 -r 10.0.0.2:36413 -m
-A -t 192.0.2.1:81 -s rr
-a -t 192.0.2.1:81 -r 10.0.0.3:81 -g
-A -t 192.0.2.1:82 -s rr
-a -t 192.0.2.1:82 -r 10.0.0.3:82 -i
-A -t 192.0.2.1:83 -s rr
-a -t 192.0.2.1:83 -r 10.0.0.3:83 -i --tun-type gue --tun-port 6080 --tun-csum
-A -t [2001:db8::1]:80 -s rr
-a -t [2001:db8::1]:80 -r [fd00::2]:8080 -m
-A -t 192.0.2.1:84 -s rr --client-address toa --keep-sequence
--add-laddr -t 192.0.2.1:84 --local-address 10.0.0.200
-a -t 192.0.2.1:84 -r 10.0.0.4:84 --fullnat
-A -t [2001:db8::1]:84 -s rr --client-address proxy-v1 --keep-sequence
--add-laddr -t [2001:db8::1]:84 --local-address 10.0.0.200
-a -t [2001:db8::1]:84 -r 10.0.0.4:84 --fullnat
";

/// Opens the flow with the first packet, then counts what the others allocate.
fn check(first: Vec<u8>, others: &[Vec<u8>]) {
    let mut desk = Desk::new(RULES);
    assert!(matches!(desk.send(&first).verdict, Verdict::Forward { .. }));
    let mut storages: Vec<_> = others.iter().map(|packet| Storage::new(packet)).collect();
    let mut forwarded = 0;
    let allocations = allocation_counter::measure(|| {
        for storage in &mut storages {
            let verdict = desk.director.handle_packet(desk.now, &mut storage.packet());
            forwarded += usize::from(matches!(verdict, Verdict::Forward { .. }));
        }
    });
    assert_eq!(forwarded, others.len());
    assert_eq!(allocations.count_total, 0, "{allocations:?}");
}

#[test]
fn known_tcp_flows_allocate_nothing() {
    let request = tcp("198.51.100.7:1024", "192.0.2.1:80");
    let reply = tcp("10.0.0.2:8080", "198.51.100.7:1024");
    check(
        request.clone().syn().build(),
        &[
            reply.clone().syn().ack().build(),
            request.clone().ack().payload(b"GET /").build(),
            reply.ack().payload_len(1400).build(),
            request.fin().ack().build(),
        ],
    );
}

#[test]
fn known_full_nat_flows_allocate_nothing() {
    for (client, to) in [("198.51.100.7:1024", "192.0.2.1:84"), ("[2001:db8:c::7]:1024", "[2001:db8::1]:84")] {
        let request = tcp(client, to);
        // The director's seed is the same in each test: so is the local port.
        let mut desk = Desk::new(RULES);
        let _ = desk.send(&request.clone().syn().build());
        let local = desk.connections()[0].local.expect("a FullNAT connection has one");
        let reply = tcp("10.0.0.4:84", local);
        check(
            request.clone().syn().build(),
            &[
                reply.clone().syn().ack().numbers(4, 1001).build(),
                request.clone().ack().numbers(1001, 5).payload(b"GET /").build(),
                reply.ack().payload_len(1400).build(),
                request.clone().fin().ack().numbers(1006, 5).build(),
            ],
        );
    }
}

#[test]
fn known_udp_and_sctp_flows_allocate_nothing() {
    check(
        udp("198.51.100.7:1024", "192.0.2.1:53").payload(b"q").build(),
        &[
            udp("198.51.100.7:1024", "192.0.2.1:53").payload(b"q").build(),
            udp("10.0.0.2:5353", "198.51.100.7:1024").payload(b"a").build(),
        ],
    );
    check(
        sctp("198.51.100.7:1024", "192.0.2.1:36412").chunk(1, &[0; 16]).build(),
        &[
            sctp("10.0.0.2:36413", "198.51.100.7:1024").chunk(2, &[0; 16]).build(),
            sctp("198.51.100.7:1024", "192.0.2.1:36412").chunk(10, &[0; 16]).build(),
        ],
    );
}

#[test]
fn known_ipv6_and_directly_routed_flows_allocate_nothing() {
    check(
        tcp("[2001:db8:c::7]:1024", "[2001:db8::1]:80").syn().build(),
        &[
            tcp("[fd00::2]:8080", "[2001:db8:c::7]:1024").syn().ack().build(),
            tcp("[2001:db8:c::7]:1024", "[2001:db8::1]:80").ack().build(),
        ],
    );
    check(
        tcp("198.51.100.7:1024", "192.0.2.1:81").syn().build(),
        &[tcp("198.51.100.7:1024", "192.0.2.1:81").ack().build()],
    );
}

#[test]
fn known_tunnelled_flows_allocate_nothing() {
    for vip in ["192.0.2.1:82", "192.0.2.1:83"] {
        let request = tcp("198.51.100.7:1024", vip);
        check(request.clone().syn().build(), &[request.clone().ack().build(), request.ack().payload_len(1400).build()]);
    }
}
