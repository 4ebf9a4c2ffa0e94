//! `lvsd realserver`: makes this machine a real server for direct routing or tunnels, and undoes it exactly. The virtual
//! addresses go to `lo`, and ARP keeps quiet about them (`arp_ignore`, `arp_announce`: ip-sysctl in the kernel's
//! documentation; IPv6 never speaks of addresses of `lo`). What was changed is remembered in a file, value by value.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use lvs_io_tun::netdev;

mod tunnel_end;

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

/// Where changes are remembered until they are undone, if nothing else is said: gone after a restart, as the changes are.
/// Network namespaces that share `/run` need a file each.
pub const MEMORY: &str = "/run/lvsd-realserver";

/// Does it for the virtual addresses `vips` (none: all that were started) and says what was changed. `memory` is the
/// file where changes are remembered ([`MEMORY`]). Fails, with a sentence on standard error, if something is denied;
/// what had been done by then stays, and is remembered.
///
/// With a `tunnel` end, `Start` stays in the foreground until SIGINT or SIGTERM and then undoes what it did.
pub fn realserver(action: Action, vips: &[IpAddr], tunnel: Option<&TunnelEnd>, memory: &Path) -> ExitCode {
    let mut done = String::new();
    let outcome = match action {
        Action::Start => start(vips, tunnel, memory, &mut done),
        Action::Stop => stop(vips, memory, &mut done),
        Action::Status => status(memory, &mut done),
    };
    crate::print(&done);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(complaint) => {
            eprintln!("lvsd: {complaint}");
            ExitCode::FAILURE
        }
    }
}

/// One thing that was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Change {
    /// `lo` has the address now.
    Address(IpAddr),
    /// A kernel setting has another value now.
    Setting { name: String, before: String, after: String },
}

/// What a real server for IPv4 needs: answer ARP only for addresses of the device it came by, and never ask from an
/// address of another. The kernel takes the larger of `all` and the device's own value.
const SETTINGS: [Setting; 2] = [
    Setting { name: "net/ipv4/conf/all/arp_ignore", wanted: 1, is_enough: |value| value >= 1 },
    Setting { name: "net/ipv4/conf/all/arp_announce", wanted: 2, is_enough: |value| value >= 2 },
];

/// What one for tunnels needs besides: clients may come by another device than the way back to them. Again the larger
/// value counts, so the TUN device alone cannot have it.
const SETTING_FOR_TUNNELS: Setting =
    Setting { name: "net/ipv4/conf/all/rp_filter", wanted: 0, is_enough: |value| value == 0 };

struct Setting {
    name: &'static str,
    wanted: u32,
    is_enough: fn(u32) -> bool,
}

fn start(vips: &[IpAddr], tunnel: Option<&TunnelEnd>, memory: &Path, done: &mut String) -> Result<(), String> {
    let Some(end) = tunnel else { return take(vips, &SETTINGS, memory, done) };
    let [ignore, announce] = SETTINGS;
    let outcome = take(vips, &[ignore, announce, SETTING_FOR_TUNNELS], memory, done)
        .and_then(|()| tunnel_end::run(end, vips, done).map_err(|denied| denied.to_string()));
    outcome.and(stop(vips, memory, done))
}

fn take(vips: &[IpAddr], settings: &[Setting], memory: &Path, done: &mut String) -> Result<(), String> {
    let mut changes = recall(memory)?;
    // Quiet first: otherwise the link would hear of the address.
    if vips.iter().any(IpAddr::is_ipv4) {
        for Setting { name, wanted, is_enough } in settings {
            let before = read_setting(name)?;
            if before.parse().is_ok_and(is_enough) {
                continue;
            }
            let after = wanted.to_string();
            write_setting(name, &after)?;
            add(&mut changes, Change::Setting { name: (*name).to_owned(), before, after }, memory, done)?;
        }
    }
    for vip in vips {
        match netdev::add_address("lo", *vip, host_prefix(*vip)) {
            Ok(()) => add(&mut changes, Change::Address(*vip), memory, done)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                done.push_str(&format!("lo has {vip} already\n"));
            }
            Err(error) => return Err(format!("{error}; run as root")),
        }
    }
    Ok(())
}

/// Remembers a change at once, so that nothing is forgotten if the next one fails.
fn add(changes: &mut Vec<Change>, change: Change, memory: &Path, done: &mut String) -> Result<(), String> {
    done.push_str(&format!("{change}\n"));
    changes.push(change);
    remember(changes, memory)
}

fn stop(vips: &[IpAddr], memory: &Path, done: &mut String) -> Result<(), String> {
    let mut changes = recall(memory)?;
    if changes.is_empty() {
        done.push_str("nothing was started\n");
    }
    let is_meant = |vip: &IpAddr| vips.is_empty() || vips.contains(vip);
    // Backwards; the settings last, when no address is left that needs them.
    for index in (0..changes.len()).rev() {
        if let Change::Address(vip) = changes[index]
            && is_meant(&vip)
        {
            match netdev::remove_address("lo", vip, host_prefix(vip)) {
                Ok(()) => done.push_str(&format!("lo no longer has {vip}\n")),
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    done.push_str(&format!("lo did not have {vip} any more\n"));
                }
                Err(error) => return Err(format!("{error}; run as root")),
            }
            changes.remove(index);
            remember(&changes, memory)?;
        }
    }
    if changes.iter().any(|change| matches!(change, Change::Address(vip) if vip.is_ipv4())) {
        return Ok(());
    }
    while let Some(index) = changes.iter().rposition(|change| matches!(change, Change::Setting { .. })) {
        let Change::Setting { name, before, after } = changes.remove(index) else { continue };
        let now = read_setting(&name)?;
        if now == after {
            write_setting(&name, &before)?;
            done.push_str(&format!("{} is {before} again\n", dotted(&name)));
        } else {
            done.push_str(&format!("{} is {now}: changed by somebody else and left alone\n", dotted(&name)));
        }
        remember(&changes, memory)?;
    }
    Ok(())
}

fn status(memory: &Path, done: &mut String) -> Result<(), String> {
    let changes = recall(memory)?;
    if changes.is_empty() {
        done.push_str("not a real server\n");
    }
    let there = netdev::addresses("lo").map_err(|error| format!("cannot read the addresses of lo: {error}"))?;
    for change in changes {
        let is_so = match &change {
            Change::Address(vip) => there.contains(&(*vip, host_prefix(*vip))),
            Change::Setting { name, after, .. } => read_setting(name)? == *after,
        };
        done.push_str(&format!("{change}{}\n", if is_so { "" } else { " (undone by somebody else)" }));
    }
    Ok(())
}

fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn read_setting(name: &str) -> Result<String, String> {
    let value = fs::read_to_string(format!("/proc/sys/{name}"));
    Ok(value.map_err(|error| format!("cannot read {}: {error}", dotted(name)))?.trim().to_owned())
}

fn write_setting(name: &str, value: &str) -> Result<(), String> {
    fs::write(format!("/proc/sys/{name}"), value)
        .map_err(|error| format!("cannot set {} to {value}: {error}; run as root", dotted(name)))
}

/// As `sysctl` writes it.
fn dotted(name: &str) -> String {
    name.replace('/', ".")
}

fn recall(memory: &Path) -> Result<Vec<Change>, String> {
    match fs::read_to_string(memory) {
        Ok(text) => text
            .lines()
            .map(|line| parse(line).ok_or_else(|| format!("{}: {line:?} is not understood", memory.display())))
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("cannot read {}: {error}", memory.display())),
    }
}

fn remember(changes: &[Change], memory: &Path) -> Result<(), String> {
    let outcome = if changes.is_empty() {
        fs::remove_file(memory)
            .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
    } else {
        fs::write(memory, changes.iter().map(line).collect::<String>())
    };
    outcome.map_err(|error| format!("cannot write {}: {error}", memory.display()))
}

fn line(change: &Change) -> String {
    match change {
        Change::Address(vip) => format!("address {vip}\n"),
        Change::Setting { name, before, after } => format!("setting {name} {before} {after}\n"),
    }
}

fn parse(line: &str) -> Option<Change> {
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["address", vip] => vip.parse().ok().map(Change::Address),
        ["setting", name, before, after] => {
            Some(Change::Setting { name: (*name).to_owned(), before: (*before).to_owned(), after: (*after).to_owned() })
        }
        _ => None,
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(vip) => write!(f, "lo has {vip}/{}", host_prefix(*vip)),
            Self::Setting { name, before, after } => write!(f, "{} is {after}, was {before}", dotted(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remembered_change_is_read_back() {
        let (name, before, after) = ("net/ipv4/conf/all/arp_ignore".to_owned(), "0".to_owned(), "1".to_owned());
        let setting = Change::Setting { name, before, after };
        let address = |text: &str| Change::Address(text.parse().unwrap());
        for change in [setting, address("192.0.2.80"), address("2001:db8::80")] {
            assert_eq!(parse(line(&change).trim_end()), Some(change));
        }
        assert_eq!(parse("address"), None);
    }
}
