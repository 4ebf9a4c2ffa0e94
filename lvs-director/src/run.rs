//! `lvsd run`: a director in the foreground, configured by an `ipvsadm-save` file, on one device or two, until
//! Ctrl-C; or several that share the clients between them. Decides what is said when something is denied, and what is
//! printed at the end.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use lvs_core::{Director, DirectorConfig, Instant, Seed, ServiceKey, Side};
use lvs_io::{Clock, Host, HostConfig, MonotonicClock, OnPass, Prefix, Steering, Worker, WorkerHandle, netdev};
use lvs_io_afpacket::SourceCountersHandle;

use crate::address_owner::AddressOwner;
use crate::capacity::Described;
use crate::configuration::Configuration;
use crate::control::{self, Control, Listener, Orders};
use crate::denied::Denied;
pub use crate::devices::Devices;
use crate::devices::Opened;
use crate::files::{Files, without_places};
use crate::host_rules::HostRules;
use crate::report::{self, Share};
use crate::state::{Periodic, State};
use crate::supervisor::Signals;
use crate::web::Doors;
use crate::{args, listing, log, loss, privileges, rules, say, seed, threads, warnings};

/// Runs as many directors as `options` and the configuration file they name ask for, with the rules in their file, on their
/// devices until SIGINT or SIGTERM; then prints their tables, put together, to standard output. Fails, with a sentence on
/// standard error, if something is wrong in a file, a device is denied, or one fails under way.
pub fn run(options: &args::Run) -> ExitCode {
    let configuration = Configuration::of(options);
    log::begin(configuration.as_ref().map_or(options.log.unwrap_or_default(), |configuration| configuration.log));
    let files = configuration.and_then(|configuration| {
        let workers = configuration.workers;
        Files::of(options, configuration, workers)
    });
    match files.and_then(forward) {
        Ok(tables) => say::print_for(tables, PATIENCE),
        Err(complaint) => {
            say::error(complaint);
            ExitCode::FAILURE
        }
    }
}

/// Does it all, and returns the tables as they are at the end.
fn forward(files: Files) -> Result<String, String> {
    let configuration = files.configuration.clone();
    configuration.check_addresses()?;
    let (devices, workers) = (&configuration.devices, configuration.workers);
    let sides = devices.sides().map_err(|denied| denied.to_string())?;
    configuration.check_state()?;
    let state = configuration.state.as_deref().map(State::open).transpose().map_err(|denied| denied.to_string())?;
    let seed = seed::seed(configuration.seed_file.as_deref()).map_err(|denied| denied.to_string())?;
    let [client_side, server_side] = sides;
    // Behind a TUN device the host is a client like others: it takes what is sent out of the device. Where the kernel does not
    // say, those of the devices' sides are known, and the virtual ones.
    let host_addresses = match devices {
        Devices::AfPacket(..) => netdev::all_addresses().unwrap_or_default(),
        Devices::Tun(_) => Default::default(),
    };
    let config = files.config.clone().with(|config| {
        config.client_side = client_side;
        config.server_side = server_side;
        config.host_addresses = host_addresses.into_iter().collect();
    });
    // Who has the socket has the journal: another lvsd's is not read.
    let (listeners, said) = listen(&configuration)?;
    let set_before = if listeners.is_empty() { String::new() } else { control_journal(&configuration)? };
    let doors = Doors::open(&configuration.http, configuration.http_token.as_deref())?;
    let configured = |config, seed| {
        let mut director = Director::new(config, seed);
        rules::load(&mut director, &files.text).map_err(|error| format!("{}, {error}", files.rules))?;
        let owned = |command: &lvs_core::Command| control::owned::complaint(command, &configuration);
        let left_out = control::journal::replay(&mut director, &set_before, owned);
        Ok::<_, String>((director, left_out))
    };
    let small = without_places(&config);
    let (master, left_out) = configured(small.clone(), seed.derive(u64::from(u16::MAX)))?;
    control::journal::tell_left_out(&control::journal_path(&configuration.control), &left_out);
    if devices.names().is_empty() {
        return without_devices(files, master, small, (listeners, said), doors);
    }
    let director = |shard| {
        let local_ports = config.local_ports.with(|ports| {
            ports.shard = shard;
            ports.shards = workers;
        });
        let config = config.clone().with(|config| config.local_ports = local_ports);
        configured(config, seed.derive(u64::from(shard))).map(|(director, _)| director)
    };
    let mut directors = (0..workers).map(director).collect::<Result<Vec<_>, String>>()?;
    // All have the same rules.
    let director = directors.first().ok_or("no worker was asked for")?;
    let virtual_addresses = virtual_addresses(director);
    // Before anything is forwarded, and, where an lvsd before this one has left it behind, in one step.
    let host_rules = match configuration.addresses {
        AddressOwner::Host => Some(HostRules::stand(director).map_err(|denied| denied.to_string())?),
        AddressOwner::Lvsd => None,
    };
    if configuration.rules.is_some() && virtual_addresses.is_empty() && director.services(Instant::ZERO).is_empty() {
        say::warning(format_args!("{} has no virtual service; nothing will be balanced", files.rules));
    }
    warnings::about_rules(director).iter().for_each(say::warning);
    // Where the host owns them, it answers pings too.
    let answered = if host_rules.is_some() { Vec::new() } else { virtual_addresses };
    let host = if devices.have_a_host() {
        // The host answers for its own addresses and routes; what it does not own is answered here.
        HostConfig {
            local_addresses: answered.clone(),
            answer_rates: director.settings().answer_rates(),
            answers_only: true,
            ..HostConfig::default()
        }
    } else {
        host_stand_in(director, sides, answered.clone())
    };

    let local_addresses = local_addresses(director);
    let steering = Steering::new(u32::from(workers), networks(server_addresses(director)), seed)
        .with_local_addresses(networks(local_addresses.iter().copied()));
    let Opened { arms, counters, addresses, claims: _claims } =
        devices.open(&answered, &local_addresses, &steering).map_err(|denied| denied.to_string())?;
    warnings::about_devices(director, devices).iter().for_each(say::warning);
    let ways = match devices {
        Devices::Tun(names) => warnings::tun::findings(&director.services(Instant::ZERO), names),
        Devices::AfPacket(..) => Vec::new(),
    };
    let clock = MonotonicClock::new();
    if let Some(state) = &state {
        state.load(&mut directors, &steering, clock.now());
    }
    let (mut workers, signals) = directors
        .into_iter()
        .zip(arms)
        .enumerate()
        .map(|(shard, (director, (clients, servers)))| {
            let host = Host::new(host.clone(), Seed::new(0));
            let worker = Worker::new(director, clients, servers)?;
            let worker = worker.with_clock(clock).with_on_pass(OnPass::Route(Box::new(host)));
            Ok(loss::followed(worker, shard, devices.names(), configuration.on_device_loss))
        })
        .collect::<io::Result<Vec<_>>>()
        .and_then(|workers| Ok((workers, Signals::catch()?)))
        .map_err(|cause| Denied::new("start the director", cause).to_string())?;
    privileges::keep_the_network_alone().map_err(|denied| denied.to_string())?;

    say::note(format_args!("forwarding on {}; Ctrl-C ends it and prints the tables", devices.names().join(" and ")));
    ways.iter().for_each(say::warning);
    say::note(format_args!("each worker has {}; change it by --set", Described(&config)));
    let handles: Vec<WorkerHandle> = workers.iter().map(Worker::handle).collect();
    let queues = counters.clone();
    let setup = setup(files, master, small, listeners);
    let saving = (state, steering.clone());
    let host_rules_too = host_rules.clone();
    let setup = control::Setup {
        workers: handles.clone(),
        clock,
        steering: Some(steering),
        addresses,
        queues,
        host_rules: host_rules_too,
        ..setup
    };
    let (control, orders) = start_control(setup)?;
    let web = doors.serve(control.asker())?;
    said.map_or_else(say::warning, say::note);
    let periodic = match (&saving, configuration.state_every) {
        ((Some(state), steering), Some(seconds)) => {
            let every = Duration::from_secs(seconds.into());
            let started = Periodic::start(state.clone(), handles.clone(), steering.clone(), every);
            Some(started.map_err(|cause| Denied::new("start the director", cause).to_string())?)
        }
        _ => None,
    };
    let restart = signals.restart();
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || signals.obey(&handles, &orders))
        .map_err(|cause| Denied::new("start the director", cause).to_string())?;
    // Whoever starts it again after a failure finds the host still quiet.
    let outcome = threads::run_all(&mut workers);
    drop(periodic);
    // What a worker that failed has left may be half-changed: what was saved before stays.
    outcome.map_err(|complaint| format!("stopped: {complaint}"))?;
    if let (Some(state), steering) = &saving {
        state.save(workers.iter().map(Worker::director), steering, clock.now());
    }
    drop(web);
    control.end()?;
    if let Some(host_rules) = host_rules.filter(|_| !restart.is_asked_for()) {
        host_rules.take_down();
    }
    Ok(last_words(&mut workers, clock, &counters))
}

/// The control socket alone: a controller may come before rules and devices.
fn without_devices(
    files: Files,
    master: Director,
    config: DirectorConfig,
    (listeners, said): Heard,
    doors: Doors,
) -> Result<String, String> {
    let signals = Signals::catch().map_err(|cause| Denied::new("wait for signals", cause).to_string())?;
    privileges::keep_the_network_alone().map_err(|denied| denied.to_string())?;
    let (control, orders) = start_control(setup(files, master, config, listeners))?;
    let web = doors.serve(control.asker())?;
    said.map_or_else(say::warning, say::note);
    say::note("no devices: nothing is forwarded; Ctrl-C ends it");
    signals.obey(&[], &orders);
    drop(web);
    control.end()?;
    Ok(String::new())
}

/// What the control thread works with where there are no devices.
fn setup(files: Files, master: Director, config: DirectorConfig, listeners: Vec<Listener>) -> control::Setup {
    control::Setup {
        journal: (!listeners.is_empty()).then(|| control::journal_path(&files.configuration.control)),
        listeners,
        master,
        config,
        workers: Vec::new(),
        clock: MonotonicClock::new(),
        steering: None,
        addresses: Vec::new(),
        queues: Vec::new(),
        host_rules: None,
        files,
    }
}

/// Starts the control thread.
fn start_control(setup: control::Setup) -> Result<(Control, Orders), String> {
    let control = Control::start(setup).map_err(|error| error.to_string())?;
    let orders = control.orders().map_err(|cause| Denied::new("start the director", cause).to_string())?;
    Ok((control, orders))
}

/// What the control socket of an `lvsd` before this one has set.
fn control_journal(configuration: &Configuration) -> Result<String, String> {
    let path = control::journal_path(&configuration.control);
    match control::journal::read(&path) {
        Ok(text) => Ok(text),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// Control sockets, and what is to be said about them.
type Heard = (Vec<Listener>, Result<String, String>);

/// Listens at the control sockets, and returns what is to be said about that. One that was not asked for may be out of this
/// user's reach.
fn listen(configuration: &Configuration) -> Result<Heard, String> {
    let path = &configuration.control;
    let group = configuration.control_group.as_deref();
    match Listener::open_all(path, group) {
        Ok(listeners) => {
            if group.is_some() {
                control::lets_pass(path).unwrap_or_else(say::warning);
            }
            Ok((listeners, Ok(format!("listening at {}", path.display()))))
        }
        Err(error) if configuration.control_is_wanted || group.is_some() => Err(error.to_string()),
        Err(error) => {
            let warning = format!("{error}; lvsadm cannot reach this lvsd (--control PATH chooses another place)");
            Ok((Vec::new(), Err(warning)))
        }
    }
}

/// How long whoever reads standard output may take to take the last words.
const PATIENCE: Duration = Duration::from_secs(10);

/// The addresses that servers see with FullNAT.
fn local_addresses(director: &Director) -> Vec<IpAddr> {
    director.services(Instant::ZERO).iter().flat_map(|service| service.local_addresses.clone()).collect()
}

fn server_addresses(director: &Director) -> Vec<IpAddr> {
    let services = director.services(Instant::ZERO);
    services.iter().flat_map(|service| &service.servers).map(|server| server.config.key.address).collect()
}

/// Each of these addresses as a network, once.
fn networks(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<Prefix> {
    let addresses: BTreeSet<IpAddr> = addresses.into_iter().collect();
    addresses.into_iter().map(Prefix::from).collect()
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
    let servers = server_addresses(director)
        .into_iter()
        .map(|address| (address, if address.is_ipv4() { 32 } else { 128 }))
        .collect();
    let answer_rates = director.settings().answer_rates();
    HostConfig { client_side, server_side, local_addresses, servers, answer_rates, answers_only: false }
}

/// The tables, and what was refused.
fn last_words(workers: &mut [Worker], clock: MonotonicClock, queues: &[SourceCountersHandle]) -> String {
    let now = clock.now();
    let services = listing::together(workers.iter_mut().map(|worker| {
        let later = listing::publish_counters(worker.director_mut(), now);
        worker.director().services(later)
    }));
    let shares: Vec<Share> = workers.iter().map(|worker| Share::of(worker.director(), worker.counters())).collect();
    let queues: Vec<_> = queues.iter().map(SourceCountersHandle::get).collect();
    report::text(&services, &shares, &queues)
}
