//! One client port, two virtual addresses, one NAT server: whose answer is an answer? Linux gives every one to the newer
//! connection (Kubernetes meets it with two services on one pod, kubernetes#107249).

use std::time::Duration;

use lvs_core::{DropReason, Event, Verdict};
use lvs_testkit::{Desk, Packet, sctp, tcp, udp};

/// Two virtual addresses and the client, in one family.
struct Family {
    services: [&'static str; 2],
    servers: [&'static str; 2],
    client: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        services: ["192.0.2.1:53", "192.0.2.2:53"],
        servers: ["10.0.0.2:53", "10.0.0.3:53"],
        client: "198.51.100.7:5353",
    },
    Family {
        services: ["[2001:db8::1]:53", "[2001:db8::2]:53"],
        servers: ["[fd00::2]:53", "[fd00::3]:53"],
        client: "[2001:db8:9::7]:5353",
    },
];

const PROTOCOLS: [&str; 3] = ["-t", "-u", "--sctp-service"];

impl Family {
    /// Both services with the first `servers` of them, the first one added being chosen last.
    fn desk(&self, servers: usize, protocol: &str, options: &str, server_options: &str) -> Desk {
        let mut rules = String::new();
        for service in self.services {
            rules += &format!("-A {protocol} {service} -s rr {options}\n");
            for server in self.servers[..servers].iter().rev() {
                rules += &format!("-a {protocol} {service} -r {server} {server_options}\n");
            }
        }
        Desk::new(&rules)
    }

    fn ask(&self, desk: &mut Desk, protocol: &str, service: usize) -> Verdict {
        desk.send(&between(protocol, self.client, self.services[service], true).build()).verdict
    }
}

fn between(protocol: &str, from: &str, to: &str, is_opening: bool) -> Packet {
    match protocol {
        "-t" if is_opening => tcp(from, to).syn(),
        "-t" => tcp(from, to).syn().ack(),
        "-u" => udp(from, to).payload(b"q"),
        _ => sctp(from, to).chunk(if is_opening { 1 } else { 2 }, &[0; 16]),
    }
}

/// Where a packet was sent.
fn hop(verdict: Verdict) -> String {
    match verdict {
        Verdict::Forward { next_hop, .. } => next_hop.to_string(),
        other => format!("{other:?}"),
    }
}

fn address(endpoint: &str) -> &str {
    endpoint.rsplit_once(':').expect("a port").0.trim_matches(['[', ']'])
}

const CONFLICT: Verdict = Verdict::Drop(DropReason::ReplyConflict);

#[test]
fn a_connection_that_takes_anothers_replies_is_told_and_counted() {
    for family in FAMILIES {
        for protocol in PROTOCOLS {
            let mut desk = family.desk(1, protocol, "", "-m");
            let first = family.ask(&mut desk, protocol, 0);
            assert_eq!((desk.director.reply_conflicts(), desk.events()), (0, vec![]));
            assert_eq!(family.ask(&mut desk, protocol, 1), first);
            let events = desk.events();
            let [Event::ReplyConflict { server, client, other, .. }] = &events[..] else { panic!("{events:?}") };
            let told = [server, client, other].map(ToString::to_string);
            assert_eq!(told, [family.servers[0], family.client, family.services[0]]);
            assert_eq!(desk.director.reply_conflicts(), 1);
            // As in Linux, the newer one has the replies.
            let reply = desk.send(&between(protocol, family.servers[0], family.client, false).build());
            assert!(lvs_testkit::describe(&reply.bytes).starts_with(address(family.services[1])), "{}", reply.line());
        }
    }
}

#[test]
fn conflicts_are_told_once_a_minute_and_counted_each() {
    let family = &FAMILIES[0];
    let mut desk = family.desk(1, "-u", "", "-m");
    let conflict = |desk: &mut Desk, port: u16| {
        for service in family.services {
            desk.feed(&udp(&*format!("198.51.100.7:{port}"), service).payload(b"q").build());
        }
    };
    (1_000..1_010).for_each(|port| conflict(&mut desk, port));
    assert_eq!((desk.director.reply_conflicts(), desk.events().len()), (10, 1));
    desk.pass(Duration::from_secs(60));
    conflict(&mut desk, 1_010);
    assert_eq!((desk.director.reply_conflicts(), desk.events().len()), (11, 1));
}

#[test]
fn another_server_is_chosen_where_that_was_asked_for() {
    for family in FAMILIES {
        for protocol in PROTOCOLS {
            // rr gives each service's first connection to the same server; weights keep wlc on it too.
            let mut desk = family.desk(2, protocol, "--on-reply-conflict another", "-m");
            let servers = [0, 1].map(|service| hop(family.ask(&mut desk, protocol, service)));
            assert_ne!(servers[0], servers[1], "{protocol}");
            assert_eq!(desk.director.reply_conflicts(), 0);
            // Each answers for itself.
            for (server, service) in servers.iter().zip(family.services) {
                let server = family.servers.into_iter().find(|known| address(known) == server).expect("one of them");
                let reply = desk.send(&between(protocol, server, family.client, false).build());
                assert!(lvs_testkit::describe(&reply.bytes).starts_with(address(service)), "{}", reply.line());
            }
        }
    }
}

#[test]
fn where_no_other_server_is_to_be_had_the_newer_connection_is_refused() {
    for (servers, option) in [(1, "another"), (1, "refuse"), (2, "refuse")] {
        let family = &FAMILIES[0];
        let mut desk = family.desk(servers, "-t", &format!("--on-reply-conflict {option}"), "-m");
        let first = family.ask(&mut desk, "-t", 0);
        assert!(matches!(first, Verdict::Forward { .. }));
        assert_eq!(family.ask(&mut desk, "-t", 1), CONFLICT, "{option}");
        assert_eq!((desk.connections().len(), desk.director.drops(DropReason::ReplyConflict)), (1, 1));
        // The older one goes on, and so do other ports.
        assert_eq!(desk.send(&tcp(family.client, family.services[0]).ack().build()).verdict, first);
        assert!(matches!(
            desk.send(&tcp("198.51.100.7:99", family.services[1]).syn().build()).verdict,
            Verdict::Forward { .. }
        ));
    }
}

#[test]
fn persistence_is_not_broken_for_it() {
    let family = &FAMILIES[0];
    let mut desk = family.desk(2, "-t", "-p 300 --on-reply-conflict another", "-m");
    let to = |port: u16, service: usize| tcp(&*format!("198.51.100.7:{port}"), family.services[service]).syn().build();
    let second = hop(desk.send(&to(1_000, 1)).verdict);
    // The client's other server is the same one, by its template; now from a port that has it already.
    let mut first = String::new();
    for port in 2_000..2_002 {
        first = hop(desk.send(&to(port, 0)).verdict);
    }
    assert_eq!(first, second);
    assert_eq!(desk.send(&to(2_001, 1)).verdict, CONFLICT);
}

#[test]
fn what_is_over_is_in_nobodys_way() {
    let family = &FAMILIES[0];
    let mut desk = family.desk(1, "-t", "--on-reply-conflict refuse", "-m");
    let _ = family.ask(&mut desk, "-t", 0);
    desk.feed(&tcp(family.servers[0], family.client).rst().build());
    assert!(matches!(family.ask(&mut desk, "-t", 1), Verdict::Forward { .. }));
    assert_eq!(desk.director.reply_conflicts(), 0);
}

#[test]
fn methods_whose_replies_carry_the_virtual_address_have_no_conflict() {
    for (method, expected) in [("-g", 0), ("-i", 0)] {
        let family = &FAMILIES[0];
        let mut desk = family.desk(1, "-u", "--on-reply-conflict refuse", method);
        assert_eq!(family.ask(&mut desk, "-u", 0), family.ask(&mut desk, "-u", 1));
        assert_eq!(desk.director.reply_conflicts(), expected);
    }
}
