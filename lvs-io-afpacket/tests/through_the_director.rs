//! What only a director on Ethernet has to show, with the kernel's UDP in network namespaces joined by bridges: several
//! queues, and what it finds out about its host. Every forwarding method over it is in lvs-director's matrix.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lvs_core::local_address::LocalPorts;
use lvs_core::{
    Command, Director, DirectorConfig, ForwardMethod, Instant, Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey,
};
use lvs_io::{Prefix, Steering, Worker, WorkerHandle, share};
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions, check};
use lvs_testkit::network::{self, Failure, Party, Port, add_switch};

const VIRTUAL: &str = "10.9.0.80";
/// Whom the server sees with FullNAT.
const LOCAL: &str = "10.9.0.200";
const SERVER: &str = "10.9.0.11";
const PORT: u16 = 80;

/// Runs `body` inside namespaces, with `test` being the calling test's name.
fn isolated(test: &str, body: impl FnOnce() -> Result<(), Failure>) {
    network::isolated(test, || add_switch("probe"), body);
}

#[test]
fn several_queues_give_each_client_one_director() {
    isolated("several_queues_give_each_client_one_director", || {
        // Without lvs_io::share: the kernel alone steers.
        let workers = through_two_queues(ForwardMethod::Nat, false, 8)?;
        // A question and an answer each: the kernel gave every packet to the right queue, and to one only.
        assert!(workers.iter().all(|(clients, received)| *received == 2 * *clients as u64), "{workers:?}");
        Ok(())
    });
}

#[test]
fn several_queues_give_the_answers_to_local_addresses_to_the_director_that_asked() {
    isolated("several_queues_give_the_answers_to_local_addresses_to_the_director_that_asked", || {
        let workers = through_two_queues(ForwardMethod::FullNat, false, 8)?;
        assert!(workers.iter().all(|(clients, received)| *received == 2 * *clients as u64), "{workers:?}");
        Ok(())
    });
}

#[test]
fn fragments_of_an_answer_to_a_local_address_find_the_director_that_asked() {
    isolated("fragments_of_an_answer_to_a_local_address_find_the_director_that_asked", || {
        through_two_queues(ForwardMethod::FullNat, true, 4000)?;
        Ok(())
    });
}

/// Sixteen clients ask a question of this length through two workers on two queues of one device, one question each:
/// for each worker, how many clients its director knew, and how many packets its queue received.
fn through_two_queues(forward: ForwardMethod, shares: bool, question_len: usize) -> Result<Vec<(usize, u64)>, Failure> {
    add_switch("lan")?;
    let clients: Vec<String> = (100..116).map(|host| format!("10.9.0.{host}/24")).collect();
    let server = Port::new("eth0", "lan", &["10.9.0.11/24"]);
    let server =
        clients.iter().fold(server, |port, client| port.route(&client.replace("/24", "/32"), Some("10.9.0.1")));
    let server = Party::new("server", vec![server], |ready| echo(16, ready))?;
    let (give_handles, handles) = mpsc::channel();
    let ports = vec![Port::new("eth0", "lan", &["10.9.0.1/24"])];
    let director =
        Party::new("director", ports, move |ready| direct_with_two_queues(forward, shares, &give_handles, ready))?;
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
    forward: ForwardMethod,
    shares: bool,
    give_handles: &mpsc::Sender<Vec<WorkerHandle>>,
    ready: &dyn Fn(),
) -> Result<Vec<(usize, u64)>, Failure> {
    let steering = Steering::new(2, vec!["10.9.0.11".parse::<Prefix>()?], Seed::new(5));
    let steering = steering.with_local_addresses(vec![address(LOCAL).into()]);

    let answers_for = vec![address(VIRTUAL), address(LOCAL)];
    let options = AfPacketOptions { answers_for, ..AfPacketOptions::of_host("eth0")? };
    let queues = AfPacketDevice::open_all("eth0", &options, &steering, None)?;
    let mut arms: Vec<_> = queues.into_iter().map(AfPacketDevice::into_arm).collect();
    if shares {
        arms = share(arms, &steering, None)?;
    }
    let mut running = Vec::new();
    for (shard, arm) in arms.into_iter().enumerate() {
        let local_ports = steering.local_ports(shard, LocalPorts::default());
        let mut director =
            Director::new(DirectorConfig::default().with(|config| config.local_ports = local_ports), Seed::new(1));
        let service = ServiceKey::address(Protocol::Udp, SocketAddr::new(address(VIRTUAL), PORT));
        director.apply(Instant::ZERO, &Command::AddService(service, ServiceConfig::new("rr")))?;
        director.apply(Instant::ZERO, &Command::AddLocalAddress(service, address(LOCAL)))?;
        let server = ServerConfig::new(SocketAddr::new(address(SERVER), PORT), forward);
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
    socket.connect((address(VIRTUAL), PORT))?;
    socket.send(&vec![7; question_len])?;
    let len = socket.recv(&mut [0; 4096]).map_err(|error| format!("no answer for {client}: {error}"))?;
    assert_eq!(len, question_len);
    Ok(())
}

/// Sends back so many datagrams.
fn echo(count: usize, ready: &dyn Fn()) -> Result<(), Failure> {
    let socket = UdpSocket::bind((address(SERVER), PORT))?;
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
        assert_eq!(
            forwarding,
            [check::Finding::HostForwards {
                device: "eth0".to_owned(),
                setting: "net.ipv4.conf.eth0.forwarding".to_owned()
            }]
        );
        Ok(())
    });
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("a constant")
}

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
