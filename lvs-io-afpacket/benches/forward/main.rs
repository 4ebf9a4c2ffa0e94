//! What a packet costs on its way through the director, beside the kernel's own forwarding: small UDP packets a second,
//! bulk TCP, and round trips, by plain routing, nftables DNAT (where `nft` is installed), a NAT director on AF_PACKET
//! and one on TUN. The same three namespaces and two veth pairs each time, in one run.
//!
//! `cargo bench -p lvs-io-afpacket --bench forward -- [SECONDS]` (default 2 for each measurement).
//! Needs user namespaces, and `/dev/net/tun` for TUN; says what is denied and ends with status 0.

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command as Program, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use lvs_core::{Command, Director, DirectorConfig, Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey};
use lvs_io::{Worker, WorkerHandle, netdev};
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions};
use lvs_io_tun::{TunOptions, TunQueue, netns};

type Failure = Box<dyn Error + Send + Sync>;

const CLIENT: &str = "203.0.113.7";
const DIRECTOR: [&str; 2] = ["203.0.113.1", "10.9.0.1"];
const SERVER: &str = "10.9.0.11";
const VIRTUAL: &str = "192.0.2.80";
const SINK: u16 = 5001;
const ECHO: u16 = 5002;
const BULK: u16 = 5003;

/// Who forwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// The kernel's routing, without any load balancing: the clients talk to the server itself.
    Routing,
    Nftables,
    AfPacket,
    Tun,
}

const WAYS: [(Way, &str); 4] = [
    (Way::Routing, "kernel routing"),
    (Way::Nftables, "nftables DNAT"),
    (Way::AfPacket, "AF_PACKET"),
    (Way::Tun, "TUN"),
];

fn main() {
    // `cargo test --benches` runs this too, without `--bench`: then only to see that it works.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let duration = Duration::from_secs_f64(asked.unwrap_or(if is_bench { 2.0 } else { 0.05 }));
    // Root needs no user namespace, and outside of one may have larger socket buffers.
    let is_root = thread::spawn(netns::enter_new_network_namespace).join().is_ok_and(|entered| entered.is_ok());
    if !is_root && let Err(error) = netns::enter_new_user_namespace() {
        println!("not run: no new user namespace: {error}");
        return;
    }
    println!(
        "{:15} {:>12} {:>7} {:>12} {:>7} {:>12}",
        "way", "packets/s", "ratio", "TCP Gbit/s", "ratio", "round trip"
    );
    let mut routing = None;
    for (way, name) in WAYS {
        match measure(way, duration) {
            Ok(measured) => {
                let base = *routing.get_or_insert(measured);
                println!(
                    "{name:15} {:>12.0} {:>7.2} {:>12.2} {:>7.2} {:>9.0} µs",
                    measured.packets,
                    measured.packets / base.packets,
                    measured.gigabits,
                    measured.gigabits / base.gigabits,
                    measured.round_trip_us,
                );
            }
            Err(error) => println!("{name:15} not run: {error}"),
        }
    }
}

#[derive(Clone, Copy)]
struct Measured {
    /// Small UDP packets that arrived, a second.
    packets: f64,
    gigabits: f64,
    /// The median, in microseconds.
    round_trip_us: f64,
}

/// Builds the network, lets `way` forward, and measures from the client.
fn measure(way: Way, duration: Duration) -> Result<Measured, Failure> {
    let (client, client_namespace) = Place::new()?;
    let (server, server_namespace) = Place::new()?;
    let (director, _) = Place::new()?;
    director.run(move || {
        for (device, namespace, address) in
            [("eth0", client_namespace, DIRECTOR[0]), ("eth1", server_namespace, DIRECTOR[1])]
        {
            netdev::add_veth(device, "eth0", namespace.as_fd())?;
            netdev::set_up(device)?;
            netdev::add_address(device, address.parse()?, 24)?;
        }
        Ok(())
    })?;
    client.run(|| configure(CLIENT, DIRECTOR[0]))?;
    server.run(|| configure(SERVER, DIRECTOR[1]))?;
    let arrived = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&arrived);
    server.run(move || serve(counter))?;
    let handle = director.run(move || forward(way))?;
    let target: IpAddr = if way == Way::Routing { SERVER } else { VIRTUAL }.parse()?;
    let measured = client.run(move || {
        Ok(Measured {
            round_trip_us: round_trip(target, duration)?,
            gigabits: bulk(target, duration)?,
            packets: flood(target, duration, &arrived)?,
        })
    });
    if let Some(handle) = handle {
        handle.stop();
    }
    measured
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own, to run things in.
struct Place {
    jobs: mpsc::Sender<Job>,
}

impl Place {
    fn new() -> Result<(Self, File), Failure> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let (give, namespace) = mpsc::channel();
        thread::spawn(move || {
            let entered = netns::enter_new_network_namespace().and_then(|()| File::open("/proc/thread-self/ns/net"));
            give.send(entered).expect("somebody waits");
            for job in waiting {
                job();
            }
        });
        Ok((Self { jobs }, namespace.recv()??))
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
        let (give, outcome) = mpsc::channel();
        // Nobody may wait for it.
        self.jobs.send(Box::new(move || drop(give.send(job())))).map_err(|_| "the place is closed")?;
        outcome.recv()?
    }
}

fn configure(address: &str, gateway: &str) -> Result<(), Failure> {
    netdev::set_up("eth0")?;
    netdev::add_address("eth0", address.parse()?, 24)?;
    Ok(netdev::add_route_via([0; 4].into(), 0, gateway.parse()?, "eth0")?)
}

/// Starts whoever forwards in the director's namespace.
fn forward(way: Way) -> Result<Option<WorkerHandle>, Failure> {
    let forwards = if way == Way::AfPacket { "0" } else { "1" };
    fs::write("/proc/sys/net/ipv4/ip_forward", forwards)?;
    let (client, server) = match way {
        Way::Routing => return Ok(None),
        Way::Nftables => return nftables().map(|()| None),
        Way::AfPacket => {
            let open = |device| Ok(AfPacketDevice::open(device, &AfPacketOptions::of_host(device)?)?.into_arm());
            let open = |device| -> Result<lvs_io::Arm, Failure> { open(device) };
            (open("eth0")?, Some(open("eth1")?))
        }
        Way::Tun => {
            let queue = TunQueue::open("lvs0", &TunOptions::default())?;
            netdev::set_up("lvs0")?;
            netdev::add_route(VIRTUAL.parse()?, 32, "lvs0")?;
            netdev::divert("eth1", "lvs0", 80)?;
            (queue.into_arm(), None)
        }
    };
    let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
    for (protocol, port) in [(Protocol::Udp, SINK), (Protocol::Udp, ECHO), (Protocol::Tcp, BULK)] {
        let service = ServiceKey::address(protocol, SocketAddr::new(VIRTUAL.parse()?, port));
        director.apply(lvs_core::Instant::ZERO, &Command::AddService(service, ServiceConfig::new("rr")))?;
        let server = ServerConfig::nat(SocketAddr::new(SERVER.parse()?, port));
        director.apply(lvs_core::Instant::ZERO, &Command::AddServer(service, server))?;
    }
    let mut worker = Worker::new(director, client, server)?;
    let handle = worker.handle();
    thread::spawn(move || worker.run());
    Ok(Some(handle))
}

fn nftables() -> Result<(), Failure> {
    let rules = format!(
        "table ip lvs {{ chain in {{ type nat hook prerouting priority -100; ip daddr {VIRTUAL} dnat to {SERVER}; }}; }}"
    );
    let mut nft = Program::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
    nft.stdin.take().ok_or("no input")?.write_all(rules.as_bytes())?;
    if nft.wait()?.success() { Ok(()) } else { Err("nft refused the rules".into()) }
}

/// Counts what comes to one port, sends back what comes to another, and swallows what comes by TCP.
fn serve(arrived: Arc<AtomicU64>) -> Result<(), Failure> {
    let sink = UdpSocket::bind(("0.0.0.0", SINK))?;
    thread::spawn(move || {
        let mut packet = [0; 64];
        while sink.recv(&mut packet).is_ok() {
            arrived.fetch_add(1, Ordering::Relaxed);
        }
    });
    let echo = UdpSocket::bind(("0.0.0.0", ECHO))?;
    thread::spawn(move || {
        let mut packet = [0; 64];
        while let Ok((len, from)) = echo.recv_from(&mut packet) {
            let _ = echo.send_to(&packet[..len], from);
        }
    });
    let bulk = TcpListener::bind(("0.0.0.0", BULK))?;
    thread::spawn(move || {
        for stream in bulk.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut total = 0u64;
            let mut block = vec![0; 1 << 18];
            while let Ok(count @ 1..) = stream.read(&mut block) {
                total += count as u64;
            }
            let _ = stream.write_all(&total.to_be_bytes());
        }
    });
    Ok(())
}

/// The median time from question to answer, in microseconds.
fn round_trip(target: IpAddr, duration: Duration) -> Result<f64, Failure> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((target, ECHO))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 10 || start.elapsed() < duration / 2 {
        let asked = Instant::now();
        socket.send(b"question")?;
        socket.recv(&mut [0; 64]).map_err(|error| format!("no answer: {error}"))?;
        times.push(asked.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn bulk(target: IpAddr, duration: Duration) -> Result<f64, Failure> {
    let mut stream = TcpStream::connect((target, BULK))?;
    let block = vec![7; 1 << 18];
    let start = Instant::now();
    while start.elapsed() < duration {
        stream.write_all(&block)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut total = [0; 8];
    stream.read_exact(&mut total)?;
    Ok(u64::from_be_bytes(total) as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64())
}

/// Sends as fast as it can; how many arrived, a second.
fn flood(target: IpAddr, duration: Duration, arrived: &AtomicU64) -> Result<f64, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((target, SINK))?;
    let sender = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            // A full queue refuses; the next may pass.
            let _ = socket.send(&[7; 18]);
        }
    });
    // Once it flows.
    thread::sleep(duration / 4);
    let (start, before) = (Instant::now(), arrived.load(Ordering::Relaxed));
    thread::sleep(duration);
    let count = arrived.load(Ordering::Relaxed) - before;
    let rate = count as f64 / start.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    sender.join().expect("the sender does not panic");
    Ok(rate)
}
