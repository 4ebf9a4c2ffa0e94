//! Which synchronisation daemons run, by the kernel's rules: one of each role, defaults filled in.
//! Source: the recordings `daemon_all` and `raw_config` in `conformance/netlink/`.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use crate::errno::Errno;
use crate::ipvs::{DaemonMessage, DaemonRole};

/// The synchronisation daemons of a director.
///
/// ```
/// use lvs_genl::ipvs::{DaemonMessage, DaemonRole};
/// use lvs_genl::server::SyncDaemons;
///
/// let mut daemons = SyncDaemons::default();
/// let master = DaemonMessage {
///     state: Some(1), interface: Some("eth0".into()), sync_id: Some(7), ..DaemonMessage::default()
/// };
/// daemons.start(&master, |_, _| Ok(1500)).unwrap();
/// assert_eq!(daemons.list()[0].max_len, Some(1472));
/// daemons.stop(DaemonRole::Master).unwrap();
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SyncDaemons {
    master: Option<DaemonMessage>,
    backup: Option<DaemonMessage>,
}

impl SyncDaemons {
    /// Starts one. `interface` tells the MTU of an interface that is to send to, or hear, a group.
    ///
    /// # Errors
    /// [`Errno::INVALID`] if role, interface or identifier is missing or the group is not a multicast address,
    /// [`Errno::EXISTS`] if one of this role runs, or what `interface` says: [`Errno::NO_DEVICE`] if there is none.
    pub fn start(
        &mut self,
        daemon: &DaemonMessage,
        interface: impl FnOnce(&str, IpAddr) -> Result<u32, Errno>,
    ) -> Result<(), Errno> {
        let (Some(name), Some(_)) = (&daemon.interface, daemon.sync_id) else { return Err(Errno::INVALID) };
        let role = daemon.role()?;
        if self.of(role).is_some() {
            return Err(Errno::EXISTS);
        }
        let group = daemon.any_group().unwrap_or(IpAddr::V4(DEFAULT_GROUP));
        if !group.is_multicast() {
            return Err(Errno::INVALID);
        }
        let mtu = interface(name, group)?;
        let filled = |given: Option<u16>, otherwise| given.filter(|value| *value != 0).unwrap_or(otherwise);
        let max_len = match (role, daemon.max_len.filter(|len| *len != 0)) {
            (_, None) => default_len(role, mtu, group),
            (DaemonRole::Backup, Some(len)) => len.max(BACKUP_LEN_MIN),
            (DaemonRole::Master, Some(len)) => len,
        };
        *self.of_mut(role) = Some(DaemonMessage {
            max_len: Some(max_len),
            port: Some(filled(daemon.port, DEFAULT_PORT)),
            ttl: Some(daemon.ttl.filter(|ttl| *ttl != 0).unwrap_or(1)),
            group: match group {
                IpAddr::V4(group) => Some(group),
                IpAddr::V6(_) => None,
            },
            group6: match group {
                IpAddr::V4(_) => None,
                IpAddr::V6(group) => Some(group),
            },
            ..daemon.clone()
        });
        Ok(())
    }

    /// Stops one.
    ///
    /// # Errors
    /// [`Errno::NO_SUCH`] if none of this role runs.
    pub fn stop(&mut self, role: DaemonRole) -> Result<(), Errno> {
        self.of_mut(role).take().map(|_| ()).ok_or(Errno::NO_SUCH)
    }

    /// Those that run, the master first, every value filled in.
    pub fn list(&self) -> Vec<DaemonMessage> {
        self.master.iter().chain(&self.backup).cloned().collect()
    }

    fn of(&self, role: DaemonRole) -> &Option<DaemonMessage> {
        match role {
            DaemonRole::Master => &self.master,
            DaemonRole::Backup => &self.backup,
        }
    }

    fn of_mut(&mut self, role: DaemonRole) -> &mut Option<DaemonMessage> {
        match role {
            DaemonRole::Master => &mut self.master,
            DaemonRole::Backup => &mut self.backup,
        }
    }
}

/// What fits into the interface's packets; a master never sends more than Ethernet takes, a backup takes whatever UDP
/// carries.
fn default_len(role: DaemonRole, mtu: u32, group: IpAddr) -> u16 {
    let headers = if group.is_ipv4() { 20 + 8 } else { 40 + 8 };
    let mtu = match role {
        DaemonRole::Master => mtu.min(1500),
        DaemonRole::Backup => mtu,
    };
    mtu.saturating_sub(headers).min(DATAGRAM_MAX) as u16
}

const DEFAULT_GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 81);
const DEFAULT_PORT: u16 = 8848;
/// Least a backup makes room for.
const BACKUP_LEN_MIN: u16 = 1024;
/// Longest UDP payload over IPv4.
const DATAGRAM_MAX: u32 = 65_507;
