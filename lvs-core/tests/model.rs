//! The director against a naive one made of plain lists: random commands, packets and time, and after every step the
//! same verdicts, bytes, counters and listings.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lvs_core::view::ConnectionView;
use lvs_core::{
    Command, Direction, DirectorConfig, DropReason, Endpoint, ForwardMethod, Instant, Protocol, ServerConfig,
    ServiceConfig, ServiceKey, Settings, Verdict,
};
use lvs_testkit::model::{Bounds, Expected, Flow, Model};
use lvs_testkit::{Desk, describe, icmp_error, strategy};
use proptest::prelude::*;
use proptest::sample::select;

/// One step of a run.
#[derive(Clone, Debug)]
enum Step {
    Command(Command),
    Packet(Flow),
    /// A packet of one of the connections there are, from its server or its client.
    OfSomeFlow {
        number: usize,
        is_reply: bool,
        flags: u8,
        payload_len: usize,
    },
    Wait(u64),
}

/// The director and the model, side by side.
struct Pair {
    desk: Desk,
    model: Model,
    /// Packets that met each of [`OUTCOMES`].
    seen: [u32; OUTCOMES.len()],
}

const OUTCOMES: [&str; 5] = ["pass", "dropped", "refused", "sent to an IPv4 host", "sent to an IPv6 host"];

impl Pair {
    fn new() -> Self {
        Self::with_room(DirectorConfig::default(), Bounds::default())
    }

    /// Tables so small that somebody gives way all the time.
    fn crowded() -> Self {
        let config = DirectorConfig::default().with(|config| {
            config.connections_max = 6;
            config.half_open_max = 3;
            config.templates_max = 3;
            config.client_templates_max = 2;
        });
        Self::with_room(config, Bounds { connections: 6, half_open: 3, templates: 3, client_templates: 2 })
    }

    fn with_room(config: DirectorConfig, bounds: Bounds) -> Self {
        let desk = Desk::bare(config);
        let model = Model::bounded(desk.now.as_nanos() / 1_000_000_000, bounds);
        let mut pair = Self { desk, model, seen: [0; OUTCOMES.len()] };
        for (service, _, servers) in SERVICES {
            pair.step(&Step::Command(Command::AddService(key(service), ServiceConfig::new("rr"))));
            for server in servers {
                pair.step(&Step::Command(Command::AddServer(key(service), ServerConfig::nat(server.parse().unwrap()))));
            }
        }
        pair
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Command(command) => {
                let is_accepted = self.desk.director.apply(self.desk.now, command).is_ok();
                assert_eq!(is_accepted, self.model.apply(command), "{command:?}");
            }
            Step::Packet(flow) => self.packet(flow),
            Step::OfSomeFlow { number, is_reply, flags, payload_len } => {
                let Some((protocol, client, destination, server)) = self.model.some_flow(*number) else { return };
                let (source, destination) = if *is_reply { (server, client) } else { (client, destination) };
                self.packet(&Flow { protocol, source, destination, flags: *flags, payload_len: *payload_len });
            }
            // Second by second, for the model knows no other time.
            Step::Wait(seconds) => (0..*seconds).for_each(|_| self.tick()),
        }
        self.compare();
    }

    fn tick(&mut self) {
        // The sweep after a deletion comes 4 ms later and takes many calls. The model has it done by the next second.
        self.work_until(self.desk.now + Duration::from_millis(4));
        self.desk.now = self.desk.now + Duration::from_secs(1);
        self.work_until(self.desk.now);
        self.model.tick();
    }

    fn work_until(&mut self, now: Instant) {
        // `poll_timeout` may ask for 17 ms later; what is due is done all the same.
        self.desk.director.handle_timeout(now);
        while self.desk.director.poll_timeout().is_some_and(|due| due <= now) {
            self.desk.director.handle_timeout(now);
        }
    }

    fn packet(&mut self, flow: &Flow) {
        let packet = flow.packet().build();
        let expected = self.model.packet(flow);
        self.seen[match &expected {
            Expected::Pass => 0,
            Expected::Dropped | Expected::Full(_) => 1,
            Expected::Refused => 2,
            Expected::Sent { next_hop: IpAddr::V4(_), .. } => 3,
            Expected::Sent { .. } => 4,
        }] += 1;
        let verdict = self.desk.send(&packet).verdict;
        match expected {
            Expected::Pass => assert_eq!(verdict, Verdict::Pass, "{}", describe(&packet)),
            Expected::Dropped => assert_eq!(verdict, Verdict::Drop(DropReason::ServerGone), "{}", describe(&packet)),
            Expected::Full(reason) => assert_eq!(verdict, Verdict::Drop(reason), "{}", describe(&packet)),
            Expected::Refused => {
                assert_eq!(verdict, Verdict::reply(flow.source.ip()), "{}", describe(&packet));
                let is_ipv4 = flow.source.is_ipv4();
                let (error_type, code, class) = if is_ipv4 { (3, 3, 0xc0) } else { (1, 4, 0) };
                let error = icmp_error(flow.destination.ip(), error_type, code, 0, &packet).traffic_class(class);
                // The identification is the director's own choice.
                let identification = u16::from_be_bytes([self.desk.bytes[4], self.desk.bytes[5]]);
                let error = if is_ipv4 { error.identification(identification.into()) } else { error };
                assert_eq!(describe(&self.desk.bytes), describe(&error.build()));
                assert_eq!(self.desk.bytes, error.build());
            }
            Expected::Sent { bytes, next_hop, is_request } => {
                let direction = if is_request { Direction::Request } else { Direction::Reply };
                assert_eq!(verdict, Verdict::forward(next_hop, direction, 1500), "{}", describe(&packet));
                assert_eq!(describe(&self.desk.bytes), describe(&bytes));
                assert_eq!(self.desk.bytes, bytes);
            }
        }
    }

    fn compare(&self) {
        let (director, now) = (&self.desk.director, self.desk.now);
        let mut rows: Vec<_> = director.connections(now).map(|view| row(&view)).collect();
        rows.sort();
        assert_eq!(rows, self.model.rows());
        assert_eq!(director.connection_count(now), rows.iter().filter(|row| !row.0).count());
        assert_eq!(director.statistics().live, self.model.totals());
        for (service, ..) in SERVICES {
            let listed = director.service(now, &key(service)).map(|view| {
                let servers = view.servers.iter().map(|server| {
                    let counts =
                        (server.active_connections, server.inactive_connections, server.persistent_connections);
                    let at = socket(server.config.key);
                    let (weight, counters) = (server.effective_weight, server.statistics.live);
                    (at, weight, counts.0, counts.1, counts.2, server.is_overloaded, counters)
                });
                (servers.collect::<Vec<_>>(), view.statistics.live)
            });
            assert_eq!(listed, self.model.service(&key(service)));
        }
    }
}

type Row = (bool, Protocol, SocketAddr, SocketAddr, SocketAddr, ForwardMethod, &'static str, u64, u64);

fn row(view: &ConnectionView) -> Row {
    let protocol = view.protocol.expect("there are no fwmark services");
    let ends = (socket(view.client), socket(view.virtual_endpoint), socket(view.real));
    let left = view.expires_in.as_secs();
    (view.is_template, protocol, ends.0, ends.1, ends.2, view.forward, view.state, left, view.in_packets)
}

fn socket(end: Endpoint) -> SocketAddr {
    SocketAddr::new(end.address, end.port)
}

/// A service, its schedulers and its servers.
type Choices = ((Protocol, &'static str), &'static [&'static str], &'static [&'static str]);

/// Services with the addresses their clients and servers have.
const SERVICES: [Choices; 5] = [
    ((Protocol::Tcp, "192.0.2.80:80"), &CLIENTS, &["10.0.0.1:80", "10.0.0.2:8080", "10.0.0.3:80"]),
    ((Protocol::Udp, "192.0.2.80:53"), &CLIENTS, &["10.0.0.1:53", "10.0.0.2:53"]),
    ((Protocol::Tcp, "192.0.2.81:0"), &CLIENTS, &["10.0.0.1:0", "10.0.0.2:8080"]),
    ((Protocol::Tcp, "[2001:db8::80]:80"), &CLIENTS6, &["[fd00::1]:80", "[fd00::2]:8080"]),
    ((Protocol::Tcp, "192.0.2.81:443"), &CLIENTS, &["10.0.0.1:443", "10.0.0.3:443"]),
];
const CLIENTS: [&str; 5] =
    ["198.51.100.1:1024", "198.51.100.1:1025", "198.51.100.2:1024", "198.51.100.3:5000", "198.51.100.4:20"];
const CLIENTS6: [&str; 3] = ["[2001:db8:c::1]:1024", "[2001:db8:c::1]:1025", "[2001:db8:c::2]:1024"];
const FLAGS: [u8; 8] = [0x02, 0x02, 0x10, 0x10, 0x12, 0x11, 0x04, 0x00];

fn key((protocol, at): (Protocol, &str)) -> ServiceKey {
    ServiceKey::address(protocol, at.parse().unwrap())
}

fn service_config() -> impl Strategy<Value = ServiceConfig> {
    (select(vec!["rr", "wlc"]), select(vec![None, None, Some(30), Some(400)])).prop_map(|(scheduler, persistence)| {
        let config = ServiceConfig::new(scheduler);
        persistence.map_or(config.clone(), |timeout_s| config.persistent(timeout_s))
    })
}

fn server_config(at: SocketAddr) -> impl Strategy<Value = ServerConfig> {
    let method = select(vec![ForwardMethod::Nat, ForwardMethod::DirectRouting]);
    let thresholds = select(vec![(0, 0), (0, 0), (2, 0), (3, 1), (1, 2)]);
    (method, select(vec![0, 1, 1, 2, 5]), thresholds).prop_map(move |(forward, weight, (upper, lower))| {
        let mut config = ServerConfig::new(at, forward).weight(weight);
        (config.upper_threshold, config.lower_threshold) = (upper, lower);
        config
    })
}

fn command() -> impl Strategy<Value = Command> {
    select(SERVICES.to_vec()).prop_flat_map(|(service, _, servers)| {
        let key = key(service);
        let server = || select(servers.to_vec()).prop_map(|at| at.parse::<SocketAddr>().unwrap());
        let delete = server().prop_map(move |at| Command::DeleteServer(key, Endpoint::new(at.ip(), at.port())));
        let seconds = || select(vec![None, Some(Duration::from_secs(7)), Some(Duration::from_secs(200))]);
        prop_oneof![
            2 => service_config().prop_map(move |config| Command::AddService(key, config)),
            2 => service_config().prop_map(move |config| Command::EditService(key, config)),
            1 => Just(Command::DeleteService(key)),
            6 => server().prop_flat_map(server_config).prop_map(move |config| Command::AddServer(key, config)),
            4 => server().prop_flat_map(server_config).prop_map(move |config| Command::EditServer(key, config)),
            4 => delete,
            1 => (seconds(), seconds(), seconds())
                .prop_map(|(tcp, tcp_fin, udp)| Command::SetTimeouts { tcp, tcp_fin, udp }),
            2 => settings().prop_map(Command::SetSettings),
        ]
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    (any::<[bool; 3]>(), 0u8..4).prop_map(|([nodest, quiescent, sloppy], conn_reuse_mode)| {
        Settings::default().with(|settings| {
            settings.expire_nodest_conn = nodest;
            settings.expire_quiescent_template = quiescent;
            settings.sloppy_tcp = sloppy;
            settings.conn_reuse_mode = conn_reuse_mode;
        })
    })
}

fn request() -> impl Strategy<Value = Flow> {
    select(SERVICES.to_vec()).prop_flat_map(|((protocol, at), clients, _)| {
        let at: SocketAddr = at.parse().unwrap();
        let port = if at.port() == 0 { select(vec![22, 443, 9000]) } else { select(vec![at.port()]) };
        (select(clients.to_vec()), port, select(FLAGS.to_vec()), 0..20usize).prop_map(
            move |(client, port, flags, payload_len)| {
                let destination = SocketAddr::new(at.ip(), port);
                Flow { protocol, source: client.parse().unwrap(), destination, flags, payload_len }
            },
        )
    })
}

fn step() -> impl Strategy<Value = Step> {
    let of_some_flow = (any::<prop::sample::Index>(), any::<bool>(), select(FLAGS.to_vec()), 0..20usize);
    prop_oneof![
        3 => command().prop_map(Step::Command),
        6 => request().prop_map(Step::Packet),
        6 => of_some_flow.prop_map(|(index, is_reply, flags, payload_len)| {
            Step::OfSomeFlow { number: index.index(1 << 20), is_reply, flags, payload_len }
        }),
        2 => select(vec![1, 3, 9, 10, 59, 60, 61, 130, 400]).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..strategy::config() })]

    #[test]
    fn the_director_does_what_a_naive_one_does(steps in prop::collection::vec(step(), 1..150)) {
        let mut pair = Pair::new();
        steps.iter().for_each(|step| pair.step(step));
        // All that was begun ends.
        pair.step(&Step::Wait(2_000));
        prop_assert_eq!(pair.model.rows(), []);
    }

    #[test]
    fn those_give_way_who_give_way_with_a_naive_one(steps in prop::collection::vec(step(), 1..150)) {
        let mut pair = Pair::crowded();
        steps.iter().for_each(|step| pair.step(step));
        pair.step(&Step::Wait(2_000));
        prop_assert_eq!(pair.model.rows(), []);
    }
}

/// Keeps the generators honest: the runs meet every kind of outcome.
#[test]
fn random_runs_meet_every_outcome() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen = [0; OUTCOMES.len()];
    for _ in 0..20 {
        let steps = prop::collection::vec(step(), 150).new_tree(&mut runner).unwrap().current();
        let mut pair = Pair::new();
        steps.iter().for_each(|step| pair.step(step));
        seen.iter_mut().zip(pair.seen).for_each(|(all, of_run)| *all += of_run);
    }
    for (outcome, count) in OUTCOMES.iter().zip(seen) {
        assert!(count > 10, "{outcome}: {count} of {seen:?}");
    }
}
