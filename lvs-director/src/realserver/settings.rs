//! The kernel settings a real server needs, and which values are enough: read, changed and put back one by one.
//! Source: ip-sysctl in the kernel's documentation; the values of `arp_ignore` tried out one by one.

use std::fs;

use super::memory::Change;

/// What a setting in `net/ipv4/conf` has to be. The kernel goes by the larger of `all` and the device's own value.
pub(super) struct Setting {
    name: &'static str,
    wanted: u32,
    is_enough: fn(u32) -> bool,
    /// Whether only `all` is looked at: what devices have is for their owner to say.
    is_general: bool,
}

/// Answer ARP only for addresses of the device it came by (1; 2 looks at the asker's network too; 8 answers nothing).
/// 3 keeps quiet about addresses of another scope only, which the virtual ones on `lo` are not; the rest means nothing
/// and answers.
const ARP_IGNORE: Setting =
    Setting { name: "arp_ignore", wanted: 1, is_enough: |value| matches!(value, 1 | 2 | 8), is_general: false };

/// Never ask from an address of another device.
const ARP_ANNOUNCE: Setting =
    Setting { name: "arp_announce", wanted: 2, is_enough: |value| value == 2, is_general: false };

/// What tunnels need besides: clients may come by another device than the way back to them. As the larger value counts,
/// the TUN device alone cannot have it.
const RP_FILTER: Setting = Setting { name: "rp_filter", wanted: 0, is_enough: |value| value == 0, is_general: true };

/// What a real server needs; with `tunnels`, what their end does.
pub(super) fn needed(tunnels: bool) -> &'static [Setting] {
    if tunnels { &[ARP_IGNORE, ARP_ANNOUNCE, RP_FILTER] } else { &[ARP_IGNORE, ARP_ANNOUNCE] }
}

/// Whether it is a setting that is ever changed here, and nothing else: what is not must not be written to.
pub(super) fn is_ours(name: &str) -> bool {
    let Some((device, name)) = name.strip_prefix("net/ipv4/conf/").and_then(|rest| rest.rsplit_once('/')) else {
        return false;
    };
    let is_component = !matches!(device, "" | "." | "..") && !device.contains(['/', '\0']);
    is_component && needed(true).iter().any(|setting| setting.name == name)
}

/// Whether only tunnel ends need what was changed.
pub(super) fn is_for_tunnels(name: &str) -> bool {
    name.ends_with(RP_FILTER.name)
}

impl Setting {
    /// What has to change because it is not enough: `all` first, then each device.
    pub fn changes(&self) -> Result<Vec<Change>, String> {
        let mut changes = Vec::new();
        let mut change = |device: &str, is_enough: &dyn Fn(u32) -> bool| {
            let name = format!("net/ipv4/conf/{device}/{}", self.name);
            let before = read(&name)?;
            let value = before.parse().ok();
            if value.is_some_and(is_enough) {
                return Ok::<_, String>(value);
            }
            changes.push(Change::Setting { name, before, after: self.wanted.to_string() });
            Ok(Some(self.wanted))
        };
        let all = change("all", &self.is_enough)?.unwrap_or(self.wanted);
        if !self.is_general {
            for device in devices()? {
                change(&device, &|value| (self.is_enough)(value.max(all)))?;
            }
        }
        Ok(changes)
    }
}

/// The devices a question about an address can come by.
fn devices() -> Result<Vec<String>, String> {
    let entries =
        fs::read_dir("/proc/sys/net/ipv4/conf").map_err(|error| format!("cannot list the devices: {error}"))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut devices: Vec<String> = names.filter(|name| !["all", "default", "lo"].contains(&name.as_str())).collect();
    devices.sort_unstable();
    Ok(devices)
}

/// The value of a setting named as under `/proc/sys`.
pub(super) fn read(name: &str) -> Result<String, String> {
    let value = fs::read_to_string(format!("/proc/sys/{name}"));
    Ok(value.map_err(|error| format!("cannot read {}: {error}", dotted(name)))?.trim().to_owned())
}

pub(super) fn write(name: &str, value: &str) -> Result<(), String> {
    fs::write(format!("/proc/sys/{name}"), value)
        .map_err(|error| format!("cannot set {} to {value}: {error}; run as root", dotted(name)))
}

/// As `sysctl` takes it: dots in a device's name become slashes.
pub(super) fn dotted(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c == '/' {
                '.'
            } else if c == '.' {
                '/'
            } else {
                c
            }
        })
        .collect()
}
