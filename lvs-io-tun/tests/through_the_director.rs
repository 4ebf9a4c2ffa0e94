//! The kernel's TCP through a NAT director on two TUN devices: client and server in network namespaces of their own,
//! the director between them in this process. Where that cannot be had, the test says why and returns.

mod party;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use lvs_core::local_address::LocalPorts;
use lvs_core::{
    Command, Direction, Director, DirectorConfig, ForwardMethod, Instant, Protocol, Seed, ServerConfig, ServiceConfig,
    ServiceKey,
};
use lvs_io::{Counters, Steering, Worker, share};
use lvs_io_tun::{TunOptions, TunQueue, netdev};
use lvs_testkit::network;
use party::{Failure, Party};

const VIRTUAL: [&str; 2] = ["192.0.2.80:80", "[2001:db8::80]:80"];
const SERVERS: [&str; 2] = ["10.0.0.2:8080", "[fd00::2]:8080"];
const CLIENTS: [&str; 2] = ["203.0.113.7", "2001:db8:c::7"];

/// Long enough for many super-packets, and not a multiple of anything.
const BODY_LEN: usize = 3_000_017;

/// Runs `body` inside namespaces, with `test` being the calling test's name.
fn isolated(test: &str, body: impl FnOnce() -> Result<(), Failure>) {
    network::isolated(test, network::tun_can_be_had, body);
}

#[test]
fn a_long_http_answer_arrives_whole_with_and_without_offloads() {
    isolated("a_long_http_answer_arrives_whole_with_and_without_offloads", fetch_with_all_offloads);
}

fn fetch_with_all_offloads() -> Result<(), Failure> {
    // Where only one side takes super-packets, the worker cuts them for the other.
    for (client_offloads, server_offloads) in [(true, true), (false, false), (true, false), (false, true)] {
        let counters = exchange(client_offloads, server_offloads)?;
        let shown = format!("client {client_offloads}, server {server_offloads}: {counters:?}");
        let bytes_a_packet = counters.server.received_bytes / counters.server.received;
        assert_eq!(bytes_a_packet > 3000, server_offloads, "{shown}");
        assert_eq!(counters.client.send_failed + counters.server.send_failed, 0, "{shown}");
        assert!(counters.client.sent_bytes > BODY_LEN as u64, "{shown}");
    }
    Ok(())
}

/// How many of the addresses above can be used: the IPv4 one, or both.
fn versions() -> usize {
    if netdev::has_ipv6() { 2 } else { 1 }
}

/// Fetches one answer over IPv4 and one over IPv6.
fn exchange(client_offloads: bool, server_offloads: bool) -> Result<Counters, Failure> {
    let options = |offloads| TunOptions { offloads, ..TunOptions::default() };
    let versions = versions();
    let clients = CLIENTS[..versions].iter().map(|text| text.parse::<IpAddr>()).collect::<Result<_, _>>()?;
    let servers: Vec<SocketAddr> = SERVERS[..versions].iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let server_addresses = servers.iter().map(SocketAddr::ip).collect();
    let (client_queue, client) =
        Party::new(options(client_offloads), clients, move |_| fetch_all(&VIRTUAL[..versions]))?;
    let (server_queue, server) =
        Party::new(options(server_offloads), server_addresses, move |ready| serve(&servers, ready))?;
    let mut worker = Worker::new(director(Protocol::Tcp)?, client_queue.into_arm(), Some(server_queue.into_arm()))?;
    let handle = worker.handle();
    let running = thread::spawn(move || worker.run().map(|()| worker.counters().clone()));
    server.start()?;
    client.start()?;
    let outcome = client.join();
    server.join()?;
    handle.stop();
    outcome?;
    Ok(running.join().expect("the worker does not panic")?)
}

fn director(protocol: Protocol) -> Result<Director, Failure> {
    let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
    for (address, server) in VIRTUAL.iter().zip(SERVERS) {
        let service = ServiceKey::address(protocol, address.parse()?);
        director.apply(Instant::ZERO, &Command::AddService(service, ServiceConfig::new("rr")))?;
        director.apply(Instant::ZERO, &Command::AddServer(service, ServerConfig::nat(server.parse()?)))?;
    }
    Ok(director)
}

fn fetch_all(addresses: &[&str]) -> Result<(), Failure> {
    for address in addresses {
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "GET / HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let head_len = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("no end of the head")? + 4;
        assert!(answer[head_len..] == body(), "{address}: the body is another, {} bytes long", answer.len() - head_len);
    }
    Ok(())
}

/// Answers one request on each address.
fn serve(addresses: &[SocketAddr], ready: &dyn Fn()) -> Result<(), Failure> {
    let listeners = addresses.iter().map(TcpListener::bind).collect::<Result<Vec<_>, _>>()?;
    ready();
    for listener in listeners {
        let (mut stream, _) = listener.accept()?;
        let mut request = Vec::new();
        let mut block = [0; 1024];
        while !request.ends_with(b"\r\n\r\n") {
            let count = stream.read(&mut block)?;
            request.extend_from_slice(&block[..count]);
        }
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {BODY_LEN}\r\n\r\n")?;
        stream.write_all(&body())?;
    }
    Ok(())
}

/// Bytes in which a lost, repeated or moved piece would be seen.
fn body() -> Vec<u8> {
    (0..BODY_LEN as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn two_workers_share_the_queues_and_each_client_has_one_director() {
    isolated("two_workers_share_the_queues_and_each_client_has_one_director", echo_through_two_workers);
}

#[test]
fn two_workers_find_the_client_of_what_a_server_behind_full_nat_sends() {
    isolated("two_workers_find_the_client_of_what_a_server_behind_full_nat_sends", full_nat_through_two_workers);
}

const WORKERS: u32 = 2;

/// The director's own address towards the servers.
const LOCAL: &str = "10.0.0.200";

/// Nobody listens there at the server.
const CLOSED: (&str, &str) = ("192.0.2.80:81", "10.0.0.2:81");

/// Longer than any packet.
const LONG_LEN: usize = 4000;

fn echo_through_two_workers() -> Result<(), Failure> {
    let steering = Steering::new(WORKERS, Vec::new(), Seed::new(5));
    through_two_workers(&steering, |_| director(Protocol::Udp), ask_all)
}

fn full_nat_through_two_workers() -> Result<(), Failure> {
    let local: IpAddr = LOCAL.parse()?;
    let steering = Steering::new(WORKERS, Vec::new(), Seed::new(5)).with_local_addresses(vec![local.into()]);
    let with_ports = steering.clone();
    let director = move |shard| -> Result<Director, Failure> {
        let local_ports = with_ports.local_ports(shard, LocalPorts::default());
        let mut director =
            Director::new(DirectorConfig::default().with(|config| config.local_ports = local_ports), Seed::new(1));
        for (address, server) in [(VIRTUAL[0], SERVERS[0]), CLOSED] {
            let service = ServiceKey::address(Protocol::Udp, address.parse()?);
            let server = ServerConfig::new(server.parse()?, ForwardMethod::FullNat);
            director.apply(Instant::ZERO, &Command::AddService(service, ServiceConfig::new("rr")))?;
            director.apply(Instant::ZERO, &Command::AddLocalAddress(service, local))?;
            director.apply(Instant::ZERO, &Command::AddServer(service, server))?;
        }
        Ok(director)
    };
    through_two_workers(&steering, director, |clients| {
        ask_all(clients)?;
        clients.iter().try_for_each(|client| ask(*client, &[7; LONG_LEN]))?;
        // Linux sends a destination six errors in a row (icmp_ratelimit); to the server all are for one.
        clients[..6].iter().try_for_each(|client| refused(*client))
    })
}

/// The server's ICMP error arrives.
fn refused(client: IpAddr) -> Result<(), Failure> {
    let socket = UdpSocket::bind((client, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.connect(CLOSED.0)?;
    socket.send(b"anybody?")?;
    let error = socket.recv(&mut [0; 64]).expect_err("nobody answers");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{client}");
    Ok(())
}

/// Sixteen clients do this through the two directors.
fn through_two_workers(
    steering: &Steering,
    director: impl Fn(usize) -> Result<Director, Failure>,
    act: fn(&[IpAddr]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let options = TunOptions { queues: WORKERS as u16, ..TunOptions::default() };
    let clients: Vec<IpAddr> = (1..=16).map(|number| IpAddr::from([203, 0, 113, number])).collect();
    let asking = clients.clone();
    let (client_queues, client) = Party::with_queues(options, clients.clone(), move |_| act(&asking))?;
    let server: SocketAddr = SERVERS[0].parse()?;
    let (server_queues, server) = Party::with_queues(options, vec![server.ip()], move |ready| echo(server, ready))?;
    let arms = |queues: Vec<TunQueue>, direction| {
        share(queues.into_iter().map(TunQueue::into_arm).collect(), steering, Some(direction))
    };
    let client_arms = arms(client_queues, Direction::Request)?;
    let server_arms = arms(server_queues, Direction::Reply)?;
    let mut running = Vec::new();
    for (shard, (client_arm, server_arm)) in client_arms.into_iter().zip(server_arms).enumerate() {
        let mut worker = Worker::new(director(shard)?, client_arm, Some(server_arm))?;
        let handle = worker.handle();
        running.push((handle, thread::spawn(move || worker.run().map(|()| worker))));
    }
    server.start()?;
    client.start()?;
    client.join()?;
    let mut connections = Vec::new();
    for (handle, thread) in running {
        handle.stop();
        let worker = thread.join().expect("the worker does not panic")?;
        let clients: BTreeSet<_> =
            worker.director().connections(Instant::ZERO).map(|connection| connection.client.address).collect();
        connections.push(clients.len());
        assert_eq!(worker.counters().client.receive_lost + worker.counters().server.receive_lost, 0);
    }
    // A client that two directors knew would be counted twice, or its answer would not have come back.
    assert_eq!(connections.iter().sum::<usize>(), clients.len());
    assert!(connections.iter().all(|count| *count > 0), "{connections:?}");
    Ok(())
}

/// Every client sends a question, and gets it back from the virtual address.
fn ask_all(clients: &[IpAddr]) -> Result<(), Failure> {
    clients.iter().try_for_each(|client| ask(*client, client.to_string().as_bytes()))
}

fn ask(client: IpAddr, question: &[u8]) -> Result<(), Failure> {
    let socket = UdpSocket::bind((client, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.connect(VIRTUAL[0])?;
    socket.send(question)?;
    let mut answer = [0; LONG_LEN];
    let len = socket.recv(&mut answer).map_err(|error| format!("no answer for {client}: {error}"))?;
    assert!(answer[..len] == *question, "{len} bytes for {client}");
    Ok(())
}

/// Sends back what comes, as long as the process runs.
fn echo(address: SocketAddr, ready: &dyn Fn()) -> Result<(), Failure> {
    let socket = UdpSocket::bind(address)?;
    ready();
    loop {
        let mut question = [0; LONG_LEN];
        let (len, from) = socket.recv_from(&mut question)?;
        socket.send_to(&question[..len], from)?;
    }
}
