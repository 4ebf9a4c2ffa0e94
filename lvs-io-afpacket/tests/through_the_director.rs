//! What only a director on Ethernet has to show, with the kernel's UDP in network namespaces joined by bridges: several
//! queues, and what it finds out about its host. Every forwarding method over it is in lvs-director's matrix.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lvs_core::{Command, Director, DirectorConfig, Instant, Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey};
use lvs_io::{Prefix, Steering, Worker, WorkerHandle};
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions, check};
use lvs_testkit::network::{self, Failure, Party, Port, add_switch};

const VIRTUAL: &str = "10.9.0.80";
const SERVER: &str = "10.9.0.11";
const PORT: u16 = 80;

/// Runs `body` inside namespaces, with `test` being the calling test's name.
fn isolated(test: &str, body: impl FnOnce() -> Result<(), Failure>) {
    network::isolated(test, || add_switch("probe"), body);
}

#[test]
fn several_queues_give_each_client_one_director() {
    isolated("several_queues_give_each_client_one_director", || {
        add_switch("lan")?;
        let clients: Vec<String> = (100..116).map(|host| format!("10.9.0.{host}/24")).collect();
        let server = Port::new("eth0", "lan", &["10.9.0.11/24"]);
        let server =
            clients.iter().fold(server, |port, client| port.route(&client.replace("/24", "/32"), Some("10.9.0.1")));
        let server = Party::new("server", vec![server], |ready| echo(16, ready))?;
        let (give_handles, handles) = mpsc::channel();
        let ports = vec![Port::new("eth0", "lan", &["10.9.0.1/24"])];
        let director = Party::new("director", ports, move |ready| direct_with_two_queues(&give_handles, ready))?;
        let client = Party::new("client", vec![Port::new("eth0", "lan", &clients)], |_| {
            (100..116).try_for_each(|host| ask_from(IpAddr::from([10, 9, 0, host])))
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
        assert_eq!(workers.iter().map(|(connections, _)| connections).sum::<usize>(), 16, "{workers:?}");
        // A question and an answer each: the kernel gave every packet to the right queue, and to one only.
        assert!(workers.iter().all(|(connections, received)| *received == 2 * *connections as u64), "{workers:?}");
        assert!(workers.iter().all(|(connections, _)| *connections > 0), "{workers:?}");
        Ok(())
    });
}

/// Two workers on two queues of one device; how many connections each director had, and packets each queue received.
fn direct_with_two_queues(
    give_handles: &mpsc::Sender<Vec<WorkerHandle>>,
    ready: &dyn Fn(),
) -> Result<Vec<(usize, u64)>, Failure> {
    let steering = Steering::new(2, vec!["10.9.0.11".parse::<Prefix>()?], Seed::new(5));
    let options = AfPacketOptions { answers_for: vec![address(VIRTUAL)], ..AfPacketOptions::of_host("eth0")? };
    let mut running = Vec::new();
    for queue in AfPacketDevice::open_all("eth0", &options, &steering, None)? {
        let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
        let service = ServiceKey::address(Protocol::Udp, SocketAddr::new(address(VIRTUAL), PORT));
        director.apply(Instant::ZERO, &Command::AddService(service, ServiceConfig::new("rr")))?;
        let server = ServerConfig::nat(SocketAddr::new(address(SERVER), PORT));
        director.apply(Instant::ZERO, &Command::AddServer(service, server))?;
        // Without lvs_io::share: the kernel alone steers.
        let mut worker = Worker::new(director, queue.into_arm(), None)?;
        let handle = worker.handle();
        running.push((handle, thread::spawn(move || worker.run().map(|()| worker))));
    }
    give_handles.send(running.iter().map(|(handle, _)| handle.clone()).collect())?;
    ready();
    let counts = running.into_iter().map(|(_, running)| {
        let worker = running.join().expect("a worker does not panic")?;
        Ok((worker.director().connections(Instant::ZERO).count(), worker.counters().client.received))
    });
    counts.collect()
}

fn ask_from(client: IpAddr) -> Result<(), Failure> {
    let socket = UdpSocket::bind((client, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect((address(VIRTUAL), PORT))?;
    socket.send(b"question")?;
    let len = socket.recv(&mut [0; 64]).map_err(|error| format!("no answer for {client}: {error}"))?;
    assert_eq!(len, 8);
    Ok(())
}

/// Sends back so many datagrams.
fn echo(count: usize, ready: &dyn Fn()) -> Result<(), Failure> {
    let socket = UdpSocket::bind((address(SERVER), PORT))?;
    ready();
    for _ in 0..count {
        let mut question = [0; 64];
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

fn address(text: &str) -> IpAddr {
    text.parse().expect("a constant")
}

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
