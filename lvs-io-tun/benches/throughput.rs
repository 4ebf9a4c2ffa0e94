//! Bulk TCP through a NAT director on two TUN devices, with super-packets passed through and with offloads off, in one
//! run. Client and server are threads of this process in network namespaces of their own, on the kernel's TCP stack.
//!
//! `cargo bench -p lvs-io-tun --bench throughput -- [SECONDS]` (default 2 for each of six measurements).
//! Needs `/dev/net/tun` and user namespaces; says what is denied and ends with status 0 otherwise.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use lvs_core::{Command, Director, DirectorConfig, Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey};
use lvs_io::{Counters, Worker};
use lvs_io_tun::{TunOptions, netns};

#[path = "../tests/party/mod.rs"]
mod party;

use party::{Failure, Party};

const VIRTUAL: &str = "192.0.2.80:5001";
const CLIENT: [u8; 4] = [203, 0, 113, 7];
const SERVER: &str = "10.0.0.2:5001";

fn main() {
    // `cargo test --benches` runs this too, without `--bench`: then only to see that it works.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let seconds = asked.unwrap_or(if is_bench { 2.0 } else { 0.05 });
    if let Err(error) = netns::enter_new_user_namespace() {
        println!("not run: no new user namespace: {error}");
        return;
    }
    let duration = Duration::from_secs_f64(seconds);
    match compare(duration) {
        Ok(()) => {}
        Err(error) => println!("not run: {error}"),
    }
}

/// Measures both ways three times in turn and prints each, then the ratio of the medians.
fn compare(duration: Duration) -> Result<(), Failure> {
    let mut rates = [const { Vec::new() }; 2];
    for _ in 0..3 {
        for (offloads, rates) in [true, false].into_iter().zip(&mut rates) {
            let measured = measure(offloads, duration)?;
            println!("{measured}");
            rates.push(measured.gigabits_per_s());
        }
    }
    let [with, without] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[1]
    });
    println!("median: {with:.2} Gbit/s with super-packets, {without:.2} without: {:.1} times as much", with / without);
    Ok(())
}

struct Measured {
    offloads: bool,
    bytes: u64,
    took: Duration,
    counters: Counters,
}

impl Measured {
    fn gigabits_per_s(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e9 / self.took.as_secs_f64()
    }
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let client = &self.counters.client;
        write!(
            f,
            "offloads {:3}: {:6.2} Gbit/s, {:6} bytes a packet, {} lost",
            if self.offloads { "on" } else { "off" },
            self.gigabits_per_s(),
            client.received_bytes / client.received.max(1),
            self.counters.server.queue_full + self.counters.server.send_failed,
        )
    }
}

/// One bulk transfer from the client to the virtual address.
fn measure(offloads: bool, duration: Duration) -> Result<Measured, Failure> {
    let options = TunOptions { offloads, ..TunOptions::default() };
    let (client_queue, client) = Party::new(options, vec![CLIENT.into()], send(duration))?;
    let (server_queue, server) = Party::new(options, vec![server_address().ip()], receive)?;
    let mut worker = Worker::new(director()?, client_queue.into_arm(), Some(server_queue.into_arm()))?;
    let handle = worker.handle();
    let running = thread::spawn(move || {
        let outcome = worker.run();
        (outcome, worker.counters().clone())
    });
    server.start()?;
    client.start()?;
    client.join()?;
    let (bytes, took) = server.join()?;
    handle.stop();
    let (outcome, counters) = running.join().expect("the worker does not panic");
    outcome?;
    Ok(Measured { offloads, bytes, took, counters })
}

fn director() -> Result<Director, Failure> {
    let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
    let service = ServiceKey::address(Protocol::Tcp, VIRTUAL.parse()?);
    let now = lvs_core::Instant::ZERO;
    director.apply(now, &Command::AddService(service, ServiceConfig::new("rr")))?;
    director.apply(now, &Command::AddServer(service, ServerConfig::nat(server_address())))?;
    Ok(director)
}

fn server_address() -> SocketAddr {
    SERVER.parse().expect("a constant")
}

fn send(duration: Duration) -> impl FnOnce(&dyn Fn()) -> Result<(), Failure> {
    move |ready| {
        let mut stream = TcpStream::connect(VIRTUAL)?;
        ready();
        let block = vec![0; 256 * 1024];
        let end = Instant::now() + duration;
        while Instant::now() < end {
            stream.write_all(&block)?;
        }
        Ok(())
    }
}

fn receive(ready: &dyn Fn()) -> Result<(u64, Duration), Failure> {
    let listener = TcpListener::bind(SERVER)?;
    ready();
    let (mut stream, _) = listener.accept()?;
    let start = Instant::now();
    let mut block = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        match stream.read(&mut block)? {
            0 => return Ok((bytes, start.elapsed())),
            count => bytes += count as u64,
        }
    }
}
