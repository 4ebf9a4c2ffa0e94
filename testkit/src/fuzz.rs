//! What the fuzz targets do with their bytes, and what must hold whatever those are. Plain functions, so that the
//! committed corpora also run as ordinary tests.

mod batch;
mod fragments;
mod snapshot;
mod words;

use core::time::Duration;
use std::net::SocketAddr;

use lvs_core::local_address::LocalPorts;
use lvs_core::service::ClientAddress;
use lvs_core::service::{TunnelChecksum, TunnelConfig, TunnelKind};
use lvs_core::tunnel::{self, Accepts, Ending, Tunnel, TunnelEnd};
use lvs_core::wire::fragment;
use lvs_core::wire::parse::parse;
use lvs_core::{
    AddressFamily, ChecksumOffload, Command, Director, DirectorConfig, ForwardMethod, Gso, GsoKind, Instant, Offload,
    Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey, Settings, Side,
};

use crate::desk::hand_over;
pub use batch::batch_against_single;
pub use fragments::fragments;
pub use snapshot::snapshot;
pub use words::{arguments, rules};

use crate::{Storage, icmp_error, sctp, tcp, udp};

/// One packet of any bytes: no panic, `Drop` and `Pass` leave the bytes alone, `explain` agrees with `handle_packet`.
/// The first byte chooses settings; with bit 5, the next five are an offload context; the rest is the packet.
pub fn handle_packet(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    let (offload, packet) = match rest.split_first_chunk() {
        Some((context, packet)) if choice & 32 != 0 => (any_offload(context), packet),
        _ => (Offload::default(), rest),
    };
    let mut director = director();
    let settings = Settings::default().with(|settings| {
        settings.sloppy_tcp = choice & 1 != 0;
        settings.sloppy_sctp = choice & 2 != 0;
        settings.nat_icmp_send = choice & 4 != 0;
        settings.schedule_icmp = choice & 8 != 0;
        settings.cache_bypass = choice & 16 != 0;
    });
    director.apply(Instant::ZERO, &Command::SetSettings(settings)).expect("these settings are valid");
    offer(&mut director, Instant::from_secs(1), packet, offload, u32::from(choice >> 6));
    // Twice: the second one meets whatever the first one left.
    offer(&mut director, Instant::from_secs(2), packet, offload, u32::from(choice >> 6));
    drain(&mut director);
}

/// Any offload context, likely or not: where the checksum starts, where it goes, what kind of super-packet, its
/// segments.
fn any_offload([kind, start, offset, high, low]: &[u8; 5]) -> Offload {
    let checksum = match kind >> 7 {
        0 => ChecksumOffload::Full,
        _ => ChecksumOffload::Partial { start: u16::from(*start), offset: u16::from(*offset) },
    };
    let gso = [None, Some(GsoKind::TcpV4), Some(GsoKind::TcpV6), Some(GsoKind::Udp)][usize::from(kind % 4)];
    let size = u16::from_be_bytes([*high, *low]);
    Offload { checksum, gso: gso.map(|kind_of_packet| Gso { kind: kind_of_packet, size, ecn: kind & 4 != 0 }) }
}

/// Any bytes as a packet at the far end of a tunnel, and as one that enters a tunnel: no panic, a packet that is not
/// taken is left alone, and what goes in comes out. The first byte chooses the tunnel, the second the offload context.
pub fn decapsulate(data: &[u8]) {
    let [choice, offload, bytes @ ..] = data else { return };
    let checksum = match offload {
        0 => ChecksumOffload::Full,
        _ => ChecksumOffload::Partial { start: u16::from(offload >> 4) * 4 + 20, offset: u16::from(offload & 15) * 2 },
    };
    let offload = Offload { checksum, gso: None };
    let accepts = Accepts { ipip: true, gre: true, gue_port: Some(TUNNEL_PORT) };
    let mut storage = Storage::new(bytes).offload(offload);
    let mut packet = storage.packet();
    match tunnel::decapsulate(&mut packet, &accepts) {
        Ok(Some(_)) => assert!(parse(packet.bytes()).is_ok(), "what comes out is a packet"),
        Ok(None) | Err(_) => assert_eq!((packet.bytes(), packet.offload), (bytes, offload), "left alone"),
    }

    let mut storage = Storage::new(bytes).offload(offload);
    let mut packet = storage.packet();
    let Ok(headers) = parse(bytes) else { return };
    in_parts(bytes, accepts);
    let tunnel = any_tunnel(*choice);
    match tunnel::encapsulate(&mut packet, &headers, &tunnel) {
        Err(_) => assert_eq!((packet.bytes(), packet.offload), (bytes, offload), "left alone"),
        Ok(()) => {
            assert_eq!(tunnel::decapsulate(&mut packet, &accepts), Ok(Some(tunnel.config.kind)));
            assert_eq!((packet.bytes(), packet.offload), (&bytes[..headers.packet_len], offload), "it comes out again");
        }
    }
}

/// Any bytes at an end of tunnels that puts parts together, as they are and cut in three, in some order and again.
fn in_parts(bytes: &[u8], accepts: Accepts) {
    let addresses = VIPS.map(|vip| vip.parse::<SocketAddr>().expect("a constant").ip());
    let mut end = TunnelEnd::new(accepts, addresses.to_vec(), Seed::new(7));
    let mut parts = vec![bytes.to_vec()];
    let mut buffer = vec![0; bytes.len() + 48];
    let mtu = bytes.len() / 3 + 40;
    let _ = fragment::fragment(bytes, mtu, 1, &mut buffer, |part| parts.insert(0, part.to_vec()));
    let mut held = 0;
    for part in parts.iter().chain(&parts) {
        let mut storage = Storage::new(part);
        let mut packet = storage.packet();
        match end.handle_packet(Instant::ZERO, &mut packet) {
            Ending::Held => held += 1,
            Ending::TakenOut => assert!(parse(packet.bytes()).is_ok(), "what comes out is a packet"),
            Ending::Refused(_) => assert_eq!(packet.bytes(), part, "left alone"),
            Ending::NotOurs => {}
        }
    }
    while let Some(mut joined) = end.poll_joined() {
        assert!(parse(joined.packet().bytes()).is_ok(), "what comes out is a packet");
    }
    end.handle_timeout(Instant::from_secs(60));
    assert!(end.counters().parts_timed_out <= held, "no part is given up twice");
}

fn any_tunnel(choice: u8) -> Tunnel {
    let kind = [TunnelKind::Ipip, TunnelKind::Gre, TunnelKind::Gue][usize::from(choice % 3)];
    let checksum = [TunnelChecksum::None, TunnelChecksum::Full, TunnelChecksum::Remote][usize::from(choice / 3 % 3)];
    let ends = if choice & 128 != 0 { ["fd00::ff", "fd00::2"] } else { ["10.0.0.254", "10.0.0.2"] };
    let [source, destination] = ends.map(|address| address.parse().expect("a constant"));
    Tunnel::new(TunnelConfig { kind, port: TUNNEL_PORT, checksum }, source, destination)
}

/// A script: commands, well-formed and broken packets, waiting. At the end everything must run out by itself.
pub fn commands_and_packets(data: &[u8]) {
    let mut script = Script { bytes: data };
    let mut director = director();
    let mut now = Instant::from_secs(1);
    for _ in 0..STEPS_MAX {
        let Some(step) = script.next() else { break };
        match step % 8 {
            0 => {
                let command = script.command();
                let before = director.services(now);
                if director.apply(now, &command).is_err() {
                    assert_eq!(director.services(now), before, "a refused command changes nothing: {command:?}");
                }
            }
            1 => now = now + Duration::from_millis(u64::from(script.byte()) * 4),
            2 => now = now + Duration::from_secs(u64::from(script.byte()) * 4),
            3 => director.handle_timeout(now),
            4 => {
                let len = usize::from(script.byte());
                let bytes = script.take(len).to_vec();
                offer(&mut director, now, &bytes, Offload::default(), 0);
            }
            _ => {
                let packet = script.packet();
                let mark = u32::from(script.byte() % 4);
                offer(&mut director, now, &packet, Offload::default(), mark);
            }
        }
        let transmits = (0..256)
            .take_while(|_| director.poll_transmit(&mut Storage::with_room(&[], 64, 65_535).packet()).is_some());
        assert!(transmits.count() < 256, "poll_transmit ends");
        within_bounds(&director);
    }
    drain(&mut director);
}

/// Hands a packet over and checks what must hold for any.
fn offer(director: &mut Director, now: Instant, bytes: &[u8], offload: Offload, mark: u32) {
    hand_over(director, now, Storage::with_room(bytes, 64, 2048).offload(offload).mark(mark));
}

/// Whoever gives way, no table holds more than it may.
fn within_bounds(director: &Director) {
    let of = director.gauges();
    assert!(
        of.connections <= CONNECTIONS_MAX && of.half_open <= HALF_OPEN_MAX && of.templates <= TEMPLATES_MAX,
        "{of:?}"
    );
    assert!(of.half_open + of.unproven + of.expected <= of.connections, "{of:?}");
    assert!(of.templates_unproven <= of.templates && of.local_ports <= of.connections, "{of:?}");
}

/// Lets time pass until nothing is left, and checks that nothing is.
fn drain(director: &mut Director) {
    director.apply(Instant::ZERO, &Command::Flush).expect("flush always succeeds");
    let mut now = Instant::from_secs(1_000_000);
    for _ in 0..10_000 {
        director.handle_timeout(now);
        now = now + Duration::from_secs(61);
        if director.connections(now).next().is_none() {
            break;
        }
    }
    assert_eq!(director.connections(now).count(), 0, "every connection and template ends");
    assert!(director.local_ports(now).iter().all(|ports| ports.leased == 0), "every local port comes back");
    let of = director.gauges();
    let left =
        [of.connections, of.half_open, of.unproven, of.expected, of.templates, of.templates_unproven, of.local_ports];
    assert_eq!(left, [0; 7], "what was counted up is counted down: {of:?}");
}

const STEPS_MAX: usize = 200;
const CONNECTIONS_MAX: u32 = 24;
const TEMPLATES_MAX: u32 = 8;
const HALF_OPEN_MAX: u32 = 6;
const TUNNEL_PORT: u16 = 6080;

const VIPS: [&str; 7] = [
    "192.0.2.1:80",
    "192.0.2.1:0",
    "[2001:db8::1]:80",
    "192.0.2.2:53",
    "[2001:db8::2]:53",
    "192.0.2.3:53",
    "[2001:db8::3]:53",
];
const CLIENTS: [&str; 4] = ["198.51.100.1:1024", "198.51.100.1:1025", "[2001:db8:c::1]:1024", "198.51.100.2:20"];
const SERVERS: [&str; 4] = ["10.0.0.1:8080", "10.0.0.2:80", "[fd00::1]:8080", "10.0.0.3:0"];
/// Local addresses, with the first of their ports.
const LOCALS: [&str; 3] = ["10.0.0.200:2000", "10.0.0.201:2000", "[fd00::200]:2000"];
const LOCAL_PORTS: u16 = 3;
const CLIENT_ADDRESSES: [ClientAddress; 5] =
    [ClientAddress::None, ClientAddress::Toa, ClientAddress::Uoa, ClientAddress::ProxyV1, ClientAddress::ProxyV2];
/// What helpers and persistence engines understand, said instead of payloads from this length on.
const TEXTS_FROM: usize = 240;
const TEXTS: [&[u8]; 8] = [
    b"PASV\r\n",
    b"227 (10,0,0,1,4,1)\r\n",
    b"EPSV\r\n",
    b"229 (|1|10.0.0.1|1025|)\r\n",
    b"PORT 198,51,100,1,4,1\r\n",
    b"EPRT |2|2001:db8:c::1|1025|\r\n",
    b"X\r\nCall-ID: a@b\r\n",
    b"X\r\ni: c\r\n",
];
const SCHEDULERS: [&str; 8] = ["rr", "wrr", "wlc", "sh", "mh", "lblc", "nope", "none"];

fn director() -> Director {
    director_of(config())
}

fn config() -> DirectorConfig {
    let client_side = Side::default().with(|side| {
        side.mtu = 1500;
        side.ipv4 = "203.0.113.254".parse().ok();
        side.ipv6 = "2001:db8:ffff::1".parse().ok();
    });
    let server_side = Side::default().with(|side| {
        side.mtu = 1400;
        side.ipv4 = "10.0.0.254".parse().ok();
        side.ipv6 = "fd00::ff".parse().ok();
    });
    DirectorConfig::default().with(|config| {
        config.client_side = client_side;
        config.server_side = server_side;
        config.connections_max = CONNECTIONS_MAX;
        config.templates_max = TEMPLATES_MAX;
        config.fragments_max = 8;
        config.client_endpoint_max = 8;
        config.half_open_max = HALF_OPEN_MAX;
        config.client_templates_max = 4;
        config.expectations_max = 2;
        config.local_ports = LocalPorts::default().with(|ports| {
            ports.first = 2000;
            ports.last = 1999 + LOCAL_PORTS;
            ports.client_max = 2;
        });
    })
}

/// A director of this configuration with services of every kind.
fn director_of(config: DirectorConfig) -> Director {
    let mut director = Director::new(config, Seed::new(7));
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        for (vip, server) in [(VIPS[0], SERVERS[0]), (VIPS[2], SERVERS[2])] {
            let key = ServiceKey::address(protocol, vip.parse().expect("a constant"));
            apply(&mut director, &Command::AddService(key, ServiceConfig::new("rr").helper("ftp")));
            let server = ServerConfig::nat(server.parse().expect("a constant"));
            apply(&mut director, &Command::AddServer(key, server));
        }
        // Full NAT, the second one from IPv6 to IPv4.
        for (vip, kind) in [(VIPS[3], ClientAddress::Toa), (VIPS[4], ClientAddress::ProxyV2)] {
            let key = ServiceKey::address(protocol, vip.parse().expect("a constant"));
            let mut config = ServiceConfig::new("rr");
            config.full_nat.client_address = kind;
            apply(&mut director, &Command::AddService(key, config));
            let local: SocketAddr = LOCALS[0].parse().expect("a constant");
            apply(&mut director, &Command::AddLocalAddress(key, local.ip()));
            let server = ServerConfig::full_nat(SERVERS[0].parse().expect("a constant"));
            apply(&mut director, &Command::AddServer(key, server));
        }
    }
    // Direct routing, of the same addresses.
    for protocol in [Protocol::Tcp, Protocol::Sctp] {
        for (vip, server) in [(VIPS[5], SERVERS[1]), (VIPS[6], SERVERS[2])] {
            let key = ServiceKey::address(protocol, vip.parse().expect("a constant"));
            apply(&mut director, &Command::AddService(key, ServiceConfig::new("rr")));
            let server = ServerConfig::new(server.parse().expect("a constant"), ForwardMethod::DirectRouting);
            apply(&mut director, &Command::AddServer(key, server));
        }
    }
    for (vip, server, choice) in [(VIPS[5], SERVERS[1], 0), (VIPS[6], SERVERS[1], 5)] {
        let key = ServiceKey::address(Protocol::Udp, vip.parse().expect("a constant"));
        apply(&mut director, &Command::AddService(key, ServiceConfig::new("rr")));
        let mut server = ServerConfig::new(server.parse().expect("a constant"), ForwardMethod::Tunnel);
        server.tunnel = any_tunnel(choice).config;
        apply(&mut director, &Command::AddServer(key, server));
    }
    director
}

fn apply(director: &mut Director, command: &Command) {
    director.apply(Instant::ZERO, command).expect("a valid command");
}

/// Reads choices from bytes; zero once they are used up.
struct Script<'a> {
    bytes: &'a [u8],
}

impl Script<'_> {
    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    fn take(&mut self, len: usize) -> &[u8] {
        let (taken, rest) = self.bytes.split_at(len.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }

    fn address(&mut self, from: &[&str]) -> SocketAddr {
        self.pick(from).parse().expect("the lists hold addresses")
    }

    fn service(&mut self) -> ServiceKey {
        let protocol = self.pick(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
        match self.byte() % 4 {
            0 => {
                let family = self.pick(&[AddressFamily::Ipv4, AddressFamily::Ipv6]);
                ServiceKey::FwMark { family, mark: u32::from(self.byte() % 3) }
            }
            _ => ServiceKey::address(protocol, self.address(&VIPS)),
        }
    }

    fn server(&mut self) -> ServerConfig {
        let at = self.address(&SERVERS);
        let forward = self.pick(&[
            ForwardMethod::Nat,
            ForwardMethod::Nat,
            ForwardMethod::DirectRouting,
            ForwardMethod::Tunnel,
            ForwardMethod::Local,
            ForwardMethod::FullNat,
            ForwardMethod::FullNat,
        ]);
        let mut server = ServerConfig::new(at, forward).weight(u32::from(self.byte() % 4));
        if forward == ForwardMethod::Tunnel {
            server.tunnel = any_tunnel(self.byte()).config;
        }
        server.upper_threshold = u32::from(self.byte() % 4);
        server.lower_threshold = u32::from(self.byte() % 3);
        server
    }

    fn command(&mut self) -> Command {
        let service = self.service();
        match self.byte() % 12 {
            0 | 1 => {
                let mut config = ServiceConfig::new(self.pick(&SCHEDULERS));
                config.persistence_timeout_s = self.pick(&[None, Some(1), Some(300)]);
                config.full_nat.client_address = self.pick(&CLIENT_ADDRESSES);
                let more = self.byte();
                config.one_packet = more.is_multiple_of(4);
                config.persistence_engine = (more % 16 >= 12).then(|| "sip".into());
                config.helper = (more % 32 >= 16).then(|| "ftp".into());
                let is_new = self.byte().is_multiple_of(2);
                if is_new { Command::AddService(service, config) } else { Command::EditService(service, config) }
            }
            2 => Command::DeleteService(service),
            3 | 4 => Command::AddServer(service, self.server()),
            5 => Command::EditServer(service, self.server()),
            6 => Command::DeleteServer(service, self.server().key),
            7 => Command::Zero(Some(service)),
            8 => Command::SetServerFactor { service, server: self.server().key, factor: u32::from(self.byte()) * 16 },
            9 | 10 => Command::AddLocalAddress(service, self.address(&LOCALS).ip()),
            11 if self.byte().is_multiple_of(2) => Command::DeleteLocalAddress(service, self.address(&LOCALS).ip()),
            _ => {
                let choice = self.byte();
                Command::SetSettings(Settings::default().with(|settings| {
                    settings.expire_nodest_conn = choice & 1 != 0;
                    settings.expire_quiescent_template = choice & 2 != 0;
                    settings.sloppy_tcp = choice & 4 != 0;
                    settings.conn_reuse_mode = (choice >> 3) & 3;
                    settings.schedule_icmp = choice & 32 != 0;
                    settings.nat_icmp_send = choice & 64 != 0;
                    settings.cache_bypass = choice & 128 != 0;
                }))
            }
        }
    }

    /// A packet from a client to a virtual address, or from a server to a client, sometimes a fragment.
    fn packet(&mut self) -> Vec<u8> {
        let (client, vip, server) = (self.address(&CLIENTS), self.address(&VIPS), self.address(&SERVERS));
        let local = self.address(&LOCALS);
        let (source, destination) = match self.byte() % 4 {
            0 => (server, client),
            1 => {
                let port = local.port() + u16::from(self.byte()) % LOCAL_PORTS;
                (SERVERS[0].parse().expect("a constant"), SocketAddr::new(local.ip(), port))
            }
            _ => (client, vip),
        };
        if source.is_ipv4() != destination.is_ipv4() {
            return Vec::new();
        }
        let flags = self.byte();
        let builder = match self.byte() % 4 {
            0 => tcp(source, destination).flags(flags).tcp_options(self.take(usize::from(flags % 40))),
            1 => udp(source, destination),
            2 => {
                // Somebody on the way to the packet's destination could not pass it on.
                let quoted = tcp(destination, source).flags(flags).payload_len(8).build();
                icmp_error(source, flags % 16, self.byte() % 16, u32::from(self.byte()) * 16, &quoted)
            }
            _ => sctp(source, destination).chunk(flags % 16, &[0; 16]),
        };
        let builder = match usize::from(self.byte()) {
            0..128 => builder,
            len @ ..TEXTS_FROM => builder.payload_len(len * 8 - 1024),
            number => builder.payload(TEXTS[number % TEXTS.len()]),
        };
        let builder = builder.hop_limit(self.byte() % 8);
        match self.byte() % 4 {
            0 => {
                let parts = builder.fragments(64);
                let index = usize::from(self.byte()) % parts.len().max(1);
                parts.into_iter().nth(index).unwrap_or_default()
            }
            _ => builder.build(),
        }
    }
}
