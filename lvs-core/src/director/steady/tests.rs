//! Two directors in the same traffic, one of which never takes the steady path: they must agree in every verdict, byte,
//! count, view and event.

use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::command::{AfterDrain, Command};
use crate::director::DirectorConfig;
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::packet::{ChecksumOffload, HEADROOM};
use crate::rng::Seed;
use crate::service::{ServerConfig, ServiceConfig, ServiceKey, ServiceTimeouts, TunnelKind};
use crate::settings::Settings;
use crate::view::ConnectionView;
use crate::wire::{checksum, ipv4, ipv6, write_u16};
use crate::{Director, Side};

#[derive(Clone, Debug)]
enum Step {
    /// A packet from a client to a service, both by number.
    Request(usize, u16, Shape),
    /// A packet from the server of some connection.
    Reply(usize, Shape),
    Wait(u64),
    Command(usize, Change),
}

/// What a packet is like apart from its ends.
#[derive(Clone, Copy, Debug)]
struct Shape {
    flags: u8,
    payload_len: usize,
    hop_limit: u8,
    padding: usize,
    numbers: (u32, u32),
    oddity: Oddity,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Oddity {
    None,
    WrongIpChecksum,
    WrongTransportChecksum,
    NoUdpChecksum,
    Fragment,
    IpOptions,
    LeftToDevice,
    Timestamps,
    OtherOptions,
    ShortDataOffset,
    LongDataOffset,
    UdpLength,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Weight(u32),
    Mtu(Option<u16>),
    Timeouts(Option<u64>),
    DeleteServer,
    AddServer,
    Drain,
    SetTimeouts(u64),
    SecureTcp(u8),
    NatIcmpSend(bool),
    ExpireNodest(bool),
}

/// Protocol, virtual endpoint, server, method.
type Row = (Protocol, &'static str, &'static str, ForwardMethod);

const SERVICES: [Row; 13] = [
    (Protocol::Tcp, "192.0.2.1:80", "10.0.0.2:8080", ForwardMethod::Nat),
    (Protocol::Udp, "192.0.2.1:53", "10.0.0.2:5353", ForwardMethod::Nat),
    (Protocol::Tcp, "192.0.2.2:80", "10.0.0.3:80", ForwardMethod::DirectRouting),
    (Protocol::Tcp, "192.0.2.3:80", "10.0.0.4:80", ForwardMethod::Tunnel),
    (Protocol::Udp, "192.0.2.3:53", "[fd00::4]:53", ForwardMethod::Tunnel),
    (Protocol::Tcp, "192.0.2.4:80", "10.0.0.5:8080", ForwardMethod::FullNat),
    (Protocol::Tcp, "192.0.2.5:80", "10.0.0.254:8080", ForwardMethod::Nat), // the director's own host
    (Protocol::Tcp, "[2001:db8::1]:80", "[fd00::2]:8080", ForwardMethod::Nat),
    (Protocol::Udp, "[2001:db8::1]:53", "[fd00::2]:53", ForwardMethod::DirectRouting),
    (Protocol::Tcp, "[2001:db8::2]:80", "10.0.0.6:80", ForwardMethod::Tunnel),
    (Protocol::Tcp, "[2001:db8::3]:80", "[fd00::5]:80", ForwardMethod::FullNat),
    (Protocol::Tcp, "192.0.2.6:80", "10.0.0.7:8080", ForwardMethod::FullNat), // PROXY
    (Protocol::Tcp, "192.0.2.7:80", "10.0.0.8:8080", ForwardMethod::FullNat), // TOA
];

/// The two directors.
struct Pair {
    steady: Director,
    general: Director,
    now: Instant,
    /// How many packets of which method took the steady path, requests and replies.
    taken: [[u32; 2]; SERVICES.len()],
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self {
            steady: director(),
            general: director(),
            now: Instant::from_secs(10),
            taken: [[0; 2]; SERVICES.len()],
        };
        for (number, (protocol, at, ..)) in SERVICES.into_iter().enumerate() {
            let mut config = ServiceConfig::new("rr");
            if number % 4 == 1 {
                config = config.persistent(60);
            }
            config.full_nat.client_address = client_address(number);
            pair.command(&Command::AddService(key(protocol, at), config));
            let local = if endpoint(at).address.is_ipv4() { "10.0.0.200" } else { "fd00::200" };
            pair.command(&Command::AddLocalAddress(key(protocol, at), local.parse().unwrap()));
            pair.change(number, Change::AddServer);
        }
        pair
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Request(service, client, shape) => {
                let (protocol, at, ..) = SERVICES[service % SERVICES.len()];
                let to = endpoint(at);
                let client = match AddressFamily::of(to.address) {
                    AddressFamily::Ipv4 => Endpoint::new([198, 51, 100, 7].into(), 1024 + client),
                    AddressFamily::Ipv6 => Endpoint::new([0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7].into(), 1024 + client),
                };
                self.send(packet(protocol, client, to, *shape), shape.oddity, (service % SERVICES.len(), 0));
            }
            Step::Reply(number, shape) => {
                let views = connections(&self.steady, self.now);
                let Some(view) = views.get(number % views.len().max(1)).filter(|view| !view.is_template) else {
                    return;
                };
                let (from, to) = match view.forward {
                    ForwardMethod::Nat => (view.real, view.client),
                    ForwardMethod::FullNat => (view.real, view.local.unwrap()),
                    _ => (view.virtual_endpoint, view.client),
                };
                let is_its = |row: &Row| endpoint(row.1) == view.virtual_endpoint;
                let service = SERVICES.iter().position(is_its).unwrap();
                let mut shape = *shape;
                let found =
                    self.steady.flows.connections.find_full_nat_reply(self.now, view.protocol.unwrap(), from, to);
                if let Some(translation) = found.and_then(|id| self.steady.flows.full_nat.translation(id)) {
                    let is_syn = shape.flags & 2 != 0;
                    let (client, server) = if is_syn { (1000, 2000) } else { shape.numbers };
                    let at_server = translation.to_server(client, client == 1000).wrapping_add(u32::from(is_syn));
                    shape.numbers =
                        (server, at_server.wrapping_add((client == 1002) as u32 * translation.preamble_len));
                }
                self.send(packet(view.protocol.unwrap(), from, to, shape), shape.oddity, (service, 1));
            }
            Step::Wait(millis) => {
                self.now = self.now + Duration::from_millis(*millis);
                self.steady.handle_timeout(self.now);
                self.general.handle_timeout(self.now);
            }
            Step::Command(service, change) => self.change(service % SERVICES.len(), *change),
        }
        self.compare();
    }

    fn send(&mut self, bytes: Vec<u8>, oddity: Oddity, (service, direction): (usize, usize)) {
        let mut storages = [(); 2].map(|()| [&[0; HEADROOM][..], &bytes, &[0; HEADROOM]].concat());
        let [mut tried, mut plain] = storages.each_mut().map(|storage| {
            let mut packet = PacketBuf::new(storage, HEADROOM, bytes.len());
            if oddity == Oddity::LeftToDevice {
                packet.offload.checksum = ChecksumOffload::Partial { start: 20, offset: 16 };
            }
            packet
        });
        let now = self.steady.clock.advance(self.now);
        let verdict = match self.steady.steady(now, &mut tried, FlowHashes::default()) {
            Some(verdict) => {
                self.taken[service][direction] += 1;
                verdict
            }
            None => {
                assert_eq!(tried.bytes(), bytes, "whoever declines has changed nothing");
                self.steady.handle_any(now, &mut tried)
            }
        };
        let now = self.general.clock.advance(self.now);
        assert_eq!(self.general.handle_any(now, &mut plain), verdict);
        assert_eq!(tried.bytes(), plain.bytes());
        assert_eq!((tried.start(), tried.offload), (plain.start(), plain.offload));
    }

    fn command(&mut self, command: &Command) {
        let outcomes = [&mut self.steady, &mut self.general].map(|director| director.apply(self.now, command).is_ok());
        assert_eq!(outcomes[0], outcomes[1]);
    }

    fn change(&mut self, service: usize, change: Change) {
        let (protocol, at, server, forward) = SERVICES[service];
        let (key, at) = (key(protocol, at), server.parse().unwrap());
        let mut config = ServerConfig::new(at, forward);
        (config.tunnel.kind, config.tunnel.port) = match service {
            3 => (TunnelKind::Gre, 0),
            9 => (TunnelKind::Gue, 6080),
            _ => (TunnelKind::Ipip, 0),
        };
        let mut settings = Settings { ..self.steady.settings().clone() };
        let command = match change {
            Change::Weight(weight) => Command::EditServer(key, config.weight(weight)),
            Change::Mtu(mtu) => Command::EditServer(key, ServerConfig { mtu, ..config }),
            Change::Timeouts(seconds) => {
                let all = seconds.map(Duration::from_secs);
                let timeouts = seconds.map(|_| ServiceTimeouts { tcp: all, tcp_fin: all, udp: all });
                let mut config = ServiceConfig { timeouts, ..ServiceConfig::new("rr") };
                config.full_nat.client_address = client_address(service);
                Command::EditService(key, config)
            }
            Change::DeleteServer => Command::DeleteServer(key, config.key),
            Change::AddServer => Command::AddServer(key, config),
            Change::Drain => Command::Drain {
                service: key,
                server: config.key,
                deadline: Duration::from_secs(5),
                then: AfterDrain::Reset,
            },
            Change::SetTimeouts(seconds) => {
                let all = Some(Duration::from_secs(seconds));
                Command::SetTimeouts { tcp: all, tcp_fin: all, udp: all }
            }
            Change::SecureTcp(mode) => {
                settings.secure_tcp = mode;
                Command::SetSettings(settings)
            }
            Change::NatIcmpSend(is_on) => {
                settings.nat_icmp_send = is_on;
                Command::SetSettings(settings)
            }
            Change::ExpireNodest(is_on) => {
                settings.expire_nodest_conn = is_on;
                Command::SetSettings(settings)
            }
        };
        self.command(&command);
    }

    fn compare(&mut self) {
        let (steady, general, now) = (&mut self.steady, &mut self.general, self.now);
        assert_eq!(connections(steady, now), connections(general, now));
        assert_eq!(steady.services(now), general.services(now));
        assert_eq!(steady.statistics(), general.statistics());
        assert_eq!(steady.outlet.drops, general.outlet.drops);
        assert_eq!(steady.gauges(), general.gauges());
        assert_eq!(steady.poll_timeout(), general.poll_timeout());
        assert_eq!(steady.outlet.answers, general.outlet.answers);
        let mut next = || (steady.poll_event(), general.poll_event());
        while let (Some(event), other) = next() {
            assert_eq!(Some(event), other);
        }
    }
}

fn connections(director: &Director, now: Instant) -> Vec<ConnectionView> {
    director.connections(now).collect()
}

fn director() -> Director {
    let side = |v4: &str, v6: &str| Side { mtu: 1500, ipv4: v4.parse().ok(), ipv6: v6.parse().ok() };
    let config = DirectorConfig {
        client_side: side("203.0.113.254", "2001:db8:ffff::1"),
        server_side: side("10.0.0.254", "fd00::ff"),
        ..DirectorConfig::default()
    };
    Director::new(config, Seed::new(1))
}

fn client_address(service: usize) -> crate::service::ClientAddress {
    match service {
        11 => crate::service::ClientAddress::ProxyV2,
        12 => crate::service::ClientAddress::Toa,
        _ => crate::service::ClientAddress::None,
    }
}

fn endpoint(at: &str) -> Endpoint {
    let at: core::net::SocketAddr = at.parse().unwrap();
    Endpoint::new(at.ip(), at.port())
}

fn key(protocol: Protocol, at: &str) -> ServiceKey {
    ServiceKey::address(protocol, at.parse().unwrap())
}

fn packet(protocol: Protocol, source: Endpoint, destination: Endpoint, shape: Shape) -> Vec<u8> {
    let mut segment = [source.port.to_be_bytes(), destination.port.to_be_bytes()].concat();
    match protocol {
        Protocol::Udp if shape.oddity == Oddity::UdpLength => segment.extend([1, 0, 0, 0]),
        Protocol::Udp => segment.extend([0, 8 + shape.payload_len as u8, 0, 0]),
        _ => {
            let offset = match shape.oddity {
                Oddity::Timestamps | Oddity::OtherOptions => 0x80,
                Oddity::ShortDataOffset => 0x40,
                Oddity::LongDataOffset => 0xf0,
                _ => 0x50,
            };
            segment.extend(shape.numbers.0.to_be_bytes());
            segment.extend(shape.numbers.1.to_be_bytes());
            segment.extend([offset, shape.flags, 0x40, 0, 0, 0, 0, 7]);
            match shape.oddity {
                Oddity::Timestamps => segment.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]),
                Oddity::OtherOptions => segment.extend([1, 1, 5, 10, 0, 0, 3, 0xf0, 0, 0, 4, 0xf0]),
                _ => {}
            }
        }
    }
    segment.extend((0..shape.payload_len).map(|n| n as u8));
    let checksum = checksum::transport_checksum(source.address, destination.address, protocol.number(), &segment);
    let field = if protocol == Protocol::Udp { 6 } else { 16 };
    let checksum = match shape.oddity {
        Oddity::NoUdpChecksum if protocol == Protocol::Udp => 0,
        Oddity::WrongTransportChecksum => checksum ^ 0x0101,
        _ => checksum,
    };
    write_u16(&mut segment, field, checksum);
    let mut bytes = Vec::new();
    match (source.address, destination.address) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes.resize(ipv4::HEADER_LEN, 0);
            let header = ipv4::Header {
                traffic_class: 0,
                total_len: (ipv4::HEADER_LEN + segment.len()) as u16,
                identification: 7,
                dont_fragment: shape.flags & 0x20 == 0,
                hop_limit: shape.hop_limit,
                protocol: protocol.number(),
                source,
                destination,
            };
            ipv4::write_header(bytes.first_chunk_mut().unwrap(), &header);
            match shape.oddity {
                Oddity::WrongIpChecksum => bytes[10] ^= 1,
                Oddity::Fragment => bytes[6] |= 0x20,
                Oddity::IpOptions => {
                    bytes.extend([1, 1, 1, 0]);
                    bytes[0] = 0x46;
                    bytes[3] += 4;
                }
                _ => {}
            }
            if matches!(shape.oddity, Oddity::Fragment | Oddity::IpOptions) {
                let header_len = bytes.len();
                ipv4::recompute_checksum(&mut bytes, header_len);
            }
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            bytes.resize(ipv6::HEADER_LEN, 0);
            let header = ipv6::Header {
                traffic_class: 0,
                payload_len: segment.len() as u16,
                next_header: protocol.number(),
                hop_limit: shape.hop_limit,
                source,
                destination,
            };
            ipv6::write_header(bytes.first_chunk_mut().unwrap(), &header);
        }
        _ => unreachable!("both ends are of one family"),
    }
    bytes.extend(segment);
    bytes.extend(core::iter::repeat_n(0xee, shape.padding));
    bytes
}

fn shape() -> impl Strategy<Value = Shape> {
    const ACK: u8 = 0x10;
    let flags = select([ACK, ACK, ACK, 0x18, 0x30, 0x02, 0x12, 0x11, 0x04, 0x00].to_vec());
    let oddities = select(
        [
            Oddity::WrongIpChecksum,
            Oddity::WrongTransportChecksum,
            Oddity::NoUdpChecksum,
            Oddity::Fragment,
            Oddity::IpOptions,
            Oddity::LeftToDevice,
            Oddity::Timestamps,
            Oddity::OtherOptions,
            Oddity::ShortDataOffset,
            Oddity::LongDataOffset,
            Oddity::UdpLength,
        ]
        .to_vec(),
    );
    let oddity = prop_oneof![4 => Just(Oddity::None), 2 => oddities];
    let numbers = (select([1000, 1001, 1001, 1002, 5000].to_vec()), select([2000, 2001, 2001, 2010].to_vec()));
    let hop_limit = select([64, 64, 64, 2, 1, 0].to_vec());
    (flags, select([0, 1, 9, 200].to_vec()), hop_limit, select([0, 0, 6].to_vec()), numbers, oddity).prop_map(
        |(flags, payload_len, hop_limit, padding, numbers, oddity)| Shape {
            flags,
            payload_len,
            hop_limit,
            padding,
            numbers,
            oddity,
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        select([0, 1, 3].to_vec()).prop_map(Change::Weight),
        select([None, Some(120), Some(1400)].to_vec()).prop_map(Change::Mtu),
        select([None, Some(7), Some(2000)].to_vec()).prop_map(Change::Timeouts),
        Just(Change::DeleteServer),
        Just(Change::AddServer),
        Just(Change::AddServer),
        Just(Change::Drain),
        select([7, 2000].to_vec()).prop_map(Change::SetTimeouts),
        select([0, 3].to_vec()).prop_map(Change::SecureTcp),
        any::<bool>().prop_map(Change::NatIcmpSend),
        any::<bool>().prop_map(Change::ExpireNodest),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..SERVICES.len(), 0..3u16, shape()).prop_map(|(to, client, shape)| Step::Request(to, client, shape)),
        8 => (any::<usize>(), shape()).prop_map(|(number, shape)| Step::Reply(number, shape)),
        2 => select([1, 900, 20_000, 70_000].to_vec()).prop_map(Step::Wait),
        1 => (0..SERVICES.len(), change()).prop_map(|(service, change)| Step::Command(service, change)),
    ]
}

const PLAIN: Shape =
    Shape { flags: 0x10, payload_len: 5, hop_limit: 64, padding: 0, numbers: (1001, 2001), oddity: Oddity::None };

/// Opens a connection to each service and gives every side three packets to send.
fn converse(pair: &mut Pair) {
    for (service, (_, at, ..)) in SERVICES.into_iter().enumerate() {
        pair.step(&Step::Request(service, 0, Shape { flags: 0x02, numbers: (1000, 0), ..PLAIN }));
        let reply = |pair: &Pair| {
            let at = endpoint(at);
            let views = connections(&pair.steady, pair.now);
            views.iter().position(|view| !view.is_template && view.virtual_endpoint == at).unwrap()
        };
        pair.step(&Step::Reply(reply(pair), Shape { flags: 0x12, ..PLAIN }));
        for _ in 0..3 {
            pair.step(&Step::Wait(900));
            pair.step(&Step::Request(service, 0, PLAIN));
            pair.step(&Step::Reply(reply(pair), PLAIN));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_steady_path_does_what_the_general_one_does(steps in prop::collection::vec(step(), 1..120)) {
        let mut pair = Pair::new();
        converse(&mut pair);
        steps.iter().for_each(|step| pair.step(step));
        pair.step(&Step::Wait(3_000_000));
    }
}

#[test]
fn plain_packets_of_open_connections_take_the_steady_path() {
    let mut pair = Pair::new();
    converse(&mut pair);
    // Requests and replies: four each, but what opens a connection, brings it about (a datagram's first answer, and the
    // first request after it), or is its first reply by another way than NAT's goes the general way.
    let (tcp, udp) = ([2, 3], [2, 3]);
    let own_host = [0, 0];
    // Until FullNAT's server has acknowledged the SYN, its replies are followed.
    let full_nat = [2, 2];
    let first = [tcp, udp, tcp, tcp, udp, full_nat, own_host, tcp, udp, tcp, full_nat];
    assert_eq!(pair.taken[..11], first);
    // A server that may need the PROXY header still, and a client that may carry its address still, go the general way.
    assert_eq!(pair.taken[11..], [[0, 0], [0, 2]]);
}
