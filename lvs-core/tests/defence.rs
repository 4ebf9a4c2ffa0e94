//! Defence under pressure, as an operator sees it: the three modes and what each of them refuses or removes.

use std::time::Duration;

use lvs_core::{DirectorConfig, DropReason, ServiceConfig, Verdict};
use lvs_testkit::desk::{nat, tcp_service, udp_service};
use lvs_testkit::{Desk, Packet, tcp, udp};

const WEB: &str = "192.0.2.80:80";
const DNS: &str = "192.0.2.80:53";

/// A director with 64 places for connections and 64 for templates, a TCP and a UDP service.
fn desk() -> Desk {
    let mut desk = Desk::bare(DirectorConfig::default().with(|config| {
        config.connections_max = 64;
        config.templates_max = 64;
    }));
    desk.add(tcp_service(WEB), ServiceConfig::new("rr"), [nat("10.0.0.2:80")]);
    desk.add(udp_service(DNS), ServiceConfig::new("rr"), [nat("10.0.0.2:53")]);
    desk
}

fn client(number: u16) -> String {
    format!("198.51.100.7:{}", 1024 + number)
}

fn segment(number: u16) -> Packet {
    tcp(&*client(number), WEB)
}

/// Opens a connection and brings it to ESTABLISHED.
fn establish(desk: &mut Desk, number: u16) {
    desk.feed(&segment(number).syn().build());
    desk.feed(&segment(number).ack().build());
}

fn is_refused(verdict: Verdict) -> bool {
    verdict == Verdict::Drop(DropReason::DropPacketDefence)
}

#[test]
fn drop_packet_3_refuses_the_first_new_connection_and_every_nth_but_no_packet_of_a_known_one() {
    let mut desk = desk();
    desk.set(|settings| settings.drop_packet = 3);
    // Set afterwards, it waits for the second to end: the counter keeps its ten.
    desk.set(|settings| settings.am_droprate = 4);
    let refused: Vec<_> = (0..24).filter(|n| is_refused(desk.send(&segment(*n).syn().build()).verdict)).collect();
    assert_eq!(refused, [0, 10, 20]);
    assert!(
        (0..24).filter(|n| !refused.contains(n)).all(|n| !is_refused(desk.send(&segment(n).ack().build()).verdict))
    );
    assert_eq!(desk.director.drops(DropReason::DropPacketDefence), 3);

    desk.pass(Duration::from_secs(1));
    let refused: Vec<_> = (24..44).filter(|n| is_refused(desk.send(&segment(*n).syn().build()).verdict)).collect();
    assert_eq!(refused, [30, 34, 38, 42]);
}

#[test]
fn packets_no_service_takes_do_not_move_the_counter_of_drop_packet() {
    let mut desk = desk();
    desk.set(|settings| (settings.am_droprate, settings.drop_packet) = (2, 3));
    assert_eq!(desk.send(&tcp(&*client(0), "192.0.2.99:80").syn().build()).verdict, Verdict::Pass);
    assert_eq!(desk.send(&segment(0).ack().build()).verdict, Verdict::Pass);
    assert!(is_refused(desk.send(&segment(0).syn().build()).verdict));
    assert!(!is_refused(desk.send(&segment(1).syn().build()).verdict));
    assert!(is_refused(desk.send(&segment(2).syn().build()).verdict));
}

#[test]
fn automatic_modes_follow_the_tables_fill_level_once_a_second_and_read_back_as_1_or_2() {
    let mut desk = desk();
    desk.set(|settings| settings.amemthresh = 16);
    desk.set(|settings| (settings.drop_packet, settings.secure_tcp) = (2, 1));
    let modes = |desk: &Desk| (desk.director.settings().drop_packet, desk.director.settings().secure_tcp);
    assert_eq!(modes(&desk), (1, 1)); // at once: there is room
    (0..56).for_each(|n| establish(&mut desk, n)); // eight places left
    assert_eq!(modes(&desk), (1, 1));
    desk.pass(Duration::from_secs(1));
    assert_eq!(modes(&desk), (2, 2));
    // 16 / (16 - 8): every second one.
    let refused = (56..60).filter(|n| is_refused(desk.send(&segment(*n).syn().build()).verdict)).count();
    assert_eq!(refused, 2);
    // The stricter table: the client's ACK does not establish a connection, only the server's does.
    desk.feed(&segment(56).ack().build());
    assert!(desk.states().contains(&"SYN_RECV"));
    desk.pass(Duration::from_secs(900));
    assert_eq!(modes(&desk), (1, 1));
    assert!(!is_refused(desk.send(&segment(60).syn().build()).verdict));
}

#[test]
fn the_defence_wakes_the_director_only_while_a_mode_asks_for_it() {
    let mut desk = desk();
    desk.set(|settings| settings.run_estimation = false);
    assert_eq!(desk.director.poll_timeout(), None);
    desk.set(|settings| settings.drop_entry = 1);
    assert_eq!(desk.director.poll_timeout(), Some(desk.now + Duration::from_secs(1)));
    desk.set(|settings| settings.drop_entry = 0);
    assert_eq!(desk.director.poll_timeout(), None);
}

#[test]
fn drop_entry_removes_half_open_connections_and_spares_those_in_use_and_those_closing() {
    let mut desk = desk();
    desk.set(|settings| settings.drop_entry = 3);
    (0..20).for_each(|n| establish(&mut desk, n));
    (20..30).for_each(|n| {
        establish(&mut desk, n);
        desk.feed(&segment(n).fin().ack().build());
    });
    (30..60).for_each(|n| desk.feed(&segment(n).syn().build()));
    desk.pass(Duration::from_secs(50));
    // 200 random looks at 128 places.
    let half_open = desk.states().iter().filter(|state| **state == "SYN_RECV").count();
    assert!(half_open < 15, "{half_open}");
    assert_eq!(desk.states().iter().filter(|state| **state != "SYN_RECV").count(), 30);
    assert_eq!(desk.director.defence_counters().entries_removed, 30 - half_open as u64);
    let server = desk.server(tcp_service(WEB), "10.0.0.2:80");
    assert_eq!(server.active_connections + server.inactive_connections, 30 + half_open as u32);
}

#[test]
fn drop_entry_thins_out_idle_connections_with_few_packets_only() {
    let mut desk = desk();
    let datagram = |n| udp(&*client(n), DNS).payload(b"?").build();
    for n in 0..40 {
        // 20 clients sent one datagram, 20 sent nine.
        (0..if n < 20 { 1 } else { 9 }).for_each(|_| desk.feed(&datagram(n)));
    }
    desk.set(|settings| settings.drop_entry = 3);
    desk.pass(Duration::from_secs(59));
    assert_eq!(desk.connections().len(), 40); // none has been idle for a minute before
    desk.pass(Duration::from_secs(230));
    let left: Vec<_> = desk.connections().iter().map(|row| row.in_packets).collect();
    assert_eq!(left.iter().filter(|packets| **packets == 9).count(), 20);
    assert!(left.len() < 30, "{}", left.len());
}

#[test]
fn drop_entry_spares_templates_that_are_assured_and_ends_others_with_their_last_connection() {
    let mut desk = desk();
    let shop = tcp_service("192.0.2.80:443");
    desk.add(shop, ServiceConfig::new("rr").persistent(3_600), [nat("10.0.0.2:443")]);
    let segment = |n: u16| tcp(&*format!("198.51.100.{n}:2000"), "192.0.2.80:443");
    (0..10).for_each(|n| desk.feed(&segment(n).syn().build()));
    (0..5).for_each(|n| desk.feed(&segment(n).ack().build()));
    desk.set(|settings| settings.drop_entry = 3);
    desk.pass(Duration::from_secs(600));
    let mut states: Vec<_> = desk.templates().iter().map(|row| row.state).collect();
    states.sort_unstable();
    assert_eq!(states, ["ASSURED"; 5]);
    assert_eq!(desk.server(shop, "10.0.0.2:443").persistent_connections, 5);
}

#[test]
fn the_same_seed_removes_the_same_entries() {
    let run = || {
        let mut desk = desk();
        (0..60).for_each(|n| desk.feed(&segment(n).syn().build()));
        desk.set(|settings| settings.drop_entry = 3);
        desk.pass(Duration::from_secs(20));
        desk.connections().iter().map(|row| row.client.port).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
    assert!(run().len() < 60);
}
