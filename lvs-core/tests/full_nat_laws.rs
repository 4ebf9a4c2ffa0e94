//! Laws of FullNAT that hold whatever the traffic: what goes to a server comes back to its client, no local endpoint is
//! used twice towards one server, ports are neither lost nor made, shards keep to their own, and quarantine is kept.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use lvs_core::local_address::LocalPorts;
use lvs_core::view::ConnectionView;
use lvs_core::{Endpoint, Instant, Protocol, Verdict};
use lvs_testkit::{Desk, oracle, strategy, tcp, udp};
use proptest::prelude::*;

/// Three services of two families and protocols; two of them share server and local addresses.
const RULES: &str = "-A -t 192.0.2.80:80 -s rr\n\
    --add-laddr -t 192.0.2.80:80 --local-address 10.0.0.200\n\
    --add-laddr -t 192.0.2.80:80 --local-address 10.0.0.201\n\
    -a -t 192.0.2.80:80 -r 10.0.0.2:8080 --fullnat\n\
    -a -t 192.0.2.80:80 -r 10.0.0.3:8080 --fullnat\n\
    -A -t [2001:db8::80]:80 -s rr\n\
    --add-laddr -t [2001:db8::80]:80 --local-address 10.0.0.200\n\
    -a -t [2001:db8::80]:80 -r 10.0.0.2:8080 --fullnat\n\
    -A -u 192.0.2.80:53 -s rr\n\
    --add-laddr -u 192.0.2.80:53 --local-address 10.0.0.200\n\
    -a -u 192.0.2.80:53 -r 10.0.0.2:53 --fullnat\n";

/// What happens to the director.
#[derive(Clone, Debug)]
enum Step {
    /// A client opens a connection, or goes on with one.
    Request {
        service: u8,
        client: u16,
        is_syn: bool,
    },
    /// A server sends something on one of the connections; it may be a reset.
    Reply {
        connection: prop::sample::Index,
        is_reset: bool,
    },
    /// Time passes.
    Pass {
        seconds: u16,
    },
    /// A local address goes, or comes back.
    Delete,
    Add,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3u8, 0..40u16, any::<bool>())
            .prop_map(|(service, client, is_syn)| Step::Request { service, client, is_syn }),
        4 => (any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(connection, is_reset)| Step::Reply { connection, is_reset }),
        3 => (0..80u16).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Delete),
        1 => Just(Step::Add),
    ]
}

fn ports() -> impl Strategy<Value = LocalPorts> {
    // Often too few to be remembered, so that servers give each other theirs.
    let remembered_max = prop_oneof![Just(LocalPorts::default().remembered_max), 1..40u32];
    (1000..1100u16, 1..30u16, 1..4u16, 0..4u16, 0..30u64, remembered_max).prop_map(
        |(first, len, shards, shard, quarantine_s, remembered_max)| {
            LocalPorts::default().with(|ports| {
                (ports.first, ports.last) = (first, first + len);
                (ports.shard, ports.shards) = (shard % shards, shards);
                ports.quarantine = Duration::from_secs(quarantine_s);
                ports.remembered_max = remembered_max;
            })
        },
    )
}

/// A director, and what a reader of its connections knows of it.
struct Run {
    desk: Desk,
    ports: LocalPorts,
    /// When each pair of real and local endpoint was last seen in use.
    last_use: BTreeMap<(Protocol, Endpoint, Endpoint), Instant>,
}

impl Run {
    fn new(ports: LocalPorts) -> Self {
        let config = Desk::config().with(|config| config.local_ports = ports);
        Self { desk: Desk::with_config(config, RULES), ports, last_use: BTreeMap::new() }
    }

    fn step(&mut self, step: &Step) {
        let before: BTreeSet<_> = self.tuples();
        match step {
            Step::Request { service, client, is_syn } => self.request(*service, *client, *is_syn),
            Step::Reply { connection, is_reset } => {
                let connections = self.desk.connections();
                if !connections.is_empty() {
                    self.reply(&connections[connection.index(connections.len())], *is_reset);
                }
            }
            Step::Pass { seconds } => self.desk.pass(Duration::from_secs((*seconds).into())),
            Step::Delete if self.has_second_address() => {
                self.desk.ipvsadm("--del-laddr -t 192.0.2.80:80 --local-address 10.0.0.201");
            }
            Step::Add if !self.has_second_address() => {
                self.desk.ipvsadm("--add-laddr -t 192.0.2.80:80 --local-address 10.0.0.201");
            }
            Step::Delete | Step::Add => {}
        }
        self.check(&before);
    }

    fn has_second_address(&self) -> bool {
        self.desk.director.local_addresses().count() == 2
    }

    fn request(&mut self, service: u8, client: u16, is_syn: bool) {
        let packet = match service {
            0 => tcp(SocketAddr::from(([198, 51, 100, 7], 2000 + client)), "192.0.2.80:80"),
            1 => tcp(format!("[2001:db8:c::7]:{}", 2000 + client).as_str(), "[2001:db8::80]:80"),
            _ => udp(SocketAddr::from(([198, 51, 100, 7], 2000 + client)), "192.0.2.80:53"),
        };
        let packet = if is_syn { packet.syn() } else { packet.ack() };
        let _ = self.desk.send(&packet.payload(b"request").build());
    }

    /// The server's packet comes to the client of this connection, from whom it asked.
    fn reply(&mut self, connection: &ConnectionView, is_reset: bool) {
        let local = connection.local.expect("every server here has FullNAT");
        let packet = match connection.protocol {
            Some(Protocol::Udp) => udp(connection.real, local),
            _ if is_reset => tcp(connection.real, local).rst(),
            _ => tcp(connection.real, local).ack(),
        };
        let sent = self.desk.send(&packet.payload(b"reply").build());
        assert!(matches!(sent.verdict, Verdict::Forward { .. }), "{}", sent.line());
        let parsed = oracle::parse(&sent.bytes).expect("a packet");
        let ports = [0, 2].map(|at| u16::from_be_bytes([parsed.segment[at], parsed.segment[at + 1]]));
        assert_eq!(Endpoint::new(parsed.source, ports[0]), connection.virtual_endpoint);
        assert_eq!(Endpoint::new(parsed.destination, ports[1]), connection.client);
    }

    fn tuples(&self) -> BTreeSet<(Protocol, Endpoint, Endpoint)> {
        let tuples = self.desk.connections().into_iter().map(|connection| {
            let local = connection.local.expect("every server here has FullNAT");
            (connection.protocol.expect("no templates"), connection.real, local)
        });
        tuples.collect()
    }

    fn check(&mut self, before: &BTreeSet<(Protocol, Endpoint, Endpoint)>) {
        let now = self.desk.now;
        let connections = self.desk.connections();
        let tuples = self.tuples();
        assert_eq!(tuples.len(), connections.len(), "no two connections share a pair of real and local endpoint");
        for tuple @ (_, _, local) in &tuples {
            let is_own = local.port % self.ports.shards == self.ports.shard;
            assert!(is_own && (self.ports.first..=self.ports.last).contains(&local.port), "{local}");
            if !before.contains(tuple) {
                let rested = self.last_use.get(tuple).map(|last| now.duration_since(*last));
                assert!(rested.is_none_or(|rested| rested >= self.ports.quarantine), "{tuple:?} rested {rested:?}");
            }
            self.last_use.insert(*tuple, now);
        }
        for view in self.desk.director.local_ports(now) {
            assert_eq!(view.leased + view.free + view.quarantined, self.ports.count(), "{view:?}");
        }
        let leased: u32 = self.desk.director.local_ports(now).iter().map(|view| view.leased).sum();
        assert!(leased <= self.ports.remembered_max);
        // A connection that has ended keeps its port until it is cleared away.
        assert!(leased as usize >= connections.len());
    }
}

proptest! {
    #![proptest_config(strategy::config())]

    #[test]
    fn whatever_happens_local_ports_are_kept_in_order(
        ports in ports(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut run = Run::new(ports);
        for step in &steps {
            run.step(step);
        }
        // In the end every port is free again.
        run.desk.pass(Duration::from_secs(3000));
        for view in run.desk.director.local_ports(run.desk.now) {
            prop_assert_eq!((view.leased, view.free), (0, ports.count()));
        }
    }

    #[test]
    fn what_goes_to_the_server_comes_back_to_the_client(
        client in strategy::endpoint(false),
        client6 in strategy::endpoint(true),
        isn in any::<u32>(),
        data_len in 1..1000u32,
        kind in prop::sample::select(vec!["none", "toa", "uoa", "proxy-v1", "proxy-v2"]),
    ) {
        prop_assume!(client.port() != 20 && client6.port() != 20); // FTP data is never scheduled
        let rules = RULES.replace(" -s rr\n", &format!(" -s rr --client-address {kind}\n"));
        for (client, to) in [(client, "192.0.2.80:80"), (client6, "[2001:db8::80]:80")] {
            let mut desk = Desk::new(&rules);
            let syn = desk.send(&tcp(client, to).syn().numbers(isn, 0).build()).bytes;
            let connection = desk.connections()[0].clone();
            let (real, local) = (connection.real, connection.local.expect("FullNAT"));
            let server_sees = |packet: &[u8]| {
                let parsed = oracle::parse(packet).expect("a packet");
                u32::from_be_bytes(parsed.segment[4..8].try_into().expect("a TCP header"))
            };
            let server_isn = server_sees(&syn);
            let syn_ack = tcp(real, local).syn().ack().numbers(7, server_isn.wrapping_add(1)).build();
            let syn_ack = desk.send(&syn_ack).bytes;
            let client_sees = |packet: &[u8]| {
                let parsed = oracle::parse(packet).expect("a packet");
                u32::from_be_bytes(parsed.segment[8..12].try_into().expect("a TCP header"))
            };
            prop_assert_eq!(client_sees(&syn_ack), isn.wrapping_add(1));
            let first = isn.wrapping_add(1);
            let data = tcp(client, to).ack().numbers(first, 8).payload_len(data_len as usize).build();
            let sent = desk.send(&data).bytes;
            let parsed = oracle::parse(&sent).expect("a packet");
            let header_len = usize::from(parsed.segment[12] >> 4) * 4;
            let (_, payload) = parsed.segment.split_at(header_len);
            prop_assert!(payload.ends_with(&data[data.len() - data_len as usize..]), "the data is all there");
            // The server acknowledges all it has got; to the client that is all it has sent, and then the next follows.
            let end = server_sees(&sent).wrapping_add(payload.len() as u32);
            let ack = desk.send(&tcp(real, local).ack().numbers(8, end).build()).bytes;
            prop_assert_eq!(client_sees(&ack), first.wrapping_add(data_len));
            let next = tcp(client, to).ack().numbers(first.wrapping_add(data_len), 9).build();
            prop_assert_eq!(server_sees(&desk.send(&next).bytes), end);
        }
    }
}
