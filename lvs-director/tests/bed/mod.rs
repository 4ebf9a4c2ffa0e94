//! Machines on a switch, for tests of whole set-ups: network namespaces, the programs in them, and a listener on the wire.
//! A machine does what it is told, one thing after the other, or lets a program run.

#![allow(dead_code, reason = "each test uses its part")]

pub mod keepalived;

use std::any::Any;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lvs_client::Running;
use lvs_core::{Command as Change, Protocol, ServiceKey};
use lvs_director::http;
use lvs_io_tun::netns::NetworkNamespace;
use lvs_testkit::network::{Failure, Party, Port};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with somebody in it.
pub struct Machine {
    jobs: Sender<Job>,
    _party: Party<()>,
}

impl Machine {
    pub fn new(name: &'static str, ports: Vec<Port>) -> Result<Self, Failure> {
        let (jobs, todo) = channel::<Job>();
        let party = Party::new(name, ports, move |ready| {
            ready();
            todo.iter().for_each(|job| job());
            Ok(())
        })?;
        party.start()?;
        Ok(Self { jobs, _party: party })
    }

    /// Does something there, and returns what came of it.
    pub fn run<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let (told, tell) = channel();
        let job = move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
            let _ = told.send(outcome);
        };
        self.jobs.send(Box::new(job)).expect("the machine is there");
        let outcome: Result<T, Box<dyn Any + Send>> = tell.recv().expect("the machine is there");
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Lets a program run there. What it says goes to the file.
    pub fn spawn(&self, mut command: Command, said: &Path) -> Process {
        let out = File::create(said).expect("a file");
        command.stdout(out.try_clone().expect("a file")).stderr(out);
        let name = format!("{:?}", command.get_program());
        let child = self.run(move || command.spawn()).unwrap_or_else(|error| panic!("{name}: {error}"));
        Process(child)
    }

    /// Serves HTTP at this address, a thread a connection, until what is returned is dropped. Says what it is called.
    pub fn serve(&self, name: &'static str, at: SocketAddr) -> Server {
        let listener = self.run(move || TcpListener::bind(at)).unwrap_or_else(|error| panic!("{at}: {error}"));
        let stop = listener.try_clone().expect("a descriptor");
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                thread::spawn(move || http::serve(name, stream, Instant::now() + PATIENCE));
            }
        });
        Server(stop)
    }

    /// One request: who answered, or what went wrong.
    pub fn get(&self, from: SocketAddr) -> std::io::Result<String> {
        self.run(move || http::get(from, 10, Instant::now() + Duration::from_secs(10))).map(|answer| answer.server)
    }

    /// Asks again and again, each time by a new connection, until what is returned is asked for what came of it.
    pub fn keep_asking(&self, from: SocketAddr) -> Traffic {
        let namespace = self.run(|| NetworkNamespace::current().expect("/proc is mounted"));
        let (stop, stopped) = channel::<()>();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::clone(&requests);
        let thread = thread::spawn(move || {
            namespace.enter().expect("root here");
            while matches!(stopped.try_recv(), Err(TryRecvError::Empty)) {
                let begun = Instant::now();
                let outcome = http::get(from, 10, begun + Duration::from_secs(3));
                let outcome = outcome.map(|answer| answer.server).map_err(|error| error.to_string());
                asked.lock().expect("no panic").push(Request { begun, ended: Instant::now(), outcome });
                thread::park_timeout(Duration::from_millis(2));
            }
        });
        Traffic { stop, thread, requests }
    }

    /// Everything that comes by `eth0` from now on.
    pub fn listen(&self) -> Wire {
        let socket = self.run(packet_socket).expect("root here");
        let frames = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&frames);
        thread::spawn(move || {
            let mut frame = [0; 2048];
            while let Ok((len, _)) = rustix::net::recv(&socket, &mut frame, rustix::net::RecvFlags::empty()) {
                heard.lock().expect("no panic").push(frame[..len].to_vec());
            }
        });
        Wire(frames)
    }
}

fn packet_socket() -> std::io::Result<std::os::fd::OwnedFd> {
    use rustix::net::{AddressFamily, Protocol, SocketType};
    // ETH_P_ALL, in network order.
    let all = Protocol::from_raw(std::num::NonZeroU32::new(u32::from(3_u16.to_be())).expect("a constant"));
    Ok(rustix::net::socket(AddressFamily::PACKET, SocketType::RAW, Some(all))?)
}

/// What was heard on the wire.
pub struct Wire(Arc<Mutex<Vec<Vec<u8>>>>);

impl Wire {
    /// The frames that `wanted` is true of.
    pub fn count(&self, wanted: impl Fn(&[u8]) -> bool) -> usize {
        self.0.lock().expect("no panic").iter().filter(|frame| wanted(frame)).count()
    }
}

/// Is the frame a TCP segment from this address with RST, or an ICMP error from it?
pub fn is_refusal(frame: &[u8], from: SocketAddr) -> bool {
    let Some((protocol, source, rest)) = packet(frame) else { return false };
    let is_from_port = || rest.first_chunk().copied().map(u16::from_be_bytes) == Some(from.port());
    source == from.ip()
        && match protocol {
            6 => is_from_port() && rest.get(13).is_some_and(|flags| flags & 4 != 0),
            // Destination unreachable.
            1 => rest.first() == Some(&3),
            58 => rest.first() == Some(&1),
            _ => false,
        }
}

/// Protocol, source and what follows the IP header.
fn packet(frame: &[u8]) -> Option<(u8, IpAddr, &[u8])> {
    match frame.get(12..14)? {
        [8, 0] => {
            let packet = &frame[14..];
            let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            Some((*packet.get(9)?, source.into(), packet.get(usize::from(packet[0] & 15) * 4..)?))
        }
        [0x86, 0xdd] => {
            let source: [u8; 16] = frame.get(22..38)?.try_into().ok()?;
            Some((*frame.get(20)?, source.into(), frame.get(54..)?))
        }
        _ => None,
    }
}

/// A client that keeps asking.
pub struct Traffic {
    stop: Sender<()>,
    thread: thread::JoinHandle<()>,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// One request of many.
#[derive(Clone, Debug)]
pub struct Request {
    pub begun: Instant,
    pub ended: Instant,
    /// Who answered, or what went wrong.
    pub outcome: Result<String, String>,
}

impl Traffic {
    /// All that was asked.
    pub fn end(self) -> Vec<Request> {
        drop(self.stop);
        self.thread.join().expect("it does not panic");
        self.requests.lock().expect("no panic").clone()
    }

    /// How many were begun since, and have ended.
    pub fn count_since(&self, since: Instant) -> usize {
        self.requests.lock().expect("no panic").iter().filter(|request| request.begun >= since).count()
    }
}

/// A program that is killed with this.
pub struct Process(Child);

impl Process {
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.0.id() as i32).expect("a process"), signal).expect("it runs");
    }

    /// Whether it went well.
    pub fn wait(mut self) -> bool {
        self.0.wait().expect("it was started").success()
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that ends with this.
pub struct Server(TcpListener);

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the thread that waits for clients, and takes none any more.
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

/// A folder that is there while the test is.
pub struct Folder(pub PathBuf);

impl Folder {
    /// An empty one.
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        // Short, as paths of sockets have to be.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("lvsd-bed-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).expect("a file");
        self.path(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An `lvsd` on a machine.
pub struct Lvsd {
    pub process: Process,
    control: PathBuf,
    said: PathBuf,
}

impl Lvsd {
    /// Starts it on `eth0`, with the host's addresses, and waits until it forwards.
    pub fn start(machine: &Machine, folder: &Folder, name: &str, rules: &str) -> Self {
        Self::start_with(machine, folder, name, rules, &["--afpacket", "eth0", "--addresses", "host"])
    }

    /// Starts it with these options, and waits until it forwards.
    pub fn start_with(machine: &Machine, folder: &Folder, name: &str, rules: &str, options: &[&str]) -> Self {
        let rules = folder.write(&format!("{name}.rules"), rules);
        let control = folder.path(name).join("control.sock");
        let mut command = Command::new(env!("CARGO_BIN_EXE_lvsd"));
        command.arg("run").arg(rules).args(options).arg("--control").arg(&control);
        let said = folder.path(&format!("{name}.said"));
        let lvsd = Self { process: machine.spawn(command, &said), control, said };
        let is_ready = || lvsd.ask(|running| running.state()).is_some_and(|it| it.is_ready);
        assert!(comes_to_be(is_ready), "{name} does not become ready: {}", lvsd.said());
        lvsd
    }

    pub fn control(&self) -> &Path {
        &self.control
    }

    /// What it has said.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// Asks it something; `None` if nobody answers.
    pub fn ask<T>(&self, question: impl FnOnce(&mut Running) -> Result<T, lvs_client::Trouble>) -> Option<T> {
        Running::connect(&self.control).ok().and_then(|mut running| question(&mut running).ok())
    }

    /// The servers of a TCP service: addresses with weights, in order.
    pub fn servers(&self, service: SocketAddr) -> Vec<(SocketAddr, u32)> {
        let key = ServiceKey::address(Protocol::Tcp, service);
        let found = self.ask(|running| {
            let mut services = vec![running.service(&key)?];
            running.fill_servers(&mut services)?;
            Ok(services)
        });
        let servers = found.into_iter().flatten().flat_map(|service| service.servers).map(|server| server.config);
        let mut servers: Vec<_> =
            servers.map(|server| (SocketAddr::new(server.key.address, server.key.port), server.weight)).collect();
        servers.sort_unstable();
        servers
    }

    /// Waits until the service's servers are these.
    pub fn has(&self, service: SocketAddr, servers: &[(SocketAddr, u32)]) {
        let is_so = comes_to_be(|| self.servers(service) == servers);
        assert!(is_so, "{service} has {:?}, not {servers:?}; lvsd: {}", self.servers(service), self.said());
    }

    /// Carries out rules.
    pub fn change(&self, rules: &str) {
        let changes: Vec<Change> = lvs_admin::parse_rules(rules).expect("rules");
        for change in changes {
            self.ask(|running| running.apply(&change)).unwrap_or_else(|| panic!("refused: {change:?}"));
        }
    }
}

/// Asks again and again.
///
/// # Panics
/// If it is not so after [`PATIENCE`].
pub fn wait_until(what: &str, is_so: impl FnMut() -> bool) {
    assert!(comes_to_be(is_so), "{what}: it is not so after {PATIENCE:?}");
}

/// Whether it comes to be so in time.
pub fn comes_to_be(mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > end {
            return false;
        }
        thread::park_timeout(Duration::from_millis(10));
    }
    true
}

/// Whether a connection to this address is refused at once.
pub fn refuses(machine: &Machine, at: SocketAddr) -> bool {
    let outcome = machine.run(move || TcpStream::connect_timeout(&at, Duration::from_secs(10)));
    matches!(outcome, Err(error) if error.kind() == ErrorKind::ConnectionRefused)
}

/// Past the runner, which shows only what failing tests print.
pub fn skipped(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
}
