//! Synchronisation daemons as ipvsadm speaks of them, and as messages carry them.

use lvs_admin::{SyncDaemon, SyncRole};
use lvs_genl::ipvs::{DaemonMessage, DaemonRole};

pub(crate) fn state(role: SyncRole) -> u32 {
    match role {
        SyncRole::Master => 1,
        SyncRole::Backup => 2,
    }
}

/// A daemon as it is asked for: what ipvsadm fills in by itself is left to the director.
pub(crate) fn asked(daemon: &SyncDaemon) -> DaemonMessage {
    DaemonMessage {
        state: Some(state(daemon.role)),
        interface: Some(daemon.interface.clone()),
        sync_id: Some(daemon.sync_id.into()),
        max_len: daemon.max_len,
        ..DaemonMessage::default()
    }
    .with_group(daemon)
}

trait WithGroup {
    fn with_group(self, daemon: &SyncDaemon) -> Self;
}

impl WithGroup for DaemonMessage {
    /// Group, port and TTL, where they are not the defaults: ipvsadm sends only what it was given.
    fn with_group(mut self, daemon: &SyncDaemon) -> Self {
        match daemon.group {
            std::net::IpAddr::V4(group) if group != DEFAULT_GROUP => self.group = Some(group),
            std::net::IpAddr::V4(_) => {}
            std::net::IpAddr::V6(group) => self.group6 = Some(group),
        }
        self.port = Some(daemon.port).filter(|port| *port != DEFAULT_PORT);
        self.ttl = Some(daemon.ttl).filter(|ttl| *ttl != 1);
        self
    }
}

/// A daemon as it is listed.
pub(crate) fn shown(daemon: DaemonMessage) -> Option<SyncDaemon> {
    let role = match daemon.role().ok()? {
        DaemonRole::Master => SyncRole::Master,
        DaemonRole::Backup => SyncRole::Backup,
    };
    Some(SyncDaemon {
        role,
        group: daemon.any_group()?,
        sync_id: u8::try_from(daemon.sync_id?).ok()?,
        interface: daemon.interface?,
        max_len: daemon.max_len,
        port: daemon.port?,
        ttl: daemon.ttl?,
    })
}

const DEFAULT_GROUP: std::net::Ipv4Addr = std::net::Ipv4Addr::new(224, 0, 0, 81);
const DEFAULT_PORT: u16 = 8848;
