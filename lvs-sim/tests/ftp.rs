//! FTP between real TCP stacks through a NAT director: every file arrives, by every kind of data connection, although
//! the director makes some replies longer and others shorter.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use lvs_core::helper::ftp::Ftp;
use lvs_core::{Command, DirectorConfig, HelperRegistry, Seed, ServerConfig, ServiceConfig, ServiceKey};
use lvs_sim::{Conversation, Dialogue, Faults, Simulation};

/// How a file is asked for.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Ask {
    Pasv,
    Epsv,
    Port,
    Eprt,
}

/// What the two control ends want from the simulation, and what the data connections brought.
#[derive(Default)]
struct Board {
    /// Where the client wants to open data connections, and the server.
    client_opens: Vec<SocketAddr>,
    server_opens: Vec<SocketAddr>,
    files_said: usize,
    files_heard: Vec<Vec<u8>>,
}

type Shared = Rc<RefCell<Board>>;

/// Lines in, lines out.
#[derive(Default)]
struct Wire {
    heard: Vec<u8>,
    to_say: VecDeque<u8>,
}

impl Wire {
    fn lines(&mut self, bytes: &[u8]) -> Vec<String> {
        self.heard.extend(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.heard.windows(2).position(|window| window == b"\r\n") {
            let line: Vec<u8> = self.heard.drain(..end + 2).collect();
            lines.push(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        lines
    }

    fn say(&mut self, line: &str) {
        self.to_say.extend(line.bytes());
        self.to_say.extend(b"\r\n");
    }

    fn speak(&mut self, into: &mut [u8]) -> usize {
        let count = self.to_say.len().min(into.len());
        into.iter_mut().zip(self.to_say.drain(..count)).for_each(|(slot, byte)| *slot = byte);
        count
    }
}

/// The client's control connection.
struct ControlClient {
    wire: Wire,
    asks: VecDeque<Ask>,
    address: IpAddr,
    next_port: u16,
    is_done: bool,
    board: Shared,
}

impl ControlClient {
    fn ask_next(&mut self) {
        let Some(ask) = self.asks.pop_front() else { return self.wire.say("QUIT") };
        let port = self.next_port;
        self.next_port += u16::from(matches!(ask, Ask::Port | Ask::Eprt));
        let family = if self.address.is_ipv4() { 1 } else { 2 };
        self.wire.say(&match ask {
            Ask::Pasv => "PASV".into(),
            Ask::Epsv => "EPSV".into(),
            Ask::Port => format!("PORT {}", host_port(self.address, port)),
            Ask::Eprt => format!("EPRT |{family}|{}|{port}|", self.address),
        });
    }
}

impl Dialogue for ControlClient {
    fn hear(&mut self, bytes: &[u8]) {
        for line in self.wire.lines(bytes) {
            let (code, text) = line.split_at(3);
            match code {
                "220" | "226" => self.ask_next(),
                "227" => {
                    self.board.borrow_mut().client_opens.push(endpoint(text));
                    self.wire.say("RETR file");
                }
                "229" => {
                    let port = text.split('|').nth(3).and_then(|port| port.parse().ok()).expect("a port");
                    let virtual_address = VIRTUAL[usize::from(self.address.is_ipv6())].parse().expect("a constant");
                    self.board.borrow_mut().client_opens.push(SocketAddr::new(virtual_address, port));
                    self.wire.say("RETR file");
                }
                "200" => self.wire.say("RETR file"),
                "221" => self.is_done = true,
                _ => {}
            }
        }
    }

    fn speak(&mut self, into: &mut [u8]) -> usize {
        self.wire.speak(into)
    }

    fn has_said_all(&self) -> bool {
        self.is_done
    }
}

/// The server's control connection.
struct ControlServer {
    wire: Wire,
    address: IpAddr,
    next_port: u16,
    /// Where to open the data connection, in active mode.
    target: Option<SocketAddr>,
    files_asked: usize,
    files_done: usize,
    is_done: bool,
    board: Shared,
}

impl Dialogue for ControlServer {
    fn hear(&mut self, bytes: &[u8]) {
        for line in self.wire.lines(bytes) {
            let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
            match command {
                "PASV" => {
                    let list = host_port(self.address, self.passive_port());
                    self.wire.say(&format!("227 Entering Passive Mode ({list})."));
                }
                "EPSV" => {
                    let (family, port) = (if self.address.is_ipv4() { 1 } else { 2 }, self.passive_port());
                    // Longer than it has to be: the director takes the address out.
                    self.wire.say(&format!("229 Entering Extended Passive Mode (|{family}|{}|{port}|)", self.address));
                }
                "PORT" => {
                    self.target = Some(endpoint(argument));
                    self.wire.say("200 ok");
                }
                "EPRT" => {
                    let mut fields = argument.split('|').skip(2);
                    let address = fields.next().and_then(|address| address.parse().ok()).expect("an address");
                    let port = fields.next().and_then(|port| port.parse().ok()).expect("a port");
                    self.target = Some(SocketAddr::new(address, port));
                    self.wire.say("200 ok");
                }
                "RETR" => {
                    self.files_asked += 1;
                    self.wire.say("150 here it comes");
                    self.board.borrow_mut().server_opens.extend(self.target.take());
                }
                "QUIT" => {
                    self.wire.say("221 bye");
                    self.is_done = true;
                }
                _ => self.wire.say("500 what"),
            }
        }
    }

    fn speak(&mut self, into: &mut [u8]) -> usize {
        if self.files_done < self.files_asked.min(self.board.borrow().files_said) {
            self.files_done += 1;
            self.wire.say("226 done");
        }
        self.wire.speak(into)
    }

    fn has_said_all(&self) -> bool {
        self.is_done && self.wire.to_say.is_empty()
    }
}

impl ControlServer {
    fn passive_port(&mut self) -> u16 {
        self.next_port += 1;
        self.next_port - 1
    }
}

/// The end of a data connection that has the file.
struct FileSource {
    rest: VecDeque<u8>,
    board: Shared,
}

impl Dialogue for FileSource {
    fn hear(&mut self, _bytes: &[u8]) {}

    fn speak(&mut self, into: &mut [u8]) -> usize {
        let count = self.rest.len().min(into.len());
        into.iter_mut().zip(self.rest.drain(..count)).for_each(|(slot, byte)| *slot = byte);
        self.board.borrow_mut().files_said += usize::from(count > 0 && self.rest.is_empty());
        count
    }

    fn has_said_all(&self) -> bool {
        self.rest.is_empty()
    }
}

/// The end of a data connection that wants the file.
struct FileSink {
    heard: Vec<u8>,
    has_ended: bool,
    board: Shared,
}

impl Dialogue for FileSink {
    fn hear(&mut self, bytes: &[u8]) {
        self.heard.extend(bytes);
    }

    fn hear_end(&mut self) {
        self.has_ended = true;
        self.board.borrow_mut().files_heard.push(std::mem::take(&mut self.heard));
    }

    fn speak(&mut self, _into: &mut [u8]) -> usize {
        0
    }

    fn has_said_all(&self) -> bool {
        self.has_ended
    }
}

fn file() -> VecDeque<u8> {
    (0..20_000_u32).map(|index| (index % 251) as u8).collect()
}

fn host_port(address: IpAddr, port: u16) -> String {
    let IpAddr::V4(address) = address else { panic!("IPv6 has no PASV and PORT") };
    let [a, b, c, d] = address.octets();
    format!("{a},{b},{c},{d},{},{}", port >> 8, port & 0xff)
}

/// The endpoint in six numbers between commas, somewhere in a text.
fn endpoint(text: &str) -> SocketAddr {
    let list = text.trim_matches(|letter: char| !letter.is_ascii_digit());
    let list = list.rsplit(|letter: char| !letter.is_ascii_digit() && letter != ',').next().expect("a list");
    let numbers: Vec<u8> = list.split(',').map(|number| number.parse().expect("a number")).collect();
    let [a, b, c, d, high, low] = numbers.try_into().expect("six numbers");
    SocketAddr::new(IpAddr::from([a, b, c, d]), u16::from_be_bytes([high, low]))
}

const VIRTUAL: [&str; 2] = ["192.0.2.121", "2001:db8:21::121"];
const CLIENT: [&str; 2] = ["198.51.100.7", "2001:db8:1::7"];
const FIRST_PASSIVE_PORT: u16 = 51_210;
const FIRST_ACTIVE_PORT: u16 = 42_645;

/// Fetches a file for each `ask` from a server with this address; every one must arrive whole.
fn fetch(seed: u64, real: &str, asks: &[Ask], helper: Ftp, faults: Faults) {
    let real: IpAddr = real.parse().unwrap();
    let family = usize::from(real.is_ipv6());
    let [client, virtual_address]: [IpAddr; 2] = [CLIENT, VIRTUAL].map(|addresses| addresses[family].parse().unwrap());
    let mut helpers = HelperRegistry::default();
    helpers.register("ftp", helper);
    let mut sim =
        Simulation::with_config(Seed::new(seed), DirectorConfig::default().with(|config| config.helpers = helpers));
    let board = Shared::default();
    let (client_host, server_host) = (sim.client(&[client]), sim.server(&[real]));

    let service = ServiceKey::address(lvs_core::Protocol::Tcp, SocketAddr::new(virtual_address, 21));
    sim.apply(&Command::AddService(service, ServiceConfig::new("rr").helper("ftp"))).unwrap();
    sim.apply(&Command::AddServer(service, ServerConfig::nat(SocketAddr::new(real, 21)))).unwrap();
    serve(&mut sim, server_host, client_host, real, asks.len() as u16, &board);
    sim.set_all_faults(faults);

    let control = ControlClient {
        wire: Wire::default(),
        asks: asks.iter().copied().collect(),
        address: client,
        next_port: FIRST_ACTIVE_PORT,
        is_done: false,
        board: Rc::clone(&board),
    };
    let control = Conversation::dialogue(SocketAddr::new(virtual_address, 21), Box::new(control));
    let control = sim.converse(client_host, control);
    for _ in 0..100_000 {
        if sim.report(control).ended.is_some() {
            break;
        }
        sim.run_for(Duration::from_millis(5)).unwrap();
        open_data_connections(&mut sim, client_host, server_host, virtual_address, &board);
    }
    sim.run_until_idle().unwrap();
    for report in sim.reports() {
        assert!(report.is_complete(), "{real} {asks:?} seed {seed}: {report:?}");
    }
    let heard = &board.borrow().files_heard;
    assert_eq!(heard.len(), asks.len(), "{real} {asks:?} seed {seed}");
    assert!(heard.iter().all(|heard| file() == *heard), "{real} {asks:?} seed {seed}");
}

/// What the two hosts listen on: FTP and the passive ports, and the client's active ports.
fn serve(
    sim: &mut Simulation,
    server_host: lvs_sim::HostId,
    client_host: lvs_sim::HostId,
    real: IpAddr,
    count: u16,
    board: &Shared,
) {
    let shared = Rc::clone(board);
    sim.serve(server_host, 21, move || {
        let mut wire = Wire::default();
        wire.say("220 ready");
        Box::new(ControlServer {
            wire,
            address: real,
            next_port: FIRST_PASSIVE_PORT,
            target: None,
            files_asked: 0,
            files_done: 0,
            is_done: false,
            board: Rc::clone(&shared),
        })
    });
    for offset in 0..count {
        let shared = Rc::clone(board);
        sim.serve(server_host, FIRST_PASSIVE_PORT + offset, move || {
            Box::new(FileSource { rest: file(), board: Rc::clone(&shared) })
        });
        let shared = Rc::clone(board);
        sim.serve(client_host, FIRST_ACTIVE_PORT + offset, move || {
            Box::new(FileSink { heard: Vec::new(), has_ended: false, board: Rc::clone(&shared) })
        });
    }
}

fn open_data_connections(
    sim: &mut Simulation,
    client_host: lvs_sim::HostId,
    server_host: lvs_sim::HostId,
    virtual_address: IpAddr,
    board: &Shared,
) {
    let (by_client, by_server) = {
        let mut board = board.borrow_mut();
        (std::mem::take(&mut board.client_opens), std::mem::take(&mut board.server_opens))
    };
    for to in by_client {
        assert_eq!(to.ip(), virtual_address, "the client learns of no other address");
        let sink = FileSink { heard: Vec::new(), has_ended: false, board: Rc::clone(board) };
        sim.converse(client_host, Conversation::dialogue(to, Box::new(sink)));
    }
    for to in by_server {
        let source = FileSource { rest: file(), board: Rc::clone(board) };
        sim.converse(server_host, Conversation::dialogue(to, Box::new(source)).from_port(20));
    }
}

const EVERY_KIND: [Ask; 8] = [Ask::Pasv, Ask::Port, Ask::Epsv, Ask::Eprt, Ask::Pasv, Ask::Pasv, Ask::Epsv, Ask::Port];
/// Text shorter than the virtual address's, and longer.
const REAL: [&str; 2] = ["10.0.0.2", "10.100.200.200"];

#[test]
fn every_kind_of_transfer_completes_whether_replies_grow_or_shrink() {
    for (seed, real) in (1..).zip(REAL) {
        fetch(seed, real, &EVERY_KIND, Ftp::default(), Faults::NONE);
    }
    fetch(3, "fd00::2", &[Ask::Epsv, Ask::Eprt, Ask::Epsv, Ask::Epsv, Ask::Eprt], Ftp::default(), Faults::NONE);
}

#[test]
fn with_a_helper_that_repeats_no_loss_stops_a_transfer() {
    let faults = Faults { loss_permille: 80, duplicate_permille: 20, reorder_permille: 30, ..Faults::NONE };
    for seed in 1..=10 {
        for real in REAL {
            fetch(seed, real, &EVERY_KIND, Ftp { repeats: true }, faults);
        }
    }
}
