//! The network by itself: an empty director passes everything, and what it passes is routed. What goes wrong here is
//! the simulator's fault, not the director's.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lvs_core::{Instant, Seed};
use lvs_sim::{Conversation, Faults, Flood, HostId, HttpSite, Link, OnPass, Outcome, Simulation};

const BAD: Faults =
    Faults { loss_permille: 30, duplicate_permille: 20, reorder_permille: 50, corrupt_permille: 10, ..Faults::NONE };

/// A client and a server of both families, the server echoing on port 7 and answering HTTP on port 80.
fn client_and_server(seed: u64) -> (Simulation, HostId, HostId) {
    let mut sim = Simulation::new(Seed::new(seed));
    let client = sim.client(&[address("198.51.100.7"), address("2001:db8:1::7")]);
    let server = sim.server(&[address("10.0.0.2"), address("2001:db8:2::2")]);
    sim.serve_echo(server, 7);
    sim.serve_http(server, 80, HttpSite { name: "web".into(), body_len: 5_000 });
    (sim, client, server)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

const ECHO: [&str; 2] = ["10.0.0.2:7", "[2001:db8:2::2]:7"];
const WEB: [&str; 2] = ["10.0.0.2:80", "[2001:db8:2::2]:80"];

#[test]
fn every_byte_arrives_over_bad_links_in_both_families() {
    for seed in 0..5 {
        let (mut sim, client, _) = client_and_server(seed);
        sim.set_all_faults(BAD);
        for (echo, web) in ECHO.into_iter().zip(WEB) {
            sim.transfer(client, at(echo), 200_000);
            sim.http_get(client, at(web));
            sim.converse(client, Conversation::datagrams(at(echo), 20, 900));
        }
        sim.run_until_idle().unwrap();
        for report in sim.reports() {
            assert_eq!(report.outcome, Outcome::Complete, "seed {seed}: {report:?}");
        }
        let [up, down] = sim.link_counters(client);
        for befell in [up.lost, up.duplicated, up.reordered, up.corrupted, down.lost] {
            assert!(befell > 0, "seed {seed}: {up:?} {down:?}");
        }
    }
}

#[test]
fn no_connection_stays_half_closed_however_bad_the_links() {
    let dreadful = Faults { loss_permille: 100, duplicate_permille: 300, reorder_permille: 300, ..Faults::NONE };
    for seed in 0..64 {
        let (mut sim, client, _) = client_and_server(seed);
        sim.set_all_faults(dreadful);
        for echo in ECHO {
            sim.transfer(client, at(echo), 20_000);
        }
        sim.run_until_idle().unwrap();
        assert!(sim.reports().iter().all(|report| report.is_complete()), "seed {seed}: {:?}", sim.reports());
    }
}

#[test]
fn the_same_seed_gives_the_same_packets_at_the_same_times() {
    let run = |seed| {
        let (mut sim, client, server) = client_and_server(seed);
        sim.set_all_faults(BAD);
        sim.capture(server);
        sim.transfer(client, at(ECHO[0]), 50_000);
        sim.http_get(client, at(WEB[1]));
        sim.run_until_idle().unwrap();
        sim.pcap(server).unwrap().to_vec()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn a_capture_is_a_pcap_file_of_raw_ip_packets() {
    let (mut sim, client, _) = client_and_server(1);
    sim.capture(client);
    sim.http_get(client, at(WEB[0]));
    sim.run_until_idle().unwrap();
    let pcap = sim.pcap(client).unwrap();
    // pcap-savefile(5): nanosecond magic, version 2.4, zone, accuracy, snapshot length, LINKTYPE_RAW.
    let header = [0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 101, 0, 0, 0];
    assert_eq!(pcap[..24], header);
    // The SYN arrives at the director after the link's delay of 1 ms.
    assert_eq!(pcap[24..32], [0, 0, 0, 0, 0x40, 0x42, 0x0f, 0]);
    assert_eq!(pcap[32..36], pcap[36..40]);
    assert_eq!(pcap[40], 0x45);
}

#[test]
fn latency_is_virtual_time_four_link_delays_a_round_trip() {
    let (mut sim, client, _) = client_and_server(1);
    let request = sim.http_get(client, at(WEB[0]));
    sim.run_until_idle().unwrap();
    // SYN and SYN-ACK, then request and response: two round trips of four links of 1 ms.
    assert_eq!(sim.report(request).latency(), Some(Duration::from_millis(8)));
    assert_eq!(sim.report(request).server.as_deref(), Some("web"));
}

#[test]
fn a_port_nobody_serves_resets_the_conversation() {
    let (mut sim, client, _) = client_and_server(1);
    let request = sim.http_get(client, at("10.0.0.2:81"));
    sim.run_until_idle().unwrap();
    assert_eq!(sim.report(request).outcome, Outcome::Reset);
}

#[test]
fn a_client_loses_its_patience_when_nothing_comes_back() {
    let (mut sim, client, _) = client_and_server(1);
    sim.set_on_pass(OnPass::Drop);
    let patience = Duration::from_secs(20);
    let request = sim.converse(client, Conversation::http(at(WEB[0])).patience(patience));
    let datagram = sim.converse(client, Conversation::datagrams(at(ECHO[0]), 1, 8).patience(patience));
    sim.run_until_idle().unwrap();
    for id in [request, datagram] {
        assert_eq!(sim.report(id).outcome, Outcome::TimedOut);
        assert_eq!(sim.report(id).latency(), Some(patience));
    }
}

#[test]
fn a_server_that_lost_power_resets_its_old_connections_and_serves_new_ones() {
    let (mut sim, client, server) = client_and_server(1);
    let interrupted = sim.transfer(client, at(ECHO[0]), 100_000_000);
    sim.after(Duration::from_millis(100), move |sim| sim.switch_off(server));
    sim.after(Duration::from_millis(200), move |sim| sim.switch_on(server));
    let afterwards = sim.converse(client, Conversation::http(at(WEB[0])).after(Duration::from_secs(1)));
    let datagrams = sim.converse(client, Conversation::datagrams(at(ECHO[1]), 2, 8).after(Duration::from_secs(1)));
    sim.run_until_idle().unwrap();
    assert_eq!(sim.report(interrupted).outcome, Outcome::Reset);
    assert!(sim.report(afterwards).is_complete());
    assert!(sim.report(datagrams).is_complete());
}

#[test]
fn a_client_that_loses_power_leaves_its_conversations() {
    let (mut sim, client, _) = client_and_server(1);
    let interrupted = sim.transfer(client, at(ECHO[0]), 100_000_000);
    sim.after(Duration::from_millis(100), move |sim| sim.switch_off(client));
    sim.run_until_idle().unwrap();
    assert_eq!(sim.report(interrupted).outcome, Outcome::SwitchedOff);
    assert_eq!(sim.report(interrupted).ended, Some(Instant::from_millis(100)));
}

#[test]
fn a_port_can_be_used_again_at_once() {
    let (mut sim, client, _) = client_and_server(1);
    for round in 0..3 {
        let web = Conversation::http(at(WEB[0])).from_port(40_000).after(Duration::from_secs(round));
        let echo = Conversation::echo(at(ECHO[0]), 100).from_port(40_001).after(Duration::from_secs(round));
        sim.converse(client, web);
        sim.converse(client, echo);
    }
    sim.run_until_idle().unwrap();
    for report in sim.reports() {
        assert!(report.is_complete(), "{report:?}");
        assert!(report.latency() < Some(Duration::from_millis(20)), "{report:?}");
    }
}

#[test]
fn a_syn_flood_does_not_keep_a_server_from_answering() {
    let (mut sim, client, server) = client_and_server(1);
    let stranger = sim.client(&[address("203.0.113.66")]);
    sim.flood(stranger, Flood::syn(5_000, 2_000, at(WEB[0])));
    for index in 0..20 {
        sim.converse(client, Conversation::http(at(WEB[0])).after(Duration::from_millis(100 * index)));
    }
    sim.run_until_idle().unwrap();
    assert!(sim.reports().iter().all(|report| report.is_complete()));
    assert!(sim.unroutable() >= 5_000, "answers to invented clients go nowhere");
    assert!(sim.link_counters(server)[1].sent >= 5_000);
}

#[test]
fn a_slow_link_takes_its_time() {
    let mut sim = Simulation::new(Seed::new(1));
    sim.set_default_link(Link { bandwidth_bits_per_s: Some(8_000_000), ..Link::default() });
    let client = sim.client(&[address("198.51.100.7")]);
    let server = sim.server(&[address("10.0.0.2")]);
    sim.serve_echo(server, 7);
    let transfer = sim.transfer(client, at(ECHO[0]), 1_000_000);
    sim.run_until_idle().unwrap();
    // 8 Mbit/s carry a megabyte in a second; both directions work at once.
    let latency = sim.report(transfer).latency().unwrap();
    assert!((1.0..1.5).contains(&latency.as_secs_f64()), "{latency:?}");
}

#[test]
fn datagrams_longer_than_the_mtu_travel_in_fragments() {
    let (mut sim, client, server) = client_and_server(1);
    sim.set_all_faults(Faults { reorder_permille: 200, duplicate_permille: 50, ..Faults::NONE });
    let datagrams = sim.converse(client, Conversation::datagrams(at(ECHO[0]), 10, 4_000));
    sim.run_until_idle().unwrap();
    assert!(sim.report(datagrams).is_complete(), "{:?}", sim.report(datagrams));
    assert!(sim.link_counters(server)[0].sent >= 30, "three fragments each");
}

#[test]
fn a_link_with_a_small_mtu_fragments_what_may_be_fragmented_and_loses_the_rest() {
    let mut sim = Simulation::new(Seed::new(1));
    let client = sim.client(&[address("198.51.100.7")]);
    sim.set_default_link(Link { mtu: 600, ..Link::default() });
    let server = sim.server(&[address("10.0.0.2")]);
    sim.serve_echo(server, 7);
    // Longer than the client's MTU: its fragments of 1500 bytes are fragmented again. Shorter: DF is set.
    let fragmented = sim.converse(client, Conversation::datagrams(at(ECHO[0]), 1, 2_000));
    let whole = sim.converse(client, Conversation::datagrams(at(ECHO[0]), 1, 1_000).patience(Duration::from_secs(2)));
    // TCP agrees on segments that fit.
    let transfer = sim.transfer(client, at(ECHO[0]), 10_000);
    sim.run_until_idle().unwrap();
    assert!(sim.report(fragmented).is_complete());
    assert_eq!(sim.report(whole).outcome, Outcome::TimedOut);
    assert!(sim.report(transfer).is_complete());
    assert!(sim.link_counters(server)[1].too_big > 0);
}

#[test]
fn a_run_that_takes_too_many_steps_says_so_and_can_go_on() {
    let (mut sim, client, _) = client_and_server(1);
    let request = sim.http_get(client, at(WEB[0]));
    sim.set_steps_max(10);
    let exhausted = sim.run_until_idle().unwrap_err();
    assert_eq!(exhausted.steps_max, 10);
    sim.set_steps_max(1_000);
    sim.run_until_idle().unwrap();
    assert!(sim.report(request).is_complete());
}
