//! `lvsd run`: a director in the foreground, configured by an `ipvsadm-save` file, on one device or two, until
//! Ctrl-C. Decides what is said when something is denied, and what is printed at the end.

use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use lvs_core::{Director, DirectorConfig, DropReason, Instant, Seed, ServiceKey, Side};
use lvs_io::{Clock, Host, HostConfig, MonotonicClock, OnPass, Worker, WorkerHandle};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::denied::Denied;
pub use crate::devices::Devices;
use crate::{listing, rules, warnings};

/// Runs a director with the rules in the file `rules` on `devices` until SIGINT or SIGTERM; then prints its tables to
/// standard output. Fails, with a sentence on standard error, if the rules cannot be read or carried out, a device is
/// denied, or one fails under way.
pub fn run(rules: &Path, devices: &Devices) -> ExitCode {
    match forward(rules, devices) {
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
fn forward(rules: &Path, devices: &Devices) -> Result<String, String> {
    let text = fs::read_to_string(rules).map_err(|error| format!("cannot read {}: {error}", rules.display()))?;
    let sides = devices.sides().map_err(|denied| denied.to_string())?;
    let mut director = Director::new(config(sides), seed().map_err(|denied| denied.to_string())?);
    rules::load(&mut director, &text).map_err(|error| format!("{}, {error}", rules.display()))?;
    let virtual_addresses = virtual_addresses(&director);
    if virtual_addresses.is_empty() && director.services(Instant::ZERO).is_empty() {
        eprintln!("lvsd: warning: {} has no virtual service; nothing will be balanced", rules.display());
    }
    warnings::about_rules(&director).iter().for_each(warn);
    let host = if devices.have_a_host() {
        // The host answers for its own addresses and routes; what it does not own is answered here.
        HostConfig { local_addresses: virtual_addresses.clone(), answers_only: true, ..HostConfig::default() }
    } else {
        host_stand_in(&director, sides, virtual_addresses.clone())
    };
    let host = Host::new(host, Seed::new(0));

    let local_addresses = local_addresses(&director);
    let arms = devices.open(&virtual_addresses, &local_addresses).map_err(|denied| denied.to_string())?;
    warnings::about_devices(&director, devices).iter().for_each(warn);
    let mut arms = arms.into_iter();
    let client_arm = arms.next().ok_or("no device was named")?;
    let clock = MonotonicClock::new();
    let mut worker = Worker::new(director, client_arm, arms.next())
        .and_then(|worker| {
            stop_on_signals(worker.handle())?;
            Ok(worker.with_clock(clock).with_on_pass(OnPass::Route(Box::new(host))))
        })
        .map_err(|cause| Denied::new("start the director", cause).to_string())?;

    eprintln!("lvsd: forwarding on {}; Ctrl-C ends it and prints the tables", devices.names().join(" and "));
    worker.run().map_err(|error| format!("stopped: {error}"))?;
    Ok(last_words(&mut worker, clock))
}

fn warn(sentence: &String) {
    eprintln!("lvsd: warning: {sentence}");
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

/// The addresses that servers see with FullNAT.
fn local_addresses(director: &Director) -> Vec<IpAddr> {
    director.services(Instant::ZERO).iter().flat_map(|service| service.local_addresses.clone()).collect()
}

/// The addresses of the services, each once.
fn virtual_addresses(director: &Director) -> Vec<IpAddr> {
    let virtual_address = |key: &ServiceKey| match key {
        ServiceKey::Address { address, .. } => Some(*address),
        ServiceKey::FwMark { .. } => None,
    };
    let services = director.services(Instant::ZERO);
    let mut addresses: Vec<IpAddr> = services.iter().filter_map(|service| virtual_address(&service.key)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Nothing stands behind the director that would own the virtual addresses: this answers for them where no service
/// does (a RST to a stray segment, an echo reply) and routes between clients and servers.
fn host_stand_in(
    director: &Director,
    [client_side, server_side]: [Side; 2],
    local_addresses: Vec<IpAddr>,
) -> HostConfig {
    let services = director.services(Instant::ZERO);
    let servers = services.iter().flat_map(|service| &service.servers).map(|server| server.config.key.address);
    let servers = servers.map(|address| (address, if address.is_ipv4() { 32 } else { 128 })).collect();
    HostConfig { client_side, server_side, local_addresses, servers, answers_only: false }
}

/// Ends the worker on SIGINT (Ctrl-C) and SIGTERM.
pub(crate) fn stop_on_signals(worker: WorkerHandle) -> io::Result<()> {
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
