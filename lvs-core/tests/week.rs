//! A week of random traffic, commands and defences in virtual time. Afterwards nothing is left: no connection,
//! template, fragment or deleted server, and every count of every server back at zero.

use std::net::SocketAddr;
use std::time::Duration;

use lvs_core::rng::Rng;
use lvs_core::service::SlowStart;
use lvs_core::view::Gauges;
use lvs_core::{
    AfterDrain, Command, DirectorConfig, ForwardMethod, HalfOpenPolicy, Protocol, Seed, ServerConfig, ServiceConfig,
    ServiceKey,
};
use lvs_testkit::{Desk, icmp_error, sctp, tcp, udp};

const DAY: Duration = Duration::from_secs(86_400);
const SERVICES: [(Protocol, &str); 7] = [
    (Protocol::Tcp, "192.0.2.80:80"),
    (Protocol::Tcp, "192.0.2.80:443"),
    (Protocol::Udp, "192.0.2.80:53"),
    (Protocol::Udp, "192.0.2.80:514"),
    (Protocol::Sctp, "192.0.2.80:3868"),
    (Protocol::Tcp, "192.0.2.81:0"),
    (Protocol::Tcp, "[2001:db8::80]:80"),
];

/// What happens, chosen at random.
struct Life {
    desk: Desk,
    random: Rng,
}

impl Life {
    fn new(seed: u64) -> Self {
        let config = DirectorConfig::default().with(|config| {
            config.connections_max = 200;
            config.templates_max = 60;
            config.fragments_max = 16;
            config.half_open_max = 60;
            config.half_open_policy = HalfOpenPolicy::EvictOldest;
        });
        let mut life = Self { desk: Desk::bare(config), random: Rng::new(Seed::new(seed)) };
        for service in 0..SERVICES.len() {
            life.command(Command::AddService(key(service), ServiceConfig::new("wlc")));
            (0..3).for_each(|number| life.command(Command::AddServer(key(service), server(service, number))));
        }
        life
    }

    fn below(&mut self, count: u32) -> u32 {
        self.random.up_to(count - 1)
    }

    /// A command may be refused: what exists is left to chance.
    fn command(&mut self, command: Command) {
        let _ = self.desk.director.apply(self.desk.now, &command);
    }

    fn packet(&mut self, bytes: &[u8]) {
        self.desk.feed(bytes);
    }

    fn some_client(&mut self, service: usize) -> SocketAddr {
        let (host, port) = (self.below(40) as u16, 1024 + self.below(8) as u16);
        match SERVICES[service].1.starts_with('[') {
            true => SocketAddr::from(([0x2001, 0xdb8, 12, 0, 0, 0, 0, host], port)),
            false => SocketAddr::from(([198, 51, 100, host as u8], port)),
        }
    }

    /// One packet: a client's, or some connection's next one from either side.
    fn traffic(&mut self) {
        let service = self.below(SERVICES.len() as u32) as usize;
        let (protocol, at) = SERVICES[service];
        let at: SocketAddr = at.parse().unwrap();
        let (mut source, mut target) = (self.some_client(service), at);
        if at.port() == 0 {
            target.set_port(8000 + self.below(3) as u16);
        }
        let mut protocol = protocol;
        let rows = self.desk.connections();
        if self.below(3) > 0 && !rows.is_empty() {
            let row = &rows[self.below(rows.len() as u32) as usize];
            protocol = row.protocol.unwrap_or(protocol);
            let socket = |end: lvs_core::Endpoint| SocketAddr::new(end.address, end.port);
            let answering = if row.forward == ForwardMethod::Nat { row.real } else { row.virtual_endpoint };
            (source, target) = match self.below(2) {
                0 => (socket(row.client), socket(row.virtual_endpoint)),
                _ => (socket(answering), socket(row.client)),
            };
        }
        let flags = [0x02, 0x10, 0x10, 0x12, 0x11, 0x04][self.below(6) as usize];
        let chunk = [0, 1, 2, 6, 7, 8, 10, 11, 14][self.below(9) as usize];
        let identification = self.below(50);
        let packet = match protocol {
            Protocol::Tcp => tcp(source, target).flags(flags),
            Protocol::Udp => udp(source, target).payload_len(40),
            Protocol::Sctp => sctp(source, target).chunk(chunk, b"12345678"),
        };
        match self.below(12) {
            0 => {
                let parts = packet.identification(identification).payload_len(64).fragments(32);
                let part = self.below(parts.len() as u32) as usize;
                self.packet(&parts[part]);
            }
            1 => {
                let quoted = packet.build();
                let (error_type, router) = if source.is_ipv6() { (1, "fd00::fe") } else { (3, "10.0.0.254") };
                self.packet(&icmp_error(router, error_type, 1, 0, &quoted).build());
            }
            _ => self.packet(&packet.build()),
        }
        while self.desk.transmit().is_some() {}
    }

    /// One change by an operator.
    fn change(&mut self) {
        let service = self.below(SERVICES.len() as u32) as usize;
        let number = self.below(4);
        let (key, mut server) = (key(service), server(service, number));
        let name = server.key;
        let mode = self.below(4) as u8;
        match self.below(12) {
            0 | 1 => self.command(Command::DeleteServer(key, name)),
            2..=4 => {
                server.weight = self.below(5);
                server.upper_threshold = self.below(3) * 8;
                self.command(Command::AddServer(key, server.clone()));
                self.command(Command::EditServer(key, server));
            }
            5 => {
                let deadline = Duration::from_secs(self.below(600).into());
                let then = if mode < 2 { AfterDrain::Reset } else { AfterDrain::Silence };
                self.command(Command::Drain { service: key, server: name, deadline, then });
            }
            6 => {
                let factor = self.below(3) * 1024;
                self.command(Command::SetServerFactor { service: key, server: name, factor });
            }
            7 | 8 => {
                let mut config = ServiceConfig::new(["rr", "wrr", "wlc", "sh", "lblc"][self.below(5) as usize]);
                config.persistence_timeout_s = (mode < 2).then_some(900);
                config.one_packet = mode == 3;
                config.slow_start = (number == 1).then_some(SlowStart {
                    window: Duration::from_secs(300),
                    min_share: 100,
                    aggression: 1024,
                });
                self.command(Command::EditService(key, config));
            }
            9 => {
                self.command(Command::DeleteService(key));
                self.command(Command::AddService(key, ServiceConfig::new("rr")));
            }
            _ => self.settings(mode),
        }
    }

    fn settings(&mut self, mode: u8) {
        let which = self.below(6);
        self.desk.set(|settings| match which {
            0 => settings.drop_entry = mode,
            1 => settings.drop_packet = mode,
            2 => settings.secure_tcp = mode,
            3 => settings.expire_nodest_conn = mode > 1,
            4 => settings.schedule_icmp = mode > 1,
            _ => settings.sloppy_tcp = mode > 1,
        });
    }
}

fn key(service: usize) -> ServiceKey {
    let (protocol, at) = SERVICES[service];
    ServiceKey::address(protocol, at.parse().unwrap())
}

fn server(service: usize, number: u32) -> ServerConfig {
    let at: SocketAddr = SERVICES[service].1.parse().unwrap();
    let address = if at.is_ipv6() { format!("fd00::{}", number + 2) } else { format!("10.0.0.{}", number + 2) };
    let forward = if number == 3 { ForwardMethod::DirectRouting } else { ForwardMethod::Nat };
    ServerConfig::new(SocketAddr::new(address.parse().unwrap(), at.port()), forward)
}

#[test]
fn after_a_week_of_random_traffic_and_the_last_timeout_nothing_is_left() {
    let mut life = Life::new(7);
    let end = life.desk.now + 7 * DAY;
    let (mut busiest, mut packets) = (Gauges::default(), 0);
    while life.desk.now < end {
        // Bursts, then a pause of up to four minutes.
        for _ in 0..life.below(150) {
            life.traffic();
            packets += 1;
        }
        if life.below(4) == 0 {
            life.change();
        }
        let gauges = life.desk.director.gauges();
        busiest.connections = busiest.connections.max(gauges.connections);
        busiest.half_open = busiest.half_open.max(gauges.half_open);
        busiest.templates = busiest.templates.max(gauges.templates);
        busiest.fragments = busiest.fragments.max(gauges.fragments);
        busiest.deleted_servers = busiest.deleted_servers.max(gauges.deleted_servers);
        let pause = Duration::from_millis(u64::from(life.below(240_000)));
        life.desk.pass(pause);
        life.desk.events();
    }
    assert!(packets > 100_000, "{packets}");
    assert!(busiest.connections > 60 && busiest.half_open > 10 && busiest.templates > 30, "{busiest:?}");
    assert!(busiest.fragments > 8 && busiest.deleted_servers > 4, "{busiest:?}");

    let seconds = |seconds| Duration::from_secs(seconds);
    life.desk.set(|settings| {
        (settings.drop_entry, settings.drop_packet, settings.secure_tcp) = (0, 0, 0);
        settings.run_estimation = false;
    });
    life.desk.pass(seconds(3_600));
    assert_eq!(life.desk.director.gauges(), Gauges::default());
    assert_eq!(life.desk.director.connections(life.desk.now).count(), 0);
    for service in life.desk.director.services(life.desk.now) {
        for server in service.servers {
            let counts = (server.active_connections, server.inactive_connections, server.persistent_connections);
            assert_eq!((counts, server.is_overloaded), ((0, 0, 0), false), "{:?}", server.config.key);
        }
    }
    assert_eq!(life.desk.director.poll_timeout(), None);
}
