//! A director as a session's table: a *master director*, which checks every command.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use lvs_core::service::ServicePlace;
use lvs_core::service::stats::Statistics;
use lvs_core::view::{ConnectionView, ServerView, ServiceView, TimeoutsView};
use lvs_core::{Command, Director, Instant, ServerConfig, ServerKey, ServiceConfig, ServiceKey, Settings};

use super::{Refusal, ServerCursor, SyncDaemons, Table};
use crate::errno::Errno;
use crate::ipvs::{DaemonMessage, DaemonRole};
use crate::lvs::State;

/// One director, at one moment, as a [`Table`].
///
/// ```
/// use lvs_core::{Director, DirectorConfig, Instant, Seed};
/// use lvs_genl::server::{Master, SyncDaemons, Table};
///
/// let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
/// let mut daemons = SyncDaemons::default();
/// let mut table = Master::new(&mut director, &mut daemons, Instant::ZERO);
/// assert_eq!(table.services(None, 10), []);
/// ```
pub struct Master<'a> {
    director: &'a mut Director,
    daemons: &'a mut SyncDaemons,
    now: Instant,
    interface: &'a dyn Fn(&str, IpAddr) -> Result<u32, Errno>,
}

impl<'a> Master<'a> {
    /// A table without interfaces: no synchronisation daemon starts.
    pub fn new(director: &'a mut Director, daemons: &'a mut SyncDaemons, now: Instant) -> Self {
        Self { director, daemons, now, interface: &|_, _| Err(Errno::NO_DEVICE) }
    }

    /// With interfaces: see [`SyncDaemons::start`].
    #[must_use]
    pub fn interfaces(mut self, interface: &'a dyn Fn(&str, IpAddr) -> Result<u32, Errno>) -> Self {
        self.interface = interface;
        self
    }
}

impl core::fmt::Debug for Master<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Master").field("daemons", &self.daemons).field("now", &self.now).finish_non_exhaustive()
    }
}

impl Table for Master<'_> {
    fn apply(&mut self, command: &Command) -> Result<(), Refusal> {
        Ok(self.director.apply(self.now, command)?)
    }

    fn services(&mut self, after: Option<&ServicePlace>, most: usize) -> Vec<ServiceView> {
        self.director.services_after(self.now, after, most)
    }

    fn service(&mut self, key: &ServiceKey) -> Option<ServiceView> {
        self.director.service(self.now, key)
    }

    fn servers(&mut self, service: &ServiceKey, from: &ServerCursor, most: usize) -> Vec<ServerView> {
        self.director.servers_after(service, from.last.as_ref(), from.position, most)
    }

    fn service_config(&mut self, key: &ServiceKey) -> Option<ServiceConfig> {
        self.director.service_config(key).cloned()
    }

    fn server(&mut self, service: &ServiceKey, server: &ServerKey) -> Option<ServerConfig> {
        self.director.server_config(service, server).cloned()
    }

    fn connections(&mut self, cursor: u64, most: usize) -> (Vec<ConnectionView>, Option<u64>) {
        self.director.connections_from(self.now, cursor, most)
    }

    fn statistics(&mut self) -> Statistics {
        self.director.statistics()
    }

    fn timeouts(&mut self) -> TimeoutsView {
        self.director.timeouts()
    }

    fn daemons(&mut self) -> Vec<DaemonMessage> {
        self.daemons.list()
    }

    fn start_daemon(&mut self, daemon: &DaemonMessage) -> Result<(), Refusal> {
        Ok(self.daemons.start(daemon, self.interface)?)
    }

    fn stop_daemon(&mut self, role: DaemonRole) -> Result<(), Refusal> {
        Ok(self.daemons.stop(role)?)
    }

    fn settings(&mut self) -> Vec<(String, String)> {
        let settings = self.director.settings();
        Settings::names().filter_map(|named| Some((named.name.to_string(), settings.get(named.name)?))).collect()
    }

    fn set_setting(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let mut settings = self.director.settings().clone();
        settings.set(name, value)?;
        self.apply(&Command::SetSettings(settings))
    }

    fn state(&mut self) -> State {
        State { is_ready: true, version: String::new(), workers: 1, gauges: self.director.gauges() }
    }
}
