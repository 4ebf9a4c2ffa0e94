//! The law: with the same rules, time and packets, the restored director does as the first one, byte for byte.

use core::time::Duration;
use std::net::SocketAddr;

use lvs_core::view::ConnectionView;
use lvs_testkit::{Desk, sctp, strategy, tcp, udp};
use proptest::prelude::*;

use super::{RULES, restored, save};

#[derive(Clone, Debug)]
enum Step {
    Packet(Vec<u8>),
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![8 => packet().prop_map(Step::Packet), 1 => (0..90u16).prop_map(Step::Pass)]
}

/// A request or reply among few addresses, so that flows meet.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let flags = prop_oneof![Just(2u8), Just(18), Just(16), Just(17), Just(4), any::<u8>()];
    let shape = (0u8..4, flags, any::<bool>(), any::<bool>(), 0u16..6, 2u8..4, 7u8..10);
    shape.prop_map(|(kind, flags, v6, is_reply, port, server, client)| {
        let address = |v4: String, six: String| if v6 { six.parse().unwrap() } else { v4.parse().unwrap() };
        let client =
            SocketAddr::new(address(format!("198.51.100.{client}"), format!("2001:db8:c::{client}")), 1024 + port);
        let vip = SocketAddr::new(address("192.0.2.1".into(), "2001:db8::1".into()), if kind == 3 { 21 } else { 80 });
        let real_port = if kind == 3 { 21 } else { 8080 };
        let server = SocketAddr::new(address(format!("10.0.0.{server}"), format!("fd00::{server}")), real_port);
        let (from, to) = if is_reply { (server, client) } else { (client, vip) };
        match kind {
            0 => tcp(from, to).flags(flags).payload(b"data").build(),
            1 => udp(from, to).payload(b"data").build(),
            2 => sctp(from, to).chunk(flags % 15, b"data").build(),
            _ if is_reply && flags == 16 => {
                tcp(from, to).ack().payload(b"227 Entering Passive Mode (10,0,0,2,195,80).\r\n").build()
            }
            _ => tcp(from, to).flags(flags).build(),
        }
    })
}

fn play(desk: &mut Desk, step: &Step) -> Option<String> {
    match step {
        Step::Packet(packet) => Some(desk.send(packet)).map(|sent| format!("{:?} {:?}", sent.verdict, sent.bytes)),
        Step::Pass(seconds) => {
            desk.pass(Duration::from_secs((*seconds).into()));
            None
        }
    }
}

/// In an order of their own: places that are free are taken in another one by a new director.
fn listed(connections: Vec<ConnectionView>) -> Vec<String> {
    let mut all: Vec<String> = connections.iter().map(|connection| format!("{connection:?}")).collect();
    all.sort();
    all
}

/// From any port, 0 too.
fn strangers() -> impl Strategy<Value = Vec<u8>> {
    let ports = prop_oneof![Just(0u16), any::<u16>()];
    let odd = (ports, any::<u8>(), 0u8..3, any::<bool>()).prop_map(|(port, flags, kind, v6)| {
        let (client, vip) = if v6 { ("[2001:db8:c::7]", "[2001:db8::1]:80") } else { ("198.51.100.7", "192.0.2.1:80") };
        let client = format!("{client}:{port}");
        match kind {
            0 => tcp(client.as_str(), vip).flags(flags).build(),
            1 => udp(client.as_str(), vip).build(),
            _ => sctp(client.as_str(), vip).chunk(flags % 15, b"data").build(),
        }
    });
    prop_oneof![3 => odd, 1 => strategy::mutated(), 1 => strategy::packet().prop_map(|packet| packet.build())]
}

proptest! {
    #![proptest_config(strategy::config())]

    #[test]
    fn no_stranger_makes_a_snapshot_that_cannot_be_loaded(packets in prop::collection::vec(strangers(), 1..40)) {
        let mut desk = Desk::new(RULES);
        packets.iter().for_each(|packet| desk.feed(packet));
        let (second, outcome) = restored(RULES, &save(&desk), desk.now, Duration::ZERO);
        prop_assert_eq!(desk.connections().len(), second.connections().len() + outcome.no_server as usize);
    }

    #[test]
    fn a_restored_director_does_as_the_one_it_was_taken_from(
        before in prop::collection::vec(step(), 1..60),
        after in prop::collection::vec(step(), 1..60),
    ) {
        let mut first = Desk::new(RULES);
        before.iter().for_each(|step| drop(play(&mut first, step)));
        let bytes = save(&first);
        let (mut second, outcome) = restored(RULES, &bytes, first.now, Duration::ZERO);
        prop_assert_eq!(outcome.no_room + outcome.no_server + outcome.no_port + outcome.replaced, 0);
        prop_assert_eq!(first.connections(), second.connections());
        prop_assert_eq!(first.templates(), second.templates());
        prop_assert_eq!(first.director.services(first.now), second.director.services(second.now));
        for step in &after {
            prop_assert_eq!(play(&mut first, step), play(&mut second, step), "{:?}", step);
        }
        prop_assert_eq!(listed(first.connections()), listed(second.connections()));
        prop_assert_eq!(listed(first.templates()), listed(second.templates()));
        prop_assert_eq!(first.director.services(first.now), second.director.services(second.now));
    }
}
