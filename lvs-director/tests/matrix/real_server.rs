//! The real servers of a row: what makes a host one, by this test's own means or by `lvsd realserver`, and that the
//! latter is undone exactly.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use lvs_core::service::{TunnelConfig, TunnelKind};
use lvs_core::tunnel::Accepts;
use lvs_core::{Director, DirectorConfig, Seed};
use lvs_director::realserver::silence;
use lvs_io::{OnPass, Worker, netdev};
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions};
use lvs_testkit::network::Failure;

use crate::ground::{NAMES, PORT, set};
use crate::rows::{GUE_PORT, Method, Row, SetUp};
use crate::traffic::{Guests, serve};
use crate::wire::{Capture, Wire};

/// What a server has seen.
#[derive(Debug)]
pub struct Served {
    pub guests: Guests,
    /// On its cable.
    pub wire: Wire,
}

/// Serves in the calling thread's namespace until `finished`.
pub fn run(row: Row, index: usize, finished: &mpsc::Receiver<()>, ready: &dyn Fn()) -> Result<Served, Failure> {
    let capture = Capture::start("eth0")?;
    let before = Snapshot::take()?;
    let virtual_address = row.virtual_address().ip();
    let at = match (row.method.is_answered_straight(), row.set_up) {
        (false, _) => row.server(index),
        (true, _) => row.virtual_address(),
    };
    let by_lvsd = match (row.method, row.set_up) {
        (Method::Nat | Method::FullNat, _) => None,
        (_, SetUp::Lvsd) => Some(Lvsd::start(&row, index)?),
        (method, SetUp::Test) => {
            take_address(virtual_address)?;
            if let Method::Tunnel(config) = method {
                end_tunnels(config, virtual_address)?;
            }
            None
        }
    };
    let guests = serve(SocketAddr::new(at.ip(), PORT), NAMES[index])?;
    ready();
    finished.recv()?;
    if let Some(lvsd) = by_lvsd {
        lvsd.stop()?;
        assert_eq!(Snapshot::take()?, before, "what lvsd realserver did was not undone");
    }
    let guests = guests.lock().map_err(|_| "a server has panicked")?.clone();
    Ok(Served { guests, wire: capture.stop()? })
}

/// The address is ours, but the link need not know (arp_ignore, arp_announce: ip-sysctl).
fn take_address(address: IpAddr) -> Result<(), Failure> {
    set("ipv4/conf/all/arp_ignore", "1")?;
    set("ipv4/conf/all/arp_announce", "2")?;
    Ok(netdev::add_address("lo", address, if address.is_ipv4() { 32 } else { 128 })?)
}

/// Takes what comes through tunnels out of them, for as long as this process lives, and hands it to the kernel by a
/// pair of Ethernet devices: what is sent by the one comes in by the other. Other tunnels than the row's are left
/// alone.
fn end_tunnels(config: TunnelConfig, address: IpAddr) -> Result<(), Failure> {
    let here = File::open("/proc/thread-self/ns/net")?;
    netdev::add_veth("end0", "end1", here.as_fd())?;
    // Clients are not behind it.
    set("ipv4/conf/all/rp_filter", "0")?;
    set("ipv4/conf/end1/rp_filter", "0")?;
    netdev::set_up("end0")?;
    netdev::set_up("end1")?;
    let silent = AfPacketOptions { announces: false, ..AfPacketOptions::default() };
    let host = AfPacketDevice::open("end1", &silent)?.mac();
    let to_host = AfPacketOptions { static_neighbours: vec![(address, host)], ..silent.clone() };
    let to_host = AfPacketDevice::open("end0", &to_host)?.into_arm().sink;
    let accepts = Accepts {
        ipip: config.kind == TunnelKind::Ipip,
        gre: config.kind == TunnelKind::Gre,
        gue_port: (config.kind == TunnelKind::Gue).then_some(config.port),
    };
    let arm = AfPacketDevice::open("eth0", &silent)?.into_arm().with_tunnel_end(accepts, vec![address]);
    let unread = silence(accepts.gue_port)?;
    let nobody = Director::new(DirectorConfig::default(), Seed::new(1));
    let mut worker = Worker::new(nobody, arm, None)?.with_on_pass(OnPass::ToHost(to_host));
    thread::spawn(move || {
        let _unread = unread;
        worker.run()
    });
    Ok(())
}

/// `lvsd realserver`, started.
struct Lvsd {
    /// Where it remembers what it did: both servers' hosts have the same `/run`.
    memory: PathBuf,
    /// With tunnels it stays.
    running: Option<Child>,
}

impl Lvsd {
    fn start(row: &Row, index: usize) -> Result<Self, Failure> {
        let file = format!("lvsd-{}-{}-{}.memory", row.name(), NAMES[index], std::process::id());
        let mut lvsd = Self { memory: std::env::temp_dir().join(file), running: None };
        let address = row.virtual_address().ip().to_string();
        let start = ["start", "--vip", &address];
        let changed = format!("lo has {address}/");
        if let Method::Tunnel(config) = row.method {
            let mut command = lvsd.command(&start);
            command.args(["--tunnel", "eth0"]);
            if config.kind == TunnelKind::Gue {
                command.args(["--gue-port", &GUE_PORT.to_string()]);
            }
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
            let mut first_line = String::new();
            BufReader::new(child.stderr.take().ok_or("a pipe")?).read_line(&mut first_line)?;
            lvsd.running = Some(child);
            assert!(first_line.starts_with("lvsd: ending tunnels on eth0 by lvsend0"), "{first_line}");
        } else {
            let said = lvsd.call(&start)?;
            assert!(said.contains(&changed), "{said}");
        }
        let status = lvsd.call(&["status"])?;
        assert!(status.contains(&changed) && !status.contains("undone"), "{status}");
        Ok(lvsd)
    }

    fn stop(mut self) -> Result<(), Failure> {
        match self.running.take() {
            Some(mut child) => {
                let id = rustix::process::Pid::from_child(&child);
                rustix::process::kill_process(id, rustix::process::Signal::INT)?;
                let status = child.wait()?;
                assert!(status.success(), "{status}");
            }
            None => {
                let said = self.call(&["stop"])?;
                assert!(said.contains("lo no longer has "), "{said}");
            }
        }
        assert_eq!(self.call(&["status"])?, "not a real server\n");
        assert!(!self.memory.exists());
        Ok(())
    }

    fn command(&self, words: &[&str]) -> Command {
        // Another user may not be able to read the one cargo has built.
        let lvsd = std::env::var_os("LVSD").unwrap_or_else(|| env!("CARGO_BIN_EXE_lvsd").into());
        let mut command = Command::new(lvsd);
        command.arg("realserver").args(words).arg("--memory").arg(&self.memory);
        command
    }

    /// What it says.
    fn call(&self, words: &[&str]) -> Result<String, Failure> {
        let output = self.command(words).output()?;
        assert!(output.status.success(), "{words:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for Lvsd {
    fn drop(&mut self) {
        if let Some(child) = &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(&self.memory);
    }
}

/// All devices' addresses, and all settings that devices have.
#[derive(PartialEq, Eq, Debug)]
struct Snapshot {
    addresses: Vec<(IpAddr, u8)>,
    settings: BTreeMap<PathBuf, String>,
}

impl Snapshot {
    fn take() -> Result<Self, Failure> {
        let mut settings = BTreeMap::new();
        for family in ["ipv4", "ipv6"] {
            let Ok(devices) = fs::read_dir(format!("/proc/sys/net/{family}/conf")) else { continue };
            for device in devices {
                for setting in fs::read_dir(device?.path())? {
                    let path = setting?.path();
                    // A few cannot be read.
                    if let Ok(value) = fs::read_to_string(&path) {
                        settings.insert(path, value);
                    }
                }
            }
        }
        let mut addresses = netdev::addresses("lo")?;
        addresses.extend(netdev::addresses("eth0")?);
        addresses.sort_unstable();
        Ok(Self { addresses, settings })
    }
}
