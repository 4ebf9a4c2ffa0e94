//! The files below `/proc` that the kernel's IPVS has and `lvsd` provides.

use std::os::fd::OwnedFd;

use lvs_admin::proc;
use lvs_client::{Running, Trouble};
use lvs_core::view::ConnectionView;
use lvs_core::{Director, DirectorConfig, Seed};
use lvs_genl::server::{Access, Master, Session, SyncDaemons};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;

/// A file of `lvsd`'s.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Table {
    /// A listing below `/proc/net`: its name, such as `ip_vs_conn`.
    Listing(String),
    /// A setting below `/proc/sys/net/ipv4/vs`: its name.
    Setting(String),
}

/// The file at this path, if it is one of `lvsd`'s.
pub fn named(path: &[u8]) -> Option<Table> {
    let path = std::str::from_utf8(path).ok()?;
    let name = path.strip_prefix("/proc/net/").or_else(|| path.strip_prefix("/proc/self/net/"));
    if let Some(name) = name.filter(|name| LISTINGS.contains(name)) {
        return Some(Table::Listing(name.to_owned()));
    }
    let name = path.strip_prefix("/proc/sys/net/ipv4/vs/")?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_name.then(|| Table::Setting(name.to_owned()))
}

/// A file in memory with this text, to be read from its start.
pub fn in_memory(text: &[u8], is_closed_on_exec: bool) -> Result<OwnedFd, Errno> {
    let flags = if is_closed_on_exec { MemfdFlags::CLOEXEC } else { MemfdFlags::empty() };
    let file = rustix::fs::memfd_create("lvs", flags)?;
    let mut rest = text;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file)
}

/// What the file says at present.
pub fn read(table: &Table) -> Result<Vec<u8>, Errno> {
    let mut running = connect()?;
    let text = match table {
        Table::Setting(name) => {
            let settings = running.settings(Some(name)).map_err(|trouble| errno(&trouble))?;
            settings.iter().map(|(_, value)| format!("{value}\n")).collect()
        }
        Table::Listing(name) => listing(&mut running, name).map_err(|trouble| errno(&trouble))?,
    };
    Ok(text.into_bytes())
}

fn listing(running: &mut Running, name: &str) -> Result<String, Trouble> {
    Ok(match name {
        "ip_vs" => {
            let mut services = running.services()?;
            running.fill_servers(&mut services)?;
            proc::ip_vs(&services)
        }
        "ip_vs_conn" => proc::ip_vs_conn(&connections(running)?),
        "ip_vs_conn_sync" => proc::ip_vs_conn_sync(&connections(running)?),
        "ip_vs_stats" => proc::ip_vs_stats(&running.statistics()?),
        _ => {
            let totals = running.statistics()?;
            proc::ip_vs_stats_percpu(&[totals.published], &totals)
        }
    })
}

fn connections(running: &mut Running) -> Result<Vec<ConnectionView>, Trouble> {
    let mut connections = Vec::new();
    running.connections(|connection| connections.push(connection))?;
    Ok(connections)
}

/// Gives a setting a value.
pub fn write(name: &str, text: &[u8]) -> Result<(), Errno> {
    let value = std::str::from_utf8(text).map_err(|_| Errno::INVAL)?.trim();
    connect()?.set(name, value).map_err(|trouble| errno(&trouble))
}

/// What the kernel answers a user without `CAP_NET_ADMIN`: families may be looked up, and nothing else.
pub fn refusal(request: &[u8]) -> Vec<Vec<u8>> {
    let config = DirectorConfig::default().with(|config| {
        config.connections_max = 1;
        config.templates_max = 1;
        config.fragments_max = 1;
    });
    let mut director = Director::new(config, Seed::new(0));
    let mut daemons = SyncDaemons::default();
    let mut table = Master::new(&mut director, &mut daemons, lvs_core::Instant::ZERO);
    let mut session = Session::new(Access::None);
    let (mut answers, mut answer) = (Vec::new(), Vec::new());
    if session.receive(request).is_ok() {
        while session.next_datagram(&mut table, &mut answer) {
            answers.push(answer.clone());
        }
    }
    answers
}

fn connect() -> Result<Running, Errno> {
    Running::connect(&crate::control::path()).map_err(|trouble| errno(&trouble))
}

/// The number that a failed call leaves behind.
fn errno(trouble: &Trouble) -> Errno {
    match trouble {
        Trouble::Unreachable(unreachable) => unreachable.cause,
        Trouble::Refused(refusal) => Errno::from_raw_os_error(refusal.errno.0),
        Trouble::Malformed(_) => Errno::IO,
    }
}

/// Below `/proc/net`.
const LISTINGS: &[&str] = &["ip_vs", "ip_vs_conn", "ip_vs_conn_sync", "ip_vs_stats", "ip_vs_stats_percpu"];
