//! SIP behind a director: calls stay together by their Call-ID, and servers may speak first.

use lvs_core::{Command, DirectorConfig, DropReason, ServiceConfig, Verdict};
use lvs_testkit::rig::{Rig, nat, tcp_service, udp_service};
use lvs_testkit::{describe, tcp, udp};

const PROXY: &str = "192.0.2.60:5060";
const SERVERS: [&str; 2] = ["10.0.0.2:5060", "10.0.0.3:5060"];

fn sip(one_packet: bool) -> ServiceConfig {
    let mut config = ServiceConfig::new("rr").persistent(60);
    config.persistence_engine = Some("sip".into());
    config.one_packet = one_packet;
    config
}

fn rig(config: ServiceConfig) -> Rig {
    let mut rig = Rig::new(DirectorConfig::default());
    rig.add(udp_service(PROXY), config, SERVERS.map(nat));
    rig
}

fn message(call_id: &str) -> Vec<u8> {
    format!("INVITE sip:bob@example.org SIP/2.0\r\nCall-ID: {call_id}\r\n\r\n").into_bytes()
}

/// The server a client's message goes to.
fn served_by(rig: &mut Rig, client: &str, call_id: &str) -> String {
    let verdict = rig.send(&udp(client, PROXY).payload(&message(call_id)).build());
    let Verdict::Forward { next_hop, .. } = verdict else { panic!("{verdict:?}") };
    next_hop.to_string()
}

#[test]
fn a_call_stays_with_its_server_whatever_port_it_comes_from() {
    let mut rig = rig(sip(false));
    let first = served_by(&mut rig, "198.51.100.7:5060", "a@host");
    let other = served_by(&mut rig, "198.51.100.7:5061", "b@host");
    assert_ne!(first, other);
    assert_eq!(served_by(&mut rig, "198.51.100.7:5062", "a@host"), first);
    assert_eq!(served_by(&mut rig, "198.51.100.7:5063", "b@host"), other);
    let mut keys: Vec<_> = rig.templates().into_iter().filter_map(|row| row.persistence_key).collect();
    keys.sort();
    assert_eq!(keys, [("sip".into(), b"a@host".to_vec()), ("sip".into(), b"b@host".to_vec())]);
}

#[test]
fn the_call_id_does_not_replace_the_clients_address() {
    let mut rig = rig(sip(false));
    let first = served_by(&mut rig, "198.51.100.7:5060", "a@host");
    assert_ne!(served_by(&mut rig, "198.51.100.8:5060", "a@host"), first);
    assert_eq!(rig.templates().len(), 2);
}

#[test]
fn what_has_no_call_id_opens_nothing() {
    let mut rig = rig(sip(false));
    let refused = Verdict::Drop(DropReason::NoPersistenceKey);
    for payload in [&b""[..], b"OPTIONS", b"X\r\nCall-ID: \r\n", b"X\r\nCall-ID: a b\r\n"] {
        assert_eq!(rig.send(&udp("198.51.100.7:5060", PROXY).payload(payload).build()), refused);
    }
    rig.add(tcp_service(PROXY), sip(false), SERVERS.map(nat));
    let syn = tcp("198.51.100.7:5060", PROXY).syn().payload(&message("a@host")).build();
    assert_eq!(rig.send(&syn), refused);
    assert_eq!(rig.director.connections(rig.now).count(), 0);
    // A service that is not persistent does not ask.
    let mut plain = sip(false);
    plain.persistence_timeout_s = None;
    rig.apply(&Command::EditService(udp_service(PROXY), plain));
    assert!(matches!(rig.send(&udp("198.51.100.7:5060", PROXY).build()), Verdict::Forward { .. }));
}

/// What a server's message to a client becomes.
fn spoken(rig: &mut Rig, server: &str, client: &str, payload: &[u8]) -> String {
    rig.feed(&udp(server, client).payload(payload).build());
    describe(&rig.bytes).split(" pl=").next().unwrap_or_default().to_string()
}

#[test]
fn a_server_that_speaks_first_speaks_with_the_virtual_address_and_keeps_the_call() {
    let mut rig = rig(sip(false));
    let said = spoken(&mut rig, SERVERS[0], "198.51.100.7:5060", &message("out@host"));
    assert!(said.contains("192.0.2.60.5060") && !said.contains("10.0.0.2"), "{said}");
    assert_eq!((rig.connections().len(), rig.templates()[0].state), (1, "ASSURED"));
    // The answer, and what else the client says in this call, goes to that server.
    assert_eq!(served_by(&mut rig, "198.51.100.7:5060", "out@host"), "10.0.0.2");
    assert_eq!(served_by(&mut rig, "198.51.100.7:5090", "out@host"), "10.0.0.2");
    // Another server that takes the call over gets the template.
    spoken(&mut rig, SERVERS[1], "198.51.100.7:5070", &message("out@host"));
    assert_eq!(served_by(&mut rig, "198.51.100.7:5091", "out@host"), "10.0.0.3");
}

#[test]
fn replies_are_translated_even_where_every_request_is_scheduled_by_itself() {
    let mut rig = rig(sip(true));
    let server = served_by(&mut rig, "198.51.100.7:5060", "a@host") + ":5060";
    let said = spoken(&mut rig, &server, "198.51.100.7:5060", &message("a@host"));
    assert!(said.contains("192.0.2.60.5060"), "{said}");
    assert_eq!(rig.connections(), []);
    assert_eq!(rig.director.statistics().live.out_packets, 1);
}

#[test]
fn only_servers_of_a_service_with_the_engine_may_speak_first() {
    let mut rig = rig(ServiceConfig::new("rr"));
    rig.add(udp_service("192.0.2.61:5060"), sip(false), [nat("10.0.0.9:5060").weight(0)]);
    let client = "198.51.100.7:5060";
    let say = |rig: &mut Rig, server: &str, payload: &[u8]| rig.send(&udp(server, client).payload(payload).build());
    assert_eq!(say(&mut rig, SERVERS[0], &message("a@host")), Verdict::Pass);
    assert_eq!(say(&mut rig, "10.0.0.9:5061", &message("a@host")), Verdict::Pass);
    assert_eq!(say(&mut rig, "10.0.0.9:5060", b"no call"), Verdict::Pass);
    assert!(matches!(say(&mut rig, "10.0.0.9:5060", &message("a@host")), Verdict::Forward { .. }));
}
