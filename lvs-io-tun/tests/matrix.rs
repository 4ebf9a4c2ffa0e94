//! Every way a director reaches its servers, over TUN devices: a client and a server with the kernel's TCP and UDP, in
//! network namespaces of their own, IPv4 and IPv6. Direct routing and tunnels have a way back that goes past the
//! director: a cable from the server to the client. Where namespaces cannot be had, the tests say why and return.

mod party;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use lvs_core::service::stats::Counters as Statistics;
use lvs_core::service::{ClientAddress, TunnelChecksum, TunnelConfig, TunnelKind};
use lvs_core::tunnel::{Accepts, decapsulate};
use lvs_core::{
    Command, Director, DirectorConfig, ForwardMethod, Instant, PacketBuf, Protocol, Seed, ServerConfig, ServiceConfig,
    ServiceKey, Side,
};
use lvs_io::tap::{Seen, Tap};
use lvs_io::{Counters, PacketSink, SinkOffloads, Worker};
use lvs_io_tun::netns::{Rerun, rerun_test_isolated};
use lvs_io_tun::{TunOptions, TunQueue, netdev};
use party::{Failure, Party};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// An IPv4 and an IPv6 address of each.
const VIRTUAL: [&str; 2] = ["192.0.2.80", "2001:db8::80"];
const SERVER: [&str; 2] = ["10.0.0.2", "fd00::2"];
const DIRECTOR: [&str; 2] = ["10.0.0.1", "fd00::1"];
const CLIENT: [&str; 2] = ["203.0.113.7", "2001:db8:c::7"];
const PORT: u16 = 80;
const GUE_PORT: u16 = 6080;

/// What the client fetches from each address: a page, and enough for many super-packets, no multiple of anything.
const FETCHES: [usize; 2] = [1_000, 3_000_017];
/// What it sends with each request: many segments of full length, which have to fit into tunnels.
const UPLOAD_LEN: usize = 300_007;

/// Runs `body` inside namespaces, with `test` being the calling test's name.
fn isolated(test: &str, body: impl FnOnce() -> Result<(), Failure>) {
    match rerun_test_isolated(test) {
        Rerun::Inside => match TunQueue::open("probe", &TunOptions::default()) {
            Ok(_) => body().unwrap_or_else(|error| panic!("{error}")),
            Err(error) => eprintln!("{test} was not run: {error}"),
        },
        Rerun::Passed => {}
        Rerun::Denied(reason) => eprintln!("{test} was not run: {reason}"),
    }
}

#[test]
fn replies_of_translated_requests_pass_the_director() {
    isolated("replies_of_translated_requests_pass_the_director", || {
        let seen = exchange(Method::Nat)?;
        assert!(seen.statistics.out_bytes > FETCHES[1] as u64, "{seen:?}");
        assert_eq!(seen.client_named, 0, "{seen:?}");
        Ok(())
    });
}

#[test]
fn replies_of_direct_routing_go_past_the_director() {
    isolated("replies_of_direct_routing_go_past_the_director", || {
        let seen = exchange(Method::DirectRouting)?;
        seen.assert_no_replies();
        assert_eq!(seen.statistics.out_packets, 0, "{seen:?}");
        Ok(())
    });
}

#[test]
fn replies_of_ipip_tunnels_go_past_the_director() {
    isolated("replies_of_ipip_tunnels_go_past_the_director", || {
        through_tunnels(TunnelKind::Ipip, &[TunnelChecksum::None])
    });
}

#[test]
fn replies_of_gre_tunnels_go_past_the_director() {
    let checksums = [TunnelChecksum::None, TunnelChecksum::Full];
    isolated("replies_of_gre_tunnels_go_past_the_director", || through_tunnels(TunnelKind::Gre, &checksums));
}

#[test]
fn replies_of_gue_tunnels_go_past_the_director() {
    let checksums = [TunnelChecksum::None, TunnelChecksum::Full, TunnelChecksum::Remote];
    isolated("replies_of_gue_tunnels_go_past_the_director", || through_tunnels(TunnelKind::Gue, &checksums));
}

/// Tunnels of the clients' family, and across: 6in4 and 4in6.
fn through_tunnels(kind: TunnelKind, checksums: &[TunnelChecksum]) -> Result<(), Failure> {
    for checksum in checksums {
        for across in &[false, true][..versions()] {
            let port = if kind == TunnelKind::Gue { GUE_PORT } else { 0 };
            let method = Method::Tunnel { config: TunnelConfig { kind, port, checksum: *checksum }, across: *across };
            exchange(method).map_err(|error| format!("{method:?}: {error}"))?.assert_no_replies();
        }
    }
    Ok(())
}

#[test]
fn servers_behind_full_nat_see_the_director_and_are_told_the_client() {
    isolated("servers_behind_full_nat_see_the_director_and_are_told_the_client", || {
        let seen = exchange(Method::FullNat)?;
        assert!(seen.statistics.out_bytes > FETCHES[1] as u64, "{seen:?}");
        // At least with the SYN of each connection.
        assert!(seen.client_named >= (versions() * FETCHES.len()) as u64, "{seen:?}");
        Ok(())
    });
}

/// How the director reaches the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Method {
    Nat,
    DirectRouting,
    /// `across`: the tunnel is IPv6 for IPv4 clients and the other way round.
    Tunnel {
        config: TunnelConfig,
        across: bool,
    },
    FullNat,
}

impl Method {
    /// The server has the virtual address and answers by itself.
    fn is_answered_straight(self) -> bool {
        matches!(self, Self::DirectRouting | Self::Tunnel { .. })
    }
}

/// What the director did.
#[derive(Debug)]
struct Outcome {
    counters: Counters,
    statistics: Statistics,
    /// Packets to the server that named the client in a TCP option.
    client_named: u64,
    /// ICMP and ICMPv6 messages to the client.
    icmp_errors: u64,
}

impl Outcome {
    fn assert_no_replies(&self) {
        // The director counts what it says of a flow itself: here that packets do not fit into the tunnel.
        assert_eq!(self.statistics.out_packets, self.icmp_errors, "{self:?}");
        assert_eq!(self.counters.client.sent, self.icmp_errors, "{self:?}");
        assert!(self.statistics.in_bytes > UPLOAD_LEN as u64, "{self:?}");
        // The kernel's greetings of a new device at most.
        assert!(self.counters.server.received_bytes < FETCHES[0] as u64, "{self:?}");
    }
}

/// The client fetches over both families, and asks by UDP.
fn exchange(method: Method) -> Result<Outcome, Failure> {
    let options = TunOptions::default();
    let (client_queue, client) = Party::new(options, addresses(CLIENT), |_| fetch_all())?;
    let server_addresses = if method.is_answered_straight() {
        [addresses(SERVER), addresses(VIRTUAL)].concat()
    } else {
        addresses(SERVER)
    };
    let (server_queue, server) = Party::new(options, server_addresses, move |ready| serve(method, ready))?;
    if method.is_answered_straight() {
        lay_cable(&client.namespace, &server.namespace)?;
    }
    let (named, icmp_errors) = (ClientNamed::default(), IcmpErrors::default());
    let client_arm = client_queue.into_arm().with_tap(icmp_errors.clone());
    let mut server_arm = server_queue.into_arm();
    if let Method::Tunnel { config, .. } = method {
        server_arm.sink = Box::new(TunnelEnd { kind: config.kind, to_server: server_arm.sink });
    }
    let mut worker = Worker::new(director(method)?, client_arm, Some(server_arm.with_tap(named.clone())))?;
    let handle = worker.handle();
    let running = thread::spawn(move || worker.run().map(|()| worker));
    server.start()?;
    client.start()?;
    let outcome = client.join();
    handle.stop();
    let worker = running.join().expect("the worker does not panic")?;
    let seen = Outcome {
        counters: worker.counters().clone(),
        statistics: worker.director().statistics().live,
        client_named: named.0.load(Ordering::Relaxed),
        icmp_errors: icmp_errors.0.load(Ordering::Relaxed),
    };
    outcome.map_err(|error| format!("{error}; {seen:?}"))?;
    server.join()?;
    assert_eq!(seen.counters.client.send_failed + seen.counters.server.send_failed, 0, "{method:?}: {seen:?}");
    Ok(seen)
}

fn director(method: Method) -> Result<Director, Failure> {
    let side = Side { ipv4: Some(DIRECTOR[0].parse()?), ipv6: Some(DIRECTOR[1].parse()?), ..Side::default() };
    let config = DirectorConfig { client_side: side, server_side: side, ..DirectorConfig::default() };
    let mut director = Director::new(config, Seed::new(1));
    for family in 0..versions() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let service = ServiceKey::address(protocol, socket_address(VIRTUAL[family]));
            let mut config = ServiceConfig::new("rr");
            if (method, protocol) == (Method::FullNat, Protocol::Tcp) {
                config.full_nat.client_address = ClientAddress::Toa;
            }
            director.apply(Instant::ZERO, &Command::AddService(service, config))?;
            if method == Method::FullNat {
                director.apply(Instant::ZERO, &Command::AddLocalAddress(service, DIRECTOR[family].parse()?))?;
            }
            director.apply(Instant::ZERO, &Command::AddServer(service, server_config(method, family)))?;
        }
    }
    Ok(director)
}

fn server_config(method: Method, family: usize) -> ServerConfig {
    let near = socket_address(SERVER[family]);
    match method {
        Method::Nat => ServerConfig::nat(near),
        Method::DirectRouting => ServerConfig::new(near, ForwardMethod::DirectRouting),
        Method::Tunnel { config, across } => {
            let at = if across { socket_address(SERVER[1 - family]) } else { near };
            let mut server = ServerConfig::new(at, ForwardMethod::Tunnel);
            server.tunnel = config;
            server
        }
        Method::FullNat => ServerConfig::full_nat(near),
    }
}

/// The server's end of the tunnels: packets are taken out of them on their way into the server's device. What comes
/// in no tunnel, or in another kind, is refused.
struct TunnelEnd {
    kind: TunnelKind,
    to_server: Box<dyn PacketSink>,
}

impl PacketSink for TunnelEnd {
    fn send(&mut self, packet: &mut PacketBuf<'_>, next_hop: IpAddr) -> io::Result<()> {
        let accepts = Accepts { ipip: true, gre: true, gue_port: Some(GUE_PORT) };
        match decapsulate(packet, &accepts) {
            Ok(Some(kind)) if kind == self.kind => self.to_server.send(packet, next_hop),
            other => Err(io::Error::other(format!("{other:?} instead of {:?}", self.kind))),
        }
    }

    fn offloads(&self) -> SinkOffloads {
        self.to_server.offloads()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to_server.flush()
    }
}

/// Counts packets to the server with the client's address in a TCP option: kind 254, length, port, address.
#[derive(Clone, Default)]
struct ClientNamed(Arc<AtomicU64>);

impl Tap for ClientNamed {
    fn packet(&mut self, seen: Seen, packet: &PacketBuf<'_>) {
        // IP header, TCP header and its options.
        let headers = &packet.bytes()[..packet.len().min(40 + 60)];
        let names = |client: IpAddr| {
            let octets = match client {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            let len = 4 + octets.len();
            headers.windows(len).any(|option| option[..2] == [254, len as u8] && option[4..] == octets)
        };
        let is_named = seen == Seen::Sent && addresses(CLIENT).into_iter().any(names);
        self.0.fetch_add(u64::from(is_named), Ordering::Relaxed);
    }
}

/// Counts ICMP and ICMPv6 messages to the client.
#[derive(Clone, Default)]
struct IcmpErrors(Arc<AtomicU64>);

impl Tap for IcmpErrors {
    fn packet(&mut self, seen: Seen, packet: &PacketBuf<'_>) {
        let bytes = packet.bytes();
        // Protocol (RFC 791 §3.1) and next header (RFC 8200 §3).
        let is_icmp = if bytes[0] >> 4 == 4 { bytes[9] == 1 } else { bytes[6] == 58 };
        self.0.fetch_add(u64::from(seen == Seen::Sent && is_icmp), Ordering::Relaxed);
    }
}

/// The way from server to client that goes past the director: a pair of Ethernet devices, used in this direction only.
fn lay_cable(client: &File, server: &File) -> Result<(), Failure> {
    thread::scope(|scope| {
        let laying = scope.spawn(|| -> Result<(), Failure> {
            let to_client: [IpAddr; 2] = ["10.11.0.7".parse()?, "fd11::7".parse()?];
            let to_server: [IpAddr; 2] = ["10.11.0.2".parse()?, "fd11::2".parse()?];
            let prefix = |address: IpAddr| if address.is_ipv4() { 24 } else { 64 };
            enter(server)?;
            netdev::add_veth("past0", "past0", client.as_fd())?;
            netdev::set_up("past0")?;
            enter(client)?;
            netdev::set_up("past0")?;
            // Answers come in by another device than requests leave by (rp_filter 2, RFC 3704 §2.4: loose).
            fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "2")?;
            for address in &to_client[..versions()] {
                netdev::add_address("past0", *address, prefix(*address))?;
            }
            enter(server)?;
            fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "2")?;
            for family in 0..versions() {
                netdev::add_address("past0", to_server[family], prefix(to_server[family]))?;
                let client: IpAddr = CLIENT[family].parse()?;
                netdev::add_route_via(client, if client.is_ipv4() { 32 } else { 128 }, to_client[family], "past0")?;
                // Makes the neighbours known. A reply would be asked after from its own source, the virtual address, and
                // the client's answer to that goes to the director.
                UdpSocket::bind((to_server[family], 0))?.send_to(b"hello", (to_client[family], PORT))?;
            }
            Ok(())
        });
        laying.join().expect("nothing here panics")
    })
}

fn enter(namespace: &File) -> Result<(), Failure> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn fetch_all() -> Result<(), Failure> {
    for text in &VIRTUAL[..versions()] {
        for len in FETCHES {
            fetch(socket_address(text), len).map_err(|error| format!("{len} bytes from {text}: {error}"))?;
        }
        ask(socket_address(text)).map_err(|error| format!("{text}, UDP: {error}"))?;
    }
    Ok(())
}

fn fetch(virtual_address: SocketAddr, len: usize) -> Result<(), Failure> {
    let mut stream = TcpStream::connect_timeout(&virtual_address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "POST /{len} HTTP/1.0\r\nContent-Length: {UPLOAD_LEN}\r\n\r\n")?;
    stream.write_all(&body(UPLOAD_LEN))?;
    read_head(&mut stream)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer == body(len) { Ok(()) } else { Err(format!("another body, {}", answer.len()).into()) }
}

fn ask(virtual_address: SocketAddr) -> Result<(), Failure> {
    let socket = UdpSocket::bind(if virtual_address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(virtual_address)?;
    socket.send(b"question")?;
    let mut answer = [0; 64];
    let len = socket.recv(&mut answer)?;
    assert_eq!(&answer[..len], b"question");
    Ok(())
}

/// Answers what the client asks of each address.
fn serve(method: Method, ready: &dyn Fn()) -> Result<(), Failure> {
    let mut serving = Vec::new();
    for family in 0..versions() {
        let own = if method.is_answered_straight() { VIRTUAL } else { SERVER };
        let client: IpAddr = if method == Method::FullNat { DIRECTOR[family] } else { CLIENT[family] }.parse()?;
        let listener = TcpListener::bind(socket_address(own[family]))?;
        let socket = UdpSocket::bind(socket_address(own[family]))?;
        serving.push(thread::spawn(move || answer(&listener, &socket, client)));
    }
    ready();
    serving.into_iter().try_for_each(|serving| serving.join().expect("a server does not panic"))
}

fn answer(listener: &TcpListener, socket: &UdpSocket, client: IpAddr) -> Result<(), Failure> {
    for _ in FETCHES {
        let (mut stream, from) = listener.accept()?;
        assert_eq!(from.ip(), client);
        let head = read_head(&mut stream)?;
        let len = head.split(['/', ' ']).nth(2).ok_or("a path")?.parse()?;
        let mut upload = vec![0; UPLOAD_LEN];
        stream.read_exact(&mut upload)?;
        assert!(upload == body(UPLOAD_LEN), "another upload");
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {len}\r\n\r\n")?;
        stream.write_all(&body(len))?;
    }
    let mut question = [0; 64];
    let (len, from) = socket.recv_from(&mut question)?;
    assert_eq!(from.ip(), client);
    socket.send_to(&question[..len], from)?;
    Ok(())
}

/// Reads to the empty line, and no further.
fn read_head(stream: &mut TcpStream) -> Result<String, Failure> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8(head)?)
}

/// Bytes in which a lost, repeated or moved piece would be seen.
fn body(len: usize) -> Vec<u8> {
    (0..len as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// How many of the addresses above can be used: the IPv4 one, or both.
fn versions() -> usize {
    if netdev::has_ipv6() { 2 } else { 1 }
}

fn addresses(texts: [&str; 2]) -> Vec<IpAddr> {
    texts[..versions()].iter().map(|text| text.parse().expect("a constant")).collect()
}

fn socket_address(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().expect("a constant"), PORT)
}

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
