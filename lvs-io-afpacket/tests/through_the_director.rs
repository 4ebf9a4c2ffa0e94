//! The kernel's TCP and UDP through a director on Ethernet: client, director and two real servers, each in a network
//! namespace of its own, joined by bridges. Where that cannot be had, the tests say why and return.

mod network;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use lvs_core::local_address::LocalPorts;
use lvs_core::service::TunnelKind;
use lvs_core::tunnel::Accepts;
use lvs_core::{
    Command, Director, DirectorConfig, ForwardMethod, Instant, PacketBuf, Protocol, Seed, ServerConfig, ServiceConfig,
    ServiceKey, Side,
};
use lvs_io::tap::{Seen, Tap};
use lvs_io::{Arm, Counters, OnPass, Prefix, Steering, Worker, WorkerHandle, netdev, share};
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions, check};
use lvs_io_tun::netns::{Rerun, rerun_test_isolated};
use lvs_io_tun::{TunOptions, TunQueue};
use network::{Failure, Party, Port, add_switch};

const VIRTUAL: [&str; 2] = ["10.9.0.80", "fd09::80"];
/// Whom servers see with FullNAT.
const LOCAL: [&str; 2] = ["10.9.0.200", "fd09::200"];
const SERVERS: [[&str; 2]; 2] = [["10.9.0.11", "fd09::11"], ["10.9.0.12", "fd09::12"]];
const PORT: u16 = 80;
const GUE_PORT: u16 = 6080;

/// Long enough for many super-packets, and not a multiple of anything.
const LARGE: usize = 20_000_017;
const SMALL: usize = 1_000;
/// What every server answers to each family: two small bodies and two large ones, one of each to each server.
const FETCHES: [usize; 4] = [SMALL, SMALL, LARGE, LARGE];

/// Runs `body` inside namespaces, with `test` being the calling test's name.
fn isolated(test: &str, body: impl FnOnce() -> Result<(), Failure>) {
    match rerun_test_isolated(test) {
        Rerun::Inside => match add_switch("probe") {
            Ok(()) => body().unwrap_or_else(|error| panic!("{error}")),
            Err(error) => eprintln!("{test} was not run: {error}"),
        },
        Rerun::Passed => {}
        Rerun::Denied(reason) => eprintln!("{test} was not run: {reason}"),
    }
}

#[test]
fn replies_of_direct_routing_bypass_the_director() {
    isolated("replies_of_direct_routing_bypass_the_director", || {
        add_switch("lan")?;
        let server = |index: usize| Port::new("eth0", "lan", &with_prefix(SERVERS[index]));
        let seen = exchange(Scene {
            method: Method::DirectRouting,
            client: Port::new("eth0", "lan", &["10.9.0.7/24", "fd09::7/64"]),
            director: vec![Port::new("eth0", "lan", &["10.9.0.1/24", "fd09::1/64"])],
            servers: [server(0), server(1)],
        })?;
        assert_eq!(seen.replies, 0, "{seen:?}");
        assert_eq!(seen.requests, seen.counters.client.sent, "{seen:?}");
        // Acknowledgements only: the bodies went another way.
        assert!(seen.counters.client.received_bytes < LARGE as u64, "{seen:?}");
        Ok(())
    });
}

#[test]
fn translation_works_over_one_device() {
    isolated("translation_works_over_one_device", || {
        add_switch("lan")?;
        // The client is a neighbour, but replies have to pass the director.
        let server = |index: usize| {
            let port = Port::new("eth0", "lan", &with_prefix(SERVERS[index]));
            port.route("10.9.0.7/32", Some("10.9.0.1")).route("fd09::7/128", Some("fd09::1"))
        };
        let seen = exchange(Scene {
            method: Method::Nat,
            client: Port::new("eth0", "lan", &["10.9.0.7/24", "fd09::7/64"]),
            director: vec![Port::new("eth0", "lan", &["10.9.0.1/24", "fd09::1/64"])],
            servers: [server(0), server(1)],
        })?;
        assert!(seen.replies > 0 && seen.counters.client.received_bytes > 4 * LARGE as u64, "{seen:?}");
        Ok(())
    });
}

#[test]
fn translation_works_between_two_devices() {
    isolated("translation_works_between_two_devices", || {
        add_switch("front")?;
        add_switch("back")?;
        let server = |index: usize| {
            let port = Port::new("eth0", "back", &with_prefix(SERVERS[index]));
            port.route("0.0.0.0/0", Some("10.9.0.1")).route("::/0", Some("fd09::1"))
        };
        let client = Port::new("eth0", "front", &["203.0.113.7/24", "2001:db8::7/64"]);
        let front = Port::new("eth0", "front", &["203.0.113.1/24", "2001:db8::1/64"]);
        let seen = exchange(Scene {
            method: Method::Nat,
            client: client.route("10.9.0.80/32", None).route("fd09::80/128", None),
            director: vec![front, Port::new("eth1", "back", &["10.9.0.1/24", "fd09::1/64"])],
            servers: [server(0), server(1)],
        })?;
        assert!(seen.counters.server.received_bytes > 4 * LARGE as u64, "{seen:?}");
        // Passed through unsplit.
        let bytes_a_packet = seen.counters.server.received_bytes / seen.counters.server.received;
        assert!(bytes_a_packet > 3000, "{seen:?}");
        Ok(())
    });
}

#[test]
fn full_nat_needs_nothing_of_the_servers() {
    isolated("full_nat_needs_nothing_of_the_servers", || {
        add_switch("lan")?;
        let server = |index: usize| Port::new("eth0", "lan", &with_prefix(SERVERS[index]));
        let seen = exchange(Scene {
            method: Method::FullNat,
            client: Port::new("eth0", "lan", &["10.9.0.7/24", "fd09::7/64"]),
            director: vec![Port::new("eth0", "lan", &["10.9.0.1/24", "fd09::1/64"])],
            servers: [server(0), server(1)],
        })?;
        assert!(seen.replies > 0 && seen.counters.client.received_bytes > 4 * LARGE as u64, "{seen:?}");
        Ok(())
    });
}

#[test]
fn replies_of_tunnels_bypass_the_director() {
    isolated("replies_of_tunnels_bypass_the_director", || {
        if TunQueue::open("probe", &TunOptions::default()).is_err() {
            eprintln!("replies_of_tunnels_bypass_the_director was not run: /dev/net/tun is denied");
            return Ok(());
        }
        for (kind, name) in [(TunnelKind::Ipip, "ipip"), (TunnelKind::Gre, "gre"), (TunnelKind::Gue, "gue")] {
            add_switch(name)?;
            let server = |index: usize| Port::new("eth0", name, &with_prefix(SERVERS[index]));
            let seen = exchange(Scene {
                method: Method::Tunnel(kind),
                client: Port::new("eth0", name, &["10.9.0.7/24", "fd09::7/64"]),
                director: vec![Port::new("eth0", name, &["10.9.0.1/24", "fd09::1/64"])],
                servers: [server(0), server(1)],
            })
            .map_err(|error| format!("{name}: {error}"))?;
            assert_eq!(seen.replies, 0, "{name}: {seen:?}");
            assert!(seen.counters.client.received_bytes < LARGE as u64, "{name}: {seen:?}");
        }
        Ok(())
    });
}

#[test]
fn several_queues_give_each_client_one_director() {
    isolated("several_queues_give_each_client_one_director", || {
        // Without lvs_io::share: the kernel alone steers.
        let workers = through_two_queues(Method::Nat, false, 8)?;
        // A question and an answer each: the kernel gave every packet to the right queue, and to one only.
        assert!(workers.iter().all(|(clients, received)| *received == 2 * *clients as u64), "{workers:?}");
        Ok(())
    });
}

#[test]
fn several_queues_give_the_answers_to_local_addresses_to_the_director_that_asked() {
    isolated("several_queues_give_the_answers_to_local_addresses_to_the_director_that_asked", || {
        let workers = through_two_queues(Method::FullNat, false, 8)?;
        assert!(workers.iter().all(|(clients, received)| *received == 2 * *clients as u64), "{workers:?}");
        Ok(())
    });
}

#[test]
fn fragments_of_an_answer_to_a_local_address_find_the_director_that_asked() {
    isolated("fragments_of_an_answer_to_a_local_address_find_the_director_that_asked", || {
        through_two_queues(Method::FullNat, true, 4000)?;
        Ok(())
    });
}

/// Sixteen clients ask a question of this length through two workers on two queues of one device, one question each: for
/// each worker, how many clients its director knew, and how many packets its queue received.
fn through_two_queues(method: Method, shares: bool, question_len: usize) -> Result<Vec<(usize, u64)>, Failure> {
    add_switch("lan")?;
    let clients: Vec<String> = (100..116).map(|host| format!("10.9.0.{host}/24")).collect();
    let server = Port::new("eth0", "lan", &["10.9.0.11/24"]);
    let server =
        clients.iter().fold(server, |port, client| port.route(&client.replace("/24", "/32"), Some("10.9.0.1")));
    let server = Party::new("server", vec![server], |ready| echo(16, ready))?;
    let (give_handles, handles) = mpsc::channel();
    let ports = vec![Port::new("eth0", "lan", &["10.9.0.1/24"])];
    let director =
        Party::new("director", ports, move |ready| direct_with_two_queues(method, shares, &give_handles, ready))?;
    let client = Party::new("client", vec![Port::new("eth0", "lan", &clients)], move |_| {
        (100..116).try_for_each(|host| ask_from(IpAddr::from([10, 9, 0, host]), question_len))
    })?;
    server.start()?;
    director.start()?;
    let handles: Vec<WorkerHandle> = handles.recv()?;
    client.start()?;
    let outcome = client.join();
    handles.iter().for_each(WorkerHandle::stop);
    let workers = director.join()?;
    outcome.map_err(|error| format!("{error}; {workers:?}"))?;
    server.join()?;
    // A client that two directors knew would be counted twice, or its answer would not have come back.
    assert_eq!(workers.iter().map(|(clients, _)| clients).sum::<usize>(), 16, "{workers:?}");
    assert!(workers.iter().all(|(clients, _)| *clients > 0), "{workers:?}");
    Ok(workers)
}

fn direct_with_two_queues(
    method: Method,
    shares: bool,
    give_handles: &mpsc::Sender<Vec<WorkerHandle>>,
    ready: &dyn Fn(),
) -> Result<Vec<(usize, u64)>, Failure> {
    let steering = Steering::new(2, vec!["10.9.0.11".parse::<Prefix>()?], Seed::new(5));
    let steering = steering.with_local_addresses(vec![address(LOCAL[0]).into()]);

    let answers_for = vec![address(VIRTUAL[0]), address(LOCAL[0])];
    let options = AfPacketOptions { answers_for, ..AfPacketOptions::of_host("eth0")? };
    let queues = AfPacketDevice::open_all("eth0", &options, &steering, None)?;
    let mut arms: Vec<_> = queues.into_iter().map(AfPacketDevice::into_arm).collect();
    if shares {
        arms = share(arms, &steering, None)?;
    }
    let mut running = Vec::new();
    for (shard, arm) in arms.into_iter().enumerate() {
        let local_ports = steering.local_ports(shard, LocalPorts::default());
        let mut director = Director::new(DirectorConfig { local_ports, ..DirectorConfig::default() }, Seed::new(1));
        let service = ServiceKey::address(Protocol::Udp, SocketAddr::new(address(VIRTUAL[0]), PORT));
        director.apply(Instant::ZERO, &Command::AddService(service, ServiceConfig::new("rr")))?;
        director.apply(Instant::ZERO, &Command::AddLocalAddress(service, address(LOCAL[0])))?;
        let forward = if method == Method::FullNat { ForwardMethod::FullNat } else { ForwardMethod::Nat };
        let server = ServerConfig::new(SocketAddr::new(address(SERVERS[0][0]), PORT), forward);
        director.apply(Instant::ZERO, &Command::AddServer(service, server))?;
        let mut worker = Worker::new(director, arm, None)?;
        let handle = worker.handle();
        running.push((handle, thread::spawn(move || worker.run().map(|()| worker))));
    }
    give_handles.send(running.iter().map(|(handle, _)| handle.clone()).collect())?;
    ready();
    let counts = running.into_iter().map(|(_, running)| {
        let worker = running.join().expect("a worker does not panic")?;
        assert_eq!(worker.counters().client.receive_lost, 0);
        Ok((worker.director().connections(Instant::ZERO).count(), worker.counters().client.received))
    });
    counts.collect()
}

fn ask_from(client: IpAddr, question_len: usize) -> Result<(), Failure> {
    let socket = UdpSocket::bind((client, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect((address(VIRTUAL[0]), PORT))?;
    socket.send(&vec![7; question_len])?;
    let len = socket.recv(&mut [0; 4096]).map_err(|error| format!("no answer for {client}: {error}"))?;
    assert_eq!(len, question_len);
    Ok(())
}

/// Sends back so many datagrams.
fn echo(count: usize, ready: &dyn Fn()) -> Result<(), Failure> {
    let socket = UdpSocket::bind((address(SERVERS[0][0]), PORT))?;
    ready();
    for _ in 0..count {
        let mut question = [0; 4096];
        let (len, from) = socket.recv_from(&mut question)?;
        socket.send_to(&question[..len], from)?;
    }
    Ok(())
}

#[test]
fn a_host_that_would_answer_for_a_virtual_address_is_found_out() {
    isolated("a_host_that_would_answer_for_a_virtual_address_is_found_out", || {
        add_switch("lan")?;
        let ports = vec![Port::new("eth0", "lan", &["10.9.0.1/24", "fd09::1/64", "10.9.0.80/32"])];
        let party = Party::new("host", ports, |_| {
            let addresses: Vec<IpAddr> = ["10.9.0.80", "10.9.0.81", "fd09::1", "fd09::2"].map(address).to_vec();
            let found = check::host("eth0", &addresses);
            fs::write("/proc/sys/net/ipv4/conf/eth0/forwarding", "1")?;
            Ok((found, check::host("eth0", &[])))
        })?;
        party.start()?;
        let (found, forwarding) = party.join()?;
        let owned = |text| check::Finding::HostOwnsAddress(address(text));
        assert_eq!(found, [owned("10.9.0.80"), owned("fd09::1")]);
        assert!(found[0].to_string().contains("ip address delete 10.9.0.80"), "{}", found[0]);
        assert_eq!(forwarding, [check::Finding::HostForwards { device: "eth0".to_owned(), family: "ipv4" }]);
        Ok(())
    });
}

/// How the director reaches the servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Method {
    Nat,
    DirectRouting,
    Tunnel(TunnelKind),
    FullNat,
}

struct Scene {
    method: Method,
    client: Port,
    /// The clients' side, and the servers' if that is another.
    director: Vec<Port>,
    servers: [Port; 2],
}

/// What the director saw.
#[derive(Debug)]
struct Outcome {
    counters: Counters,
    /// Packets it received for a virtual address, and from one or from a server.
    requests: u64,
    replies: u64,
}

/// The client fetches from both servers, over both families, and asks by UDP.
fn exchange(scene: Scene) -> Result<Outcome, Failure> {
    let Scene { method, client, director, servers } = scene;
    let devices: Vec<&'static str> = director.iter().map(|port| port.device).collect();
    let (give_handle, handle) = mpsc::channel();
    let director = Party::new("director", director, move |ready| direct(method, &devices, &give_handle, ready))?;
    let mut running = Vec::new();
    for (index, port) in servers.into_iter().enumerate() {
        let server = Party::new(["one", "two"][index], vec![port], move |ready| serve(index, method, ready))?;
        server.start()?;
        running.push(server);
    }
    director.start()?;
    let handle: WorkerHandle = handle.recv()?;
    let client = Party::new("client", vec![client], |_| fetch_all())?;
    client.start()?;
    let outcome = client.join();
    handle.stop();
    let seen = director.join()?;
    outcome.map_err(|error| format!("{error}; {seen:?}"))?;
    for server in running {
        server.join()?;
    }
    assert_eq!(seen.counters.client.send_failed + seen.counters.server.send_failed, 0, "{seen:?}");
    Ok(seen)
}

fn direct(
    method: Method,
    devices: &[&str],
    give_handle: &mpsc::Sender<WorkerHandle>,
    ready: &dyn Fn(),
) -> Result<Outcome, Failure> {
    // Tunnels start at the director's own addresses.
    let side = Side { ipv4: Some([10, 9, 0, 1].into()), ipv6: Some("fd09::1".parse()?), ..Side::default() };
    let config = DirectorConfig { client_side: side, server_side: side, ..DirectorConfig::default() };
    let mut director = Director::new(config, Seed::new(1));
    for (family, virtual_address) in VIRTUAL.into_iter().enumerate() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let service = ServiceKey::address(protocol, SocketAddr::new(address(virtual_address), PORT));
            director.apply(Instant::ZERO, &Command::AddService(service, ServiceConfig::new("rr")))?;
            if method == Method::FullNat {
                director.apply(Instant::ZERO, &Command::AddLocalAddress(service, address(LOCAL[family])))?;
            }
            for server in SERVERS {
                let mut server = ServerConfig::nat(SocketAddr::new(address(server[family]), PORT));
                server.forward = match method {
                    Method::Nat => ForwardMethod::Nat,
                    Method::DirectRouting => ForwardMethod::DirectRouting,
                    Method::Tunnel(kind) => {
                        server.tunnel.kind = kind;
                        server.tunnel.port = if kind == TunnelKind::Gue { GUE_PORT } else { 0 };
                        ForwardMethod::Tunnel
                    }
                    Method::FullNat => ForwardMethod::FullNat,
                };
                director.apply(Instant::ZERO, &Command::AddServer(service, server))?;
            }
        }
    }
    let capture = Capture::default();
    let mut arms = Vec::new();
    for (index, device) in devices.iter().enumerate() {
        let answers_for =
            if index == 0 { [VIRTUAL, LOCAL].concat().into_iter().map(address).collect() } else { Vec::new() };
        assert_eq!(check::host(device, &answers_for), []);
        let options = AfPacketOptions { answers_for, ..AfPacketOptions::of_host(device)? };
        let arm: Arm = AfPacketDevice::open(device, &options)?.into_arm();
        arms.push(arm.with_tap(capture.clone()));
    }
    let mut arms = arms.into_iter();
    let mut worker = Worker::new(director, arms.next().ok_or("a device")?, arms.next())?;
    give_handle.send(worker.handle())?;
    ready();
    worker.run()?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let Capture(seen) = &capture;
    Ok(Outcome { counters: worker.counters().clone(), requests: count(&seen.0), replies: count(&seen.1) })
}

/// Counts the packets received for a virtual address, and those from one or from a server.
#[derive(Clone, Default)]
struct Capture(Arc<(AtomicU64, AtomicU64)>);

impl Tap for Capture {
    fn packet(&mut self, seen: Seen, packet: &PacketBuf<'_>) {
        if seen == Seen::Sent {
            return;
        }
        let Some((source, target)) = addresses(packet.bytes()) else { return };
        let is_virtual = |text: &&str| address(text) == source;
        let is_reply = VIRTUAL.iter().any(is_virtual) || SERVERS.iter().flatten().any(is_virtual);
        let is_request = VIRTUAL.iter().any(|text| address(text) == target);
        let Self(counters) = self;
        counters.0.fetch_add(u64::from(is_request), Ordering::Relaxed);
        counters.1.fetch_add(u64::from(is_reply), Ordering::Relaxed);
    }
}

fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<4>()?));
    let v6 = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<16>()?));
    if packet.first()? >> 4 == 4 { Some((v4(12)?, v4(16)?)) } else { Some((v6(8)?, v6(24)?)) }
}

fn fetch_all() -> Result<(), Failure> {
    for virtual_address in VIRTUAL {
        let virtual_address = SocketAddr::new(address(virtual_address), PORT);
        for len in FETCHES {
            fetch(virtual_address, len).map_err(|error| format!("{len} bytes from {virtual_address}: {error}"))?;
        }
        ask(virtual_address).map_err(|error| format!("{virtual_address}, UDP: {error}"))?;
    }
    Ok(())
}

fn fetch(virtual_address: SocketAddr, len: usize) -> Result<(), Failure> {
    let mut stream = TcpStream::connect_timeout(&virtual_address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /{len} HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head_len = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("no end of the head")? + 4;
    if answer[head_len..] == body(len) { Ok(()) } else { Err(format!("another body, {}", answer.len()).into()) }
}

/// One question to each server; the answers come from the virtual address.
fn ask(virtual_address: SocketAddr) -> Result<(), Failure> {
    for question in ["one", "two"] {
        let socket = UdpSocket::bind(if virtual_address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(virtual_address)?;
        socket.send(question.as_bytes())?;
        let mut answer = [0; 64];
        let len = socket.recv(&mut answer)?;
        assert_eq!(&answer[..len], question.as_bytes());
    }
    Ok(())
}

/// Half of what the client asks for.
fn serve(index: usize, method: Method, ready: &dyn Fn()) -> Result<(), Failure> {
    let mut addresses = SERVERS[index].map(address);
    let mut tunnel_end = None;
    if let Method::Tunnel(_) = method {
        tunnel_end = Some(end_tunnels()?);
    }
    if matches!(method, Method::DirectRouting | Method::Tunnel(_)) {
        addresses = VIRTUAL.map(address);
        // The virtual address is ours, but the link need not know (arp_ignore, arp_announce: ip-sysctl).
        fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1")?;
        fs::write("/proc/sys/net/ipv4/conf/all/arp_announce", "2")?;
        for address in addresses {
            netdev::add_address("lo", address, if address.is_ipv4() { 32 } else { 128 })?;
        }
    }
    let mut serving = Vec::new();
    for address in addresses {
        let listener = TcpListener::bind((address, PORT))?;
        let socket = UdpSocket::bind((address, PORT))?;
        serving.push(thread::spawn(move || answer_half(&listener, &socket)));
    }
    ready();
    for serving in serving {
        serving.join().expect("a server does not panic")?;
    }
    tunnel_end.iter().for_each(WorkerHandle::stop);
    Ok(())
}

/// Takes what comes through tunnels out of them and hands it to the kernel by a TUN device.
fn end_tunnels() -> Result<WorkerHandle, Failure> {
    let to_host = TunQueue::open("end0", &TunOptions::default())?;
    netdev::set_up("end0")?;
    let options = AfPacketOptions { announces: false, ..AfPacketOptions::of_host("eth0")? };
    let accepts = Accepts { ipip: true, gre: true, gue_port: Some(GUE_PORT) };
    let arm =
        AfPacketDevice::open("eth0", &options)?.into_arm().with_tunnel_end(accepts, VIRTUAL.map(address).to_vec());
    let nobody = Director::new(DirectorConfig::default(), Seed::new(1));
    let mut worker = Worker::new(nobody, arm, None)?.with_on_pass(OnPass::ToHost(to_host.into_arm().sink));
    let handle = worker.handle();
    thread::spawn(move || worker.run());
    Ok(handle)
}

fn answer_half(listener: &TcpListener, socket: &UdpSocket) -> Result<(), Failure> {
    for _ in 0..FETCHES.len() / 2 {
        let (mut stream, _) = listener.accept()?;
        let mut request = Vec::new();
        let mut block = [0; 1024];
        while !request.ends_with(b"\r\n\r\n") {
            let count = stream.read(&mut block)?;
            request.extend_from_slice(&block[..count]);
        }
        let text = String::from_utf8(request)?;
        let len = text.split(['/', ' ']).nth(2).ok_or("a path")?.parse()?;
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {len}\r\n\r\n")?;
        stream.write_all(&body(len))?;
    }
    let mut question = [0; 64];
    let (len, from) = socket.recv_from(&mut question)?;
    socket.send_to(&question[..len], from)?;
    Ok(())
}

/// Bytes in which a lost, repeated or moved piece would be seen.
fn body(len: usize) -> Vec<u8> {
    (0..len as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("a constant")
}

fn with_prefix(addresses: [&str; 2]) -> [String; 2] {
    [format!("{}/24", addresses[0]), format!("{}/64", addresses[1])]
}

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
