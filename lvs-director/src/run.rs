//! `lvsd run`: a director in the foreground, configured by an `ipvsadm-save` file, on one TUN device or two, until
//! Ctrl-C. Decides what is said when something is denied, and what is printed at the end.

use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use lvs_core::{Director, DirectorConfig, DropReason, Instant, Seed, ServiceKey, Side};
use lvs_io::{Arm, Clock, Host, HostConfig, MonotonicClock, OnPass, Worker, WorkerHandle};
use lvs_io_tun::{TunOptions, TunQueue, netdev};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::denied::Denied;
use crate::{listing, rules};

/// Runs a director with the rules in the file `rules` on the TUN devices `tun` (the clients' and the servers', or one
/// for both) until SIGINT or SIGTERM; then prints its tables to standard output. Fails, with a sentence on standard
/// error, if the rules cannot be read or carried out, a device is denied, or one fails under way.
pub fn run(rules: &Path, tun: &[String]) -> ExitCode {
    match forward(rules, tun) {
        Ok(tables) => {
            crate::print(&tables);
            ExitCode::SUCCESS
        }
        Err(complaint) => {
            eprintln!("lvsd: {complaint}");
            ExitCode::FAILURE
        }
    }
}

/// Does it all, and returns the tables as they are at the end.
fn forward(rules: &Path, tun: &[String]) -> Result<String, String> {
    let text = fs::read_to_string(rules).map_err(|error| format!("cannot read {}: {error}", rules.display()))?;
    let sides = [tun.first(), tun.last()].map(|name| side(name.map(String::as_str).unwrap_or_default()));
    let mut director = Director::new(config(sides), seed().map_err(|denied| denied.to_string())?);
    rules::load(&mut director, &text).map_err(|error| format!("{}, {error}", rules.display()))?;
    let host = host_stand_in(&director, sides);

    let mut arms = Vec::new();
    for name in tun {
        arms.push(arm(name).map_err(|denied| denied.to_string())?);
    }
    let mut arms = arms.into_iter();
    let client_arm = arms.next().ok_or("no device was named")?;
    let clock = MonotonicClock::new();
    let mut worker = Worker::new(director, client_arm, arms.next())
        .and_then(|worker| {
            stop_on_signals(worker.handle())?;
            Ok(worker.with_clock(clock).with_on_pass(OnPass::Route(Box::new(host))))
        })
        .map_err(|cause| Denied::new("start the director", cause).to_string())?;

    eprintln!("lvsd: forwarding on {}; Ctrl-C ends it and prints the tables", tun.join(" and "));
    worker.run().map_err(|error| format!("stopped: {error}"))?;
    Ok(last_words(&mut worker, clock))
}

/// A side whose link is the device called `name`, with its MTU where the device exists already.
fn side(name: &str) -> Side {
    let mtu = fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok().and_then(|mtu| mtu.trim().parse().ok());
    Side { mtu: mtu.unwrap_or(Side::default().mtu), ..Side::default() }
}

fn config([client_side, server_side]: [Side; 2]) -> DirectorConfig {
    DirectorConfig { client_side, server_side, ..DirectorConfig::default() }
}

/// A secret nobody outside can guess.
fn seed() -> Result<Seed, Denied> {
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|cause| Denied::new("read /dev/urandom", cause))?;
    Ok(Seed::new(u64::from_ne_bytes(bytes)))
}

/// Nothing stands behind the director that would own the virtual addresses: this answers for them where no service
/// does (a RST to a stray segment, an echo reply) and routes between clients and servers.
fn host_stand_in(director: &Director, [client_side, server_side]: [Side; 2]) -> Host {
    let services = director.services(Instant::ZERO);
    let virtual_address = |key: &ServiceKey| match key {
        ServiceKey::Address { address, .. } => Some(*address),
        ServiceKey::FwMark { .. } => None,
    };
    let mut local_addresses: Vec<IpAddr> =
        services.iter().filter_map(|service| virtual_address(&service.key)).collect();
    local_addresses.sort_unstable();
    local_addresses.dedup();
    let servers = services.iter().flat_map(|service| &service.servers).map(|server| server.config.key.address);
    let servers = servers.map(|address| (address, if address.is_ipv4() { 32 } else { 128 })).collect();
    Host::new(HostConfig { client_side, server_side, local_addresses, servers }, Seed::new(0))
}

fn arm(name: &str) -> Result<Arm, Denied> {
    let tun = TunQueue::open(name, &TunOptions::default())?;
    // An ordinary user may use a device root made for them, but not bring it up; root may have done that too.
    if let Err(error) = netdev::set_up(tun.name())
        && !is_up(name)
    {
        eprintln!("lvsd: {error}; let root do it: 'ip link set {name} up'");
    }
    Ok(tun.into_arm())
}

fn is_up(name: &str) -> bool {
    let flags = fs::read_to_string(format!("/sys/class/net/{name}/flags")).unwrap_or_default();
    // IFF_UP is bit 0 of the flags, which are printed in hexadecimal.
    u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).is_ok_and(|flags| flags & 1 != 0)
}

/// Ends the worker on SIGINT (Ctrl-C) and SIGTERM.
fn stop_on_signals(worker: WorkerHandle) -> io::Result<()> {
    let (mut signalled, signal) = UnixStream::pair()?;
    for number in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(number, signal.try_clone()?)?;
    }
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        // Whatever ends the wait, it is time to go.
        let _ = signalled.read(&mut [0]);
        worker.stop();
    })?;
    Ok(())
}

/// The tables, and what was refused.
fn last_words(worker: &mut Worker, clock: MonotonicClock) -> String {
    let counters = worker.counters().clone();
    let director = worker.director_mut();
    let now = listing::publish_counters(director, clock.now());
    let mut text = format!("{}\n{}\n", listing::load(director, now), listing::statistics(director, now));
    text.push_str(&format!(
        "{} packets received, {} sent, {} not for a virtual service, {} refused\n",
        counters.client.received + counters.server.received,
        counters.client.sent + counters.server.sent,
        counters.passed,
        counters.dropped,
    ));
    for reason in DropReason::ALL {
        let count = director.drops(*reason);
        if count > 0 {
            text.push_str(&format!("  {count} {reason}: {}\n", reason.advice()));
        }
    }
    text
}
