//! SIP behind a director: calls stay together by their Call-ID, and servers may speak first.

use lvs_core::{Command, DirectorConfig, DropReason, ServiceConfig, Verdict};
use lvs_testkit::desk::{nat, tcp_service, udp_service};
use lvs_testkit::{Desk, describe, tcp, udp};

const PROXY: &str = "192.0.2.60:5060";
const SERVERS: [&str; 2] = ["10.0.0.2:5060", "10.0.0.3:5060"];

fn sip(one_packet: bool) -> ServiceConfig {
    let mut config = ServiceConfig::new("rr").persistent(60);
    config.persistence_engine = Some("sip".into());
    config.one_packet = one_packet;
    config
}

fn desk(config: ServiceConfig) -> Desk {
    let mut desk = Desk::bare(DirectorConfig::default());
    desk.add(udp_service(PROXY), config, SERVERS.map(nat));
    desk
}

fn message(call_id: &str) -> Vec<u8> {
    format!("INVITE sip:bob@example.org SIP/2.0\r\nCall-ID: {call_id}\r\n\r\n").into_bytes()
}

/// The server a client's message goes to.
fn served_by(desk: &mut Desk, client: &str, call_id: &str) -> String {
    let verdict = desk.send(&udp(client, PROXY).payload(&message(call_id)).build()).verdict;
    let Verdict::Forward { next_hop, .. } = verdict else { panic!("{verdict:?}") };
    next_hop.to_string()
}

#[test]
fn a_call_stays_with_its_server_whatever_port_it_comes_from() {
    let mut desk = desk(sip(false));
    let first = served_by(&mut desk, "198.51.100.7:5060", "a@host");
    let other = served_by(&mut desk, "198.51.100.7:5061", "b@host");
    assert_ne!(first, other);
    assert_eq!(served_by(&mut desk, "198.51.100.7:5062", "a@host"), first);
    assert_eq!(served_by(&mut desk, "198.51.100.7:5063", "b@host"), other);
    let mut keys: Vec<_> = desk.templates().into_iter().filter_map(|row| row.persistence_key).collect();
    keys.sort();
    assert_eq!(keys, [("sip".into(), b"a@host".to_vec()), ("sip".into(), b"b@host".to_vec())]);
}

#[test]
fn the_call_id_does_not_replace_the_clients_address() {
    let mut desk = desk(sip(false));
    let first = served_by(&mut desk, "198.51.100.7:5060", "a@host");
    assert_ne!(served_by(&mut desk, "198.51.100.8:5060", "a@host"), first);
    assert_eq!(desk.templates().len(), 2);
}

#[test]
fn what_has_no_call_id_opens_nothing() {
    let mut desk = desk(sip(false));
    let refused = Verdict::Drop(DropReason::NoPersistenceKey);
    for payload in [&b""[..], b"OPTIONS", b"X\r\nCall-ID: \r\n", b"X\r\nCall-ID: a b\r\n"] {
        assert_eq!(desk.send(&udp("198.51.100.7:5060", PROXY).payload(payload).build()).verdict, refused);
    }
    desk.add(tcp_service(PROXY), sip(false), SERVERS.map(nat));
    let syn = tcp("198.51.100.7:5060", PROXY).syn().payload(&message("a@host")).build();
    assert_eq!(desk.send(&syn).verdict, refused);
    assert_eq!(desk.director.connections(desk.now).count(), 0);
    // A service that is not persistent does not ask.
    let mut plain = sip(false);
    plain.persistence_timeout_s = None;
    desk.apply(&Command::EditService(udp_service(PROXY), plain));
    assert!(matches!(desk.send(&udp("198.51.100.7:5060", PROXY).build()).verdict, Verdict::Forward { .. }));
}

/// What a server's message to a client becomes.
fn spoken(desk: &mut Desk, server: &str, client: &str, payload: &[u8]) -> String {
    desk.feed(&udp(server, client).payload(payload).build());
    describe(&desk.bytes).split(" pl=").next().unwrap_or_default().to_string()
}

#[test]
fn a_server_that_speaks_first_speaks_with_the_virtual_address_and_keeps_the_call() {
    let mut desk = desk(sip(false));
    let said = spoken(&mut desk, SERVERS[0], "198.51.100.7:5060", &message("out@host"));
    assert!(said.starts_with("192.0.2.60.5060 > "), "{said}");
    assert_eq!((desk.connections().len(), desk.templates()[0].state), (1, "ASSURED"));
    // The answer, and what else the client says in this call, goes to that server.
    assert_eq!(served_by(&mut desk, "198.51.100.7:5060", "out@host"), "10.0.0.2");
    assert_eq!(served_by(&mut desk, "198.51.100.7:5090", "out@host"), "10.0.0.2");
    // Another server that takes the call over gets the template.
    spoken(&mut desk, SERVERS[1], "198.51.100.7:5070", &message("out@host"));
    assert_eq!(served_by(&mut desk, "198.51.100.7:5091", "out@host"), "10.0.0.3");
}

#[test]
fn replies_are_translated_even_where_every_request_is_scheduled_by_itself() {
    let mut desk = desk(sip(true));
    let server = served_by(&mut desk, "198.51.100.7:5060", "a@host") + ":5060";
    let said = spoken(&mut desk, &server, "198.51.100.7:5060", &message("a@host"));
    assert!(said.starts_with("192.0.2.60.5060 > "), "{said}");
    assert_eq!(desk.connections(), []);
    assert_eq!(desk.director.statistics().live.out_packets, 1);
}

#[test]
fn only_servers_of_a_service_with_the_engine_may_speak_first() {
    let mut desk = desk(ServiceConfig::new("rr"));
    desk.add(udp_service("192.0.2.61:5060"), sip(false), [nat("10.0.0.9:5060").weight(0)]);
    let client = "198.51.100.7:5060";
    let say = |desk: &mut Desk, server: &str, payload: &[u8]| {
        desk.send(&udp(server, client).payload(payload).build()).verdict
    };
    assert_eq!(say(&mut desk, SERVERS[0], &message("a@host")), Verdict::Pass);
    assert_eq!(say(&mut desk, "10.0.0.9:5061", &message("a@host")), Verdict::Pass);
    assert_eq!(say(&mut desk, "10.0.0.9:5060", b"no call"), Verdict::Pass);
    assert!(matches!(say(&mut desk, "10.0.0.9:5060", &message("a@host")), Verdict::Forward { .. }));
}
