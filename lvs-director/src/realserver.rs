//! `lvsd realserver`: makes this machine a real server for direct routing or tunnels, and undoes it exactly. The
//! virtual addresses go to `lo`, and ARP keeps quiet about them (`settings.rs`; IPv6 never speaks of addresses of
//! `lo`). What is to be changed is remembered before it is, and who needs it (`memory.rs`): it is undone when the last
//! one goes, whether or not all of it came about.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use lvs_io_tun::netdev;

mod memory;
mod settings;
mod tunnel_end;

use memory::{Change, Locked, Memory, Need, Owner};
use settings::dotted;

use crate::say;

pub use memory::default_path;
pub use tunnel_end::{TunnelEnd, silence};

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Take the virtual addresses.
    Start,
    /// Give them back.
    Stop,
    /// Say how things are.
    Status,
}

/// Does it for the virtual addresses `vips` (none: all that were started) and says what was changed. `memory` is the
/// file where changes are remembered ([`default_path`]); what it says of another network namespace, or of the time
/// before the machine's start, does not count and is replaced. Fails, with a sentence on standard error, if something
/// is denied or an address cannot be a virtual one; what had been done by then stays, and is remembered.
///
/// With a `tunnel` end, `Start` stays in the foreground until SIGINT or SIGTERM and then undoes what it did. What
/// somebody else needs too stays until nobody does: `Stop` leaves a running tunnel end what it needs.
pub fn realserver(action: Action, vips: &[IpAddr], tunnel: Option<&TunnelEnd>, memory: &Path) -> ExitCode {
    let mut done = String::new();
    let outcome = match action {
        Action::Start => start(vips, tunnel, memory, &mut done),
        Action::Stop => stop(Owner::Host, vips, memory, &mut done),
        Action::Status => status(memory, &mut done),
    };
    let printed = say::print(&done);
    match outcome {
        Ok(()) => printed,
        Err(complaint) => {
            say::error(complaint);
            ExitCode::FAILURE
        }
    }
}

fn start(vips: &[IpAddr], tunnel: Option<&TunnelEnd>, memory: &Path, done: &mut String) -> Result<(), String> {
    if let Some((vip, what)) = vips.iter().find_map(|vip| Some((vip, not_virtual(*vip)?))) {
        return Err(format!("{vip} cannot be a virtual address: it is {what}"));
    }
    let Some(end) = tunnel else { return take(Owner::Host, vips, memory, done) };
    let owner = Owner::this_process();
    let outcome = take(owner, vips, memory, done)
        .and_then(|()| tunnel_end::run(end, vips, done).map_err(|denied| denied.to_string()));
    outcome.and(stop(owner, vips, memory, done))
}

/// What an address is that no service can have.
fn not_virtual(vip: IpAddr) -> Option<&'static str> {
    let is_link_local = match vip {
        IpAddr::V4(vip) => vip.is_link_local(),
        IpAddr::V6(vip) => vip.is_unicast_link_local(),
    };
    match vip {
        _ if vip.is_unspecified() => Some("no address at all"),
        _ if vip.is_multicast() => Some("a multicast group"),
        _ if vip.is_loopback() => Some("a loopback address, which nobody outside can reach"),
        _ if is_link_local => Some("a link-local address, which means another station on each link"),
        IpAddr::V4(vip) if vip.is_broadcast() => Some("the broadcast address"),
        IpAddr::V6(vip) if vip.to_ipv4_mapped().is_some() => Some("an IPv4 address in disguise; write it as one"),
        _ => None,
    }
}

/// Notes who needs what and what is about to be changed, and then changes it: what fails half-way, or is killed, can be
/// undone, and what cannot be noted is not done.
fn take(owner: Owner, vips: &[IpAddr], memory: &Path, done: &mut String) -> Result<(), String> {
    let mut locked = Locked::open(memory)?;
    let intended = plan(owner, vips, done)?;
    locked.change(|memory| {
        forget_the_dead(memory, done);
        for vip in vips {
            let need = Need { owner, vip: *vip };
            if !memory.needs.contains(&need) {
                memory.needs.push(need);
            }
        }
        for change in &intended {
            // What somebody else undid meanwhile counts from there.
            memory.changes.retain(|known| !known.is_about_the_same(change));
            memory.changes.push(change.clone());
        }
    })?;
    for change in &intended {
        if act(change)? {
            done.push_str(&format!("{change}\n"));
        } else {
            locked.change(|memory| memory.changes.retain(|known| known != change))?;
            done.push_str(&format!("somebody else was quicker: {change}\n"));
        }
    }
    Ok(())
}

/// What has to be changed, in this order.
fn plan(owner: Owner, vips: &[IpAddr], done: &mut String) -> Result<Vec<Change>, String> {
    let mut intended = Vec::new();
    // Quiet first: otherwise the link would hear of the address.
    if vips.iter().any(IpAddr::is_ipv4) {
        for setting in settings::needed(owner != Owner::Host) {
            intended.extend(setting.changes()?);
        }
    }
    let there = netdev::addresses("lo").map_err(|error| format!("cannot read the addresses of lo: {error}"))?;
    for vip in vips {
        let change = Change::Address(*vip);
        if there.contains(&(*vip, host_prefix(*vip))) {
            done.push_str(&format!("lo has {vip} already\n"));
        } else if !intended.contains(&change) {
            intended.push(change);
        }
    }
    Ok(intended)
}

/// Makes a change. `false` if somebody else just has.
fn act(change: &Change) -> Result<bool, String> {
    match change {
        Change::Setting { name, after, .. } => settings::write(name, after).map(|()| true),
        Change::Address(vip) => match netdev::add_address("lo", *vip, host_prefix(*vip)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(format!("{error}; run as root")),
        },
    }
}

/// Undoes first and forgets then: where that cannot be noted, it is undone all the same.
fn stop(owner: Owner, vips: &[IpAddr], memory: &Path, done: &mut String) -> Result<(), String> {
    let mut locked = Locked::open(memory)?;
    let mut memory = locked.memory.clone();
    forget_the_dead(&mut memory, done);
    let is_meant = |vip: &IpAddr| vips.is_empty() || vips.contains(vip);
    let held = memory.needs.len();
    memory.needs.retain(|need| need.owner != owner || !is_meant(&need.vip));
    if memory.needs.len() == held && memory.changes.is_empty() {
        done.push_str("nothing was started\n");
    }
    for Need { owner, vip } in memory.needs.iter().filter(|need| is_meant(&need.vip)) {
        done.push_str(&format!("{vip} stays: {owner} needs it\n"));
    }
    let released = release_addresses(&mut memory, done).and_then(|()| release_settings(&mut memory, done));
    released.and(locked.change(|remembered| *remembered = memory))
}

/// A tunnel end that was killed needs nothing any more.
fn forget_the_dead(memory: &mut Memory, done: &mut String) {
    let mut dead: Vec<Owner> = memory.needs.iter().map(|need| need.owner).collect();
    dead.retain(|owner| !owner.is_alive());
    dead.dedup();
    for owner in dead {
        done.push_str(&format!("{owner} ended without giving back what it had\n"));
        memory.needs.retain(|need| need.owner != owner);
    }
}

/// Takes the addresses nobody needs any more off `lo`, backwards.
fn release_addresses(memory: &mut Memory, done: &mut String) -> Result<(), String> {
    for index in (0..memory.changes.len()).rev() {
        let Change::Address(vip) = memory.changes[index] else { continue };
        if memory.is_needed(vip) {
            continue;
        }
        match netdev::remove_address("lo", vip, host_prefix(vip)) {
            Ok(()) => done.push_str(&format!("lo no longer has {vip}\n")),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                done.push_str(&format!("lo did not have {vip} any more\n"));
            }
            Err(error) => return Err(format!("{error}; run as root")),
        }
        memory.changes.remove(index);
    }
    Ok(())
}

/// Puts settings back, when no address is left that needs them.
fn release_settings(memory: &mut Memory, done: &mut String) -> Result<(), String> {
    let needs_ipv4 = |tunnels: bool| {
        let of_kind = |need: &&Need| need.vip.is_ipv4() && (!tunnels || need.owner != Owner::Host);
        memory.needs.iter().any(|need| of_kind(&need))
    };
    let (any, tunnels) = (needs_ipv4(false), needs_ipv4(true));
    for index in (0..memory.changes.len()).rev() {
        let Change::Setting { name, before, after } = &memory.changes[index] else { continue };
        if if settings::is_for_tunnels(name) { tunnels } else { any } {
            continue;
        }
        match settings::read(name) {
            Ok(now) if now == *after => {
                settings::write(name, before)?;
                done.push_str(&format!("{} is {before} again\n", dotted(name)));
            }
            Ok(now) if now == *before => done.push_str(&format!("{} is {before} still\n", dotted(name))),
            Ok(now) => {
                done.push_str(&format!("{} is {now}: changed by somebody else and left alone\n", dotted(name)));
            }
            // Its device has gone, and the setting with it.
            Err(_) => done.push_str(&format!("{} is there no more\n", dotted(name))),
        }
        memory.changes.remove(index);
    }
    Ok(())
}

fn status(memory: &Path, done: &mut String) -> Result<(), String> {
    let memory = Memory::load(memory)?;
    if memory.changes.is_empty() && memory.needs.is_empty() {
        done.push_str("not a real server\n");
    }
    let there = netdev::addresses("lo").map_err(|error| format!("cannot read the addresses of lo: {error}"))?;
    for change in &memory.changes {
        let is_so = match change {
            Change::Address(vip) => there.contains(&(*vip, host_prefix(*vip))),
            Change::Setting { name, after, .. } => settings::read(name).is_ok_and(|now| now == *after),
        };
        done.push_str(&format!("{change}{}\n", if is_so { "" } else { " (undone by somebody else)" }));
    }
    for Need { owner, vip } in memory.needs.iter().filter(|need| need.owner != Owner::Host) {
        let is_over = if owner.is_alive() { "" } else { " (gone; 'lvsd realserver stop' tidies up)" };
        done.push_str(&format!("{owner} needs {vip}{is_over}\n"));
    }
    Ok(())
}

fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(vip) => write!(f, "lo has {vip}/{}", host_prefix(*vip)),
            Self::Setting { name, before, after } => write!(f, "{} is {after}, was {before}", dotted(name)),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("this machine"),
            Self::Process { id, .. } => write!(f, "the tunnel end in process {id}"),
        }
    }
}
