//! The options of `lvsd run`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use lvs_core::DirectorConfig;
use lvs_core::settings::NamedValue;
use lvs_io_afpacket::Delivery;
use serde::Deserialize;

use super::EXIT_STATUS;
use crate::address_owner::AddressOwner;
use crate::capacity::{self, Assignment};
use crate::devices::Devices;
use crate::log::Format;
use crate::web::HttpAt;

/// `lvsd run`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args)]
#[command(group = ArgGroup::new("work").args(["config", "tun", "afpacket", "control"]).required(true).multiple(true))]
pub struct Run {
    /// The rules: a file as ipvsadm-save writes it
    ///
    /// For example:
    ///   -A -t 192.0.2.80:80 -s wrr
    ///   -a -t 192.0.2.80:80 -r 10.2.0.11:8080 -m -w 3
    #[arg(value_name = "RULES", verbatim_doc_comment, required_unless_present_any = ["config", "control"])]
    pub rules: Option<PathBuf>,
    /// Read this configuration file (TOML) first; the other options stand above it
    ///
    /// packaging/lvsd.toml shows every key. 'lvsd check FILE' says whether one is right. SIGHUP reads it again, and the
    /// rules, and carries out what has changed.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Answer lvsadm, and stock ipvsadm and keepalived, at this socket
    ///
    /// Without it: what the environment's LVS_CONTROL says, or /run/lvs/control.sock, where that can be had. With it,
    /// neither rules nor devices are needed at the start.
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// Let the members of this group read at a second socket beside the first, PATH with '.read' behind it
    ///
    /// They see listings, counters and settings and change nothing. A name of /etc/group, or a number.
    #[arg(long, value_name = "GROUP")]
    pub control_group: Option<String>,
    /// Serve the page, its JSON and metrics by HTTP there; repeated, at all of them
    ///
    /// unix:PATH is a socket for its owner alone, who may do everything. ADDRESS:PORT is for every user of this host, who
    /// may read what names no client: a loopback address with a port below 1024, which no ordinary user can take. systemd
    /// is what a socket unit of systemd hands over (LISTEN_FDS), on loopback too.
    #[arg(long = "http", value_name = "WHERE", value_parser = HttpAt::parse)]
    pub http: Vec<HttpAt>,
    /// Let whoever sends the token that this file holds do everything by TCP too
    ///
    /// The file is this user's or root's and nobody else's to read (mode 0600); its one line has 16 characters or more.
    #[arg(long, value_name = "FILE", requires = "http")]
    pub http_token: Option<PathBuf>,
    /// The devices.
    #[command(flatten)]
    pub devices: DeviceOptions,
    /// Share the work between N threads [default: 1]
    ///
    /// Each has its own clients, its own queue of every device (a TUN device made beforehand needs 'multi_queue'), its
    /// own schedule, and its own count of connections against -x and -y.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=WORKERS_MAX))]
    pub workers: Option<u16>,
    /// When a device goes down or is deleted: wait for one of its name, or end with a failure [default: wait]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub on_device_loss: Option<OnDeviceLoss>,
    /// Whose the virtual addresses are [default: lvsd]
    #[arg(long, value_enum, value_name = "WHOSE")]
    pub addresses: Option<AddressOwner>,
    /// Keep the secret that hashes begin with in this file, made at the first start, instead of a new one each time
    #[arg(long, value_name = "FILE")]
    pub seed_file: Option<PathBuf>,
    /// Keep connections over a restart in this directory, made if it is not there
    ///
    /// Saved at the end and loaded at the next start, on top of the rules: connections, templates, counts, where schedulers
    /// stand. It is its owner's alone. The secret that hashes begin with is kept there too, unless --seed-file names a file.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// With --state: save every N seconds too, for when lvsd is killed [default: at the end only]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub state_every: Option<u32>,
    /// Tell what happens, on standard error, for people or as JSON [default: human]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log: Option<Format>,
    /// Set a setting or a bound of every worker by its name; repeated, the last one counts
    ///
    /// Without it, bounds follow from the machine's memory and the defences begin when places are scarce: what that
    /// comes to is said at the start. The names are below.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = Assignment::parse)]
    pub settings: Vec<Assignment>,
}

/// What `lvsd run` does without its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDeviceLoss {
    #[default]
    /// Keep everything and go on when the device is back
    Wait,
    /// Print the tables and fail
    End,
}

/// Which devices `lvsd run` forwards on: of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args)]
#[group(skip)]
#[command(group = ArgGroup::new("devices").args(["tun", "afpacket"]))]
pub struct DeviceOptions {
    /// Forward on TUN devices: one for clients and servers, or the clients' and the servers'
    ///
    /// Devices that do not exist are made, and gone afterwards. While it runs, give them routes: 'ip route add
    /// 192.0.2.80 dev NAME' for a virtual address; with NAT the servers' replies must come back through it too
    /// (net.ipv4.ip_forward=1; examples/tun_loop.rs shows a whole set-up).
    #[arg(long, value_name = "NAME[,NAME]", value_parser = DeviceNames::parse)]
    tun: Option<DeviceNames>,
    /// Forward on Ethernet devices: one for clients and servers, or the clients' and the servers'
    ///
    /// Answers ARP and Neighbor Discovery for the virtual addresses, and finds its way by the addresses and routes this
    /// host has there. The host must own no virtual address and not forward.
    #[arg(long, value_name = "NAME[,NAME]", value_parser = DeviceNames::parse)]
    afpacket: Option<DeviceNames>,
    /// With --afpacket: receive packets in blocks
    ///
    /// Less work for each under load, but where there is little, each waits for a millisecond.
    #[arg(long, requires = "afpacket", conflicts_with = "tun")]
    in_blocks: bool,
}

impl DeviceOptions {
    /// The devices, of one kind: clap sees to that. `None` if none is named.
    pub fn devices(&self) -> Option<Devices> {
        let delivery = if self.in_blocks { Delivery::BLOCKS } else { Delivery::AtOnce };
        match (&self.tun, &self.afpacket) {
            (Some(DeviceNames(names)), _) => Some(Devices::Tun(names.clone())),
            (None, Some(DeviceNames(names))) => Some(Devices::AfPacket(names.clone(), delivery)),
            (None, None) => None,
        }
    }
}

/// One name of a device, or the clients' and the servers'.
#[derive(Clone, PartialEq, Eq, Debug)]
struct DeviceNames(Vec<String>);

impl DeviceNames {
    fn parse(value: &str) -> Result<Self, String> {
        let names = value.split(',').map(device_name).collect::<Result<Vec<_>, _>>()?;
        match names.as_slice() {
            [_] => Ok(Self(names)),
            [clients, servers] if clients != servers => Ok(Self(names)),
            [_, _] => Err("the two names must differ; give one name if one device is to serve both sides".to_owned()),
            _ => Err("one name or two".to_owned()),
        }
    }
}

/// What Linux takes for a device name; `%` would ask it to choose a number.
pub(crate) fn device_name(name: &str) -> Result<String, String> {
    let is_name = (1..=NAME_LEN_MAX).contains(&name.len())
        && !name.contains(|character: char| matches!(character, '/' | ':' | '%') || character.is_whitespace())
        && name != "."
        && name != "..";
    if is_name { Ok(name.to_owned()) } else { Err(format!("{name:?} cannot name a device")) }
}

/// What `--set` knows, with the value each has here.
pub(super) fn names_and_exit_status() -> String {
    let config = capacity::config(capacity::memory(), 1);
    let mut text = "Names for --set, with their values for one worker on this machine:\n".to_owned();
    for NamedValue { name, format, about } in DirectorConfig::names() {
        let value = config.get(name).unwrap_or_default();
        text.push_str(&format!("  {name}={value}\n          {about} Takes {format}.\n"));
    }
    text + "\n" + EXIT_STATUS
}

/// Without it clap writes a line that is too long.
pub(super) const USAGE: &str = "lvsd run [OPTIONS] <--config FILE|--tun NAMES|--afpacket NAMES|--control PATH> [RULES]";

/// Most workers: a core and a queue each.
pub(crate) const WORKERS_MAX: i64 = 64;

/// IFNAMSIZ less the terminating zero.
const NAME_LEN_MAX: usize = 15;
