//! Downloads that go on while `lvsd` is started again: ended as an operator does it, and killed. NAT and FullNAT, over
//! IPv4 and IPv6, on Ethernet with two workers.

mod bed;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bed::{Folder, Lvsd, Machine, PATIENCE, wait_until};
use lvs_io::netdev;
use lvs_testkit::network::{Failure, Port, add_switch, isolated};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::Signal;

const CLIENTS: u8 = 4;
const VIRTUAL: [&str; 2] = ["192.0.2.80", "fd05::80"];
const LOCALS: [&str; 2] = ["10.2.0.200", "fd02::200"];
const SERVERS: [&str; 2] = ["10.2.0.11", "fd02::11"];
const NAT: u16 = 80;
const FULL_NAT: u16 = 81;
/// What each download has to come on by, to be one that goes on.
const PROGRESS: u64 = 64 << 10;

/// IPv4 only where the kernel has no IPv6.
fn families() -> usize {
    if netdev::has_ipv6() { 2 } else { 1 }
}

fn at(addresses: [&str; 2], family: usize, port: u16) -> SocketAddr {
    SocketAddr::new(addresses[family].parse().expect("a constant"), port)
}

fn client(number: u8, family: usize) -> IpAddr {
    ["10.1.0.", "fd01::"].map(|base| format!("{base}{}", 10 + number))[family].parse().expect("an address")
}

struct Network {
    client: Machine,
    host: Machine,
    _server: Machine,
    folder: Folder,
    /// Servers send until this is so.
    enough: Arc<AtomicBool>,
}

impl Network {
    fn new() -> Result<Self, Failure> {
        add_switch("front")?;
        add_switch("back")?;
        let port = |device, switch, addresses: &[String], gateways: [&str; 2]| {
            let all = ["0.0.0.0/0", "::/0"].into_iter().zip(gateways).take(families());
            let gateways = all.filter(|(_, gateway)| !gateway.is_empty());
            gateways.fold(Port::new(device, switch, addresses), |port, (all, gateway)| port.route(all, Some(gateway)))
        };
        let both = |ipv4: &str, ipv6: &str| [format!("{ipv4}/24"), format!("{ipv6}/64")][..families()].to_vec();
        let of_clients: Vec<String> = (0..families())
            .flat_map(|family| (0..CLIENTS).map(move |number| (family, client(number, family))))
            .map(|(family, address)| format!("{address}/{}", [24, 64][family]))
            .collect();
        let client = Machine::new("client", vec![port("eth0", "front", &of_clients, ["10.1.0.1", "fd01::1"])])?;
        let host = vec![
            port("eth0", "front", &both("10.1.0.1", "fd01::1"), [""; 2]),
            port("eth1", "back", &both("10.2.0.1", "fd02::1"), [""; 2]),
        ];
        let host = Machine::new("host", host)?;
        let server = both(SERVERS[0], SERVERS[1]);
        let server = Machine::new("server", vec![port("eth0", "back", &server, ["10.2.0.1", "fd02::1"])])?;
        let enough = Arc::new(AtomicBool::new(false));
        for family in 0..families() {
            let listener = server.run(move || TcpListener::bind(at(SERVERS, family, 8080)))?;
            let enough = Arc::clone(&enough);
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let enough = Arc::clone(&enough);
                    thread::spawn(move || send(stream, &enough));
                }
            });
        }
        Ok(Self { client, host, _server: server, folder: Folder::new(), enough })
    }

    fn lvsd(&self) -> Lvsd {
        let rules: String = (0..families())
            .map(|family| {
                let [nat, full_nat] = [NAT, FULL_NAT].map(|port| at(VIRTUAL, family, port));
                let (server, local) = (at(SERVERS, family, 8080), LOCALS[family]);
                format!(
                    "-A -t {nat} -s rr\n-a -t {nat} -r {server} -m\n\
                     -A -t {full_nat} -s rr\n--add-laddr -t {full_nat} --local-address {local}\n\
                     -a -t {full_nat} -r {server} --fullnat\n"
                )
            })
            .collect();
        let state = self.folder.path("state");
        let state = state.to_str().expect("text");
        let options = ["--afpacket", "eth0,eth1", "--workers", "2", "--state", state, "--state-every", "1"];
        Lvsd::start_with(&self.host, &self.folder, "lvsd", &rules, &options)
    }

    fn download(&self, from: IpAddr, to: SocketAddr) -> Download {
        let stream =
            self.client.run(move || connect(from, to)).unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
        Download::of(stream, format!("{from} to {to}"))
    }

    /// Which file holds the state: each save makes another one.
    fn saved(&self) -> Option<u64> {
        fs::metadata(self.folder.path("state").join("connections")).ok().map(|file| file.ino())
    }
}

/// Sends numbers one after the other until it is enough.
fn send(mut stream: TcpStream, enough: &AtomicBool) -> io::Result<()> {
    let mut number = 0_u64;
    while !enough.load(Ordering::Relaxed) {
        let block: Vec<u8> = (number..number + 512).flat_map(u64::to_be_bytes).collect();
        stream.write_all(&block)?;
        number += 512;
        // At its own pace, so that it lasts.
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddr::new(from, 0))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
    rustix::net::connect(&socket, &to)?;
    Ok(socket.into())
}

/// Reads what a server sends, and whether it is that.
struct Download {
    name: String,
    received: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<()>>,
}

impl Download {
    fn of(stream: TcpStream, name: String) -> Self {
        let received = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&received);
        let thread = thread::spawn(move || {
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut number = 0_u64;
            let mut word = [0; 8];
            let mut stream = io::BufReader::new(stream);
            loop {
                match stream.read_exact(&mut word) {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                    outcome => outcome?,
                }
                if u64::from_be_bytes(word) != number {
                    return Err(io::Error::other(format!("{word:?} in place of {number}")));
                }
                number += 1;
                count.store(8 * number, Ordering::Relaxed);
            }
        });
        Self { name, received, thread }
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// Waits until each has come on.
fn go_on(downloads: &[Download], lvsd: &Lvsd) {
    let before: Vec<u64> = downloads.iter().map(Download::received).collect();
    for (download, before) in downloads.iter().zip(before) {
        let comes = bed::comes_to_be(|| download.received() >= before + PROGRESS || download.thread.is_finished());
        let is_broken = download.thread.is_finished() || !comes;
        assert!(!is_broken, "{} does not go on; lvsd: {}", download.name, lvsd.said());
    }
}

#[test]
fn downloads_go_on_over_a_restart_and_over_a_death() {
    let name = "downloads_go_on_over_a_restart_and_over_a_death";
    isolated(
        name,
        || Ok::<(), Failure>(()),
        || {
            let network = Network::new()?;
            let lvsd = network.lvsd();
            let downloads: Vec<Download> = (0..families())
                .flat_map(|family| (0..CLIENTS).map(move |number| (family, number)))
                .flat_map(|(family, number)| [(family, number, NAT), (family, number, FULL_NAT)])
                .map(|(family, number, port)| network.download(client(number, family), at(VIRTUAL, family, port)))
                .collect();
            go_on(&downloads, &lvsd);

            lvsd.process.signal(Signal::TERM);
            assert!(lvsd.process.wait(), "it ends well");
            let lvsd = network.lvsd();
            assert!(
                lvsd.said().contains(&format!("{} connections and 0 templates go on", downloads.len())),
                "{}",
                lvsd.said()
            );
            go_on(&downloads, &lvsd);

            // Of now, and whole: the second from here was begun after this.
            for _ in 0..2 {
                let before = network.saved();
                wait_until("it saves", || network.saved() != before);
            }
            lvsd.process.signal(Signal::KILL);
            assert!(!lvsd.process.wait(), "it was killed");
            let lvsd = network.lvsd();
            go_on(&downloads, &lvsd);

            network.enough.store(true, Ordering::Relaxed);
            for Download { name, thread, .. } in downloads {
                thread.join().expect("it does not panic").unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            Ok(())
        },
    );
}
