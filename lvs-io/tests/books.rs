//! The worker's books: whatever comes, and whatever stands behind the director, every packet ends in exactly one counter.

use std::time::Duration;

use lvs_core::{Director, DirectorConfig, Gso, GsoKind, Instant, Offload, Seed, Side};
use lvs_io::memory::MemoryPacket;
use lvs_io::{ArmCounters, Counters, Host, HostConfig, ManualClock, MemoryPort, OnPass, SinkOffloads, Worker};
use lvs_testkit::strategy::{config, mutated, packet};
use lvs_testkit::{icmp, tcp, udp};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Services of each kind of server: translated, by a tunnel over a short link, and the director's own host.
const RULES: &str = "\
-A -t 192.0.2.1:80 -s rr
-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m
-A -u 192.0.2.1:53 -s rr
-a -u 192.0.2.1:53 -r 10.0.0.2:5353 -m
-A -u 192.0.2.2:53 -s rr
-a -u 192.0.2.2:53 -r 10.0.0.3:53 -i
-A -t 192.0.2.1:81 -s rr
-a -t 192.0.2.1:81 -r 10.0.0.254:81 -m
-A -u 192.0.2.3:53 -s rr -o
-a -u 192.0.2.3:53 -r 10.0.0.2:5353 -m
";

/// What stands behind the director.
#[derive(Clone, Copy, Debug)]
enum Behind {
    Nothing,
    StandIn,
    Stack,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    FromClient(MemoryPacket),
    FromServer(MemoryPacket),
    /// Both devices' queues are emptied: they take packets again.
    Drain,
    Pass(u16),
}

fn plain() -> impl Strategy<Value = Vec<u8>> {
    (0u8..9, 0u16..4, 0usize..3_000).prop_map(|(kind, client, len)| {
        let client = format!("203.0.113.7:{}", 1024 + client);
        let client = client.as_str();
        match kind {
            0 => tcp(client, "192.0.2.1:80").syn().build(),
            1 => tcp(client, "192.0.2.1:80").ack().payload_len(len).build(),
            2 => udp(client, "192.0.2.1:53").payload_len(len).build(),
            3 => udp(client, "192.0.2.2:53").payload_len(len).dont_fragment().build(),
            4 => tcp(client, "192.0.2.1:81").syn().build(),
            5 => tcp(client, "192.0.2.1:9").syn().build(),
            6 => udp(client, "192.0.2.3:53").payload_len(len).build(),
            7 => icmp(client, "192.0.2.1:0", 8, 0, 7).payload_len(len).build(),
            _ => tcp(client, "198.51.100.9:80").syn().build(),
        }
    })
}

fn reply() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), 0u16..4, 0usize..3_000).prop_map(|(is_tcp, client, len)| {
        let client = format!("203.0.113.7:{}", 1024 + client);
        match is_tcp {
            true => tcp("10.0.0.2:8080", client.as_str()).syn().ack().build(),
            false => udp("10.0.0.2:5353", client.as_str()).payload_len(len).build(),
        }
    })
}

/// Parts of a datagram, in any order, some missing.
fn part() -> impl Strategy<Value = Vec<u8>> {
    (0u16..2, 0u32..3, 0usize..4, any::<bool>()).prop_map(|(client, id, index, is_ours)| {
        let client = format!("203.0.113.7:{}", 1024 + client);
        let to = if is_ours { "192.0.2.1:53" } else { "192.0.2.1:9" };
        udp(client.as_str(), to).payload_len(2_000).identification(id).fragments(520).remove(index.min(3))
    })
}

/// A super-packet of five segments.
fn super_packet() -> impl Strategy<Value = MemoryPacket> {
    (0u16..4).prop_map(|client| {
        let client = format!("203.0.113.7:{}", 1024 + client);
        let bytes = tcp(client.as_str(), "192.0.2.1:80").ack().payload_len(5 * 1000).build();
        let gso = Gso { kind: GsoKind::TcpV4, size: 1000, ecn: false };
        MemoryPacket { offload: Offload { gso: Some(gso), ..Offload::default() }, ..MemoryPacket::new(bytes) }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![
        4 => plain(),
        2 => part(),
        1 => packet().prop_map(|packet| packet.build()),
        1 => mutated(),
    ];
    let from_client = prop_oneof![8 => bytes.prop_map(MemoryPacket::new), 1 => super_packet()];
    prop_oneof![
        8 => from_client.prop_map(Step::FromClient),
        3 => reply().prop_map(|bytes| Step::FromServer(MemoryPacket::new(bytes))),
        1 => Just(Step::Drain),
        1 => (0u16..40).prop_map(Step::Pass),
    ]
}

fn behind() -> impl Strategy<Value = Behind> {
    prop_oneof![Just(Behind::Nothing), Just(Behind::StandIn), Just(Behind::Stack)]
}

fn director() -> Director {
    let side = |mtu, ipv4: &str| Side::default().with(|side| (side.mtu, side.ipv4) = (mtu, ipv4.parse().ok()));
    let config = DirectorConfig::default().with(|config| {
        config.client_side = side(1500, "203.0.113.254");
        config.server_side = side(1400, "10.0.0.254");
        config.connections_max = 16;
        config.fragments_max = 4;
    });
    let mut director = Director::new(config, Seed::new(1));
    for command in lvs_admin::parse_rules(RULES).expect("the rules are right") {
        director.apply(Instant::ZERO, &command).expect("the rules are right");
    }
    director
}

/// Runs the steps and balances the books after each.
fn run(behind: Behind, cuts: bool, steps: Vec<Step>) -> Counters {
    let offloads = SinkOffloads { checksum: !cuts, tcp: !cuts, udp: !cuts };
    // Few places: queues run full.
    let (client, client_device) = MemoryPort::pair(5);
    let (server, server_device) = MemoryPort::pair(5);
    let (_stack, stack_device) = MemoryPort::pair(2);
    let local_addresses = vec!["192.0.2.1".parse().expect("an address")];
    let on_pass = match behind {
        Behind::Nothing => OnPass::Drop,
        Behind::Stack => OnPass::ToHost(stack_device.into_arm().sink),
        Behind::StandIn => {
            OnPass::Route(Box::new(Host::new(HostConfig { local_addresses, ..HostConfig::default() }, Seed::new(2))))
        }
    };
    let clock = ManualClock::new();
    let mut worker = Worker::new(director(), client_device.into_arm(), Some(server_device.into_arm_with(offloads)))
        .expect("it can be had")
        .with_clock(clock.clone())
        .with_on_pass(on_pass);
    let mut pushed = 0;
    for step in steps {
        match step {
            Step::FromClient(packet) => pushed += u64::from(client.push_packet(packet)),
            Step::FromServer(packet) => pushed += u64::from(server.push_packet(packet)),
            Step::Drain => while client.pop().or_else(|| server.pop()).is_some() {},
            Step::Pass(seconds) => clock.advance(Duration::from_secs(seconds.into())),
        }
        worker.turn().expect("memory does not fail");
        let counters = worker.counters();
        assert_eq!(counters.unaccounted(), 0, "{counters:#?}");
    }
    let counters = worker.counters();
    assert_eq!(counters.client.received + counters.server.received, pushed);
    counters.clone()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_packet_ends_in_exactly_one_counter(
        behind in behind(),
        cuts in any::<bool>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        run(behind, cuts, steps);
    }
}

#[test]
fn the_runs_of_the_law_meet_every_counter() {
    let mut runner = TestRunner::new(config());
    let mut met = [0; 15];
    for _ in 0..300 {
        let strategy = (behind(), any::<bool>(), prop::collection::vec(step(), 1..60));
        let (behind, cuts, steps) = strategy.new_tree(&mut runner).expect("a strategy without filters").current();
        let counters = run(behind, cuts, steps);
        let arms = |count: fn(&ArmCounters) -> u64| count(&counters.client) + count(&counters.server);
        let these = [
            counters.owed,
            counters.heard,
            counters.forwarded,
            counters.replied,
            counters.passed,
            counters.local,
            counters.held,
            counters.dropped,
            counters.to_host,
            counters.pass_dropped,
            counters.host_sent,
            counters.host.dropped,
            arms(|arm| arm.sent),
            arms(|arm| arm.queue_full),
            arms(|arm| arm.cut),
        ];
        met.iter_mut().zip(these).for_each(|(met, count)| *met += count);
    }
    assert!(!met.contains(&0), "one counter is never met: {met:?}");
}
