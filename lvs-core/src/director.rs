//! The director: one struct, owned by one thread. Packets, commands and the time go in; verdicts, events and views come out.

use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use crate::command::Command;
use crate::error::ControlError;
use crate::event::Event;
use crate::packet::PacketBuf;
use crate::rng::Seed;
use crate::scheduler::{LoadFormula, SchedulerRegistry};
use crate::service::ServiceKey;
use crate::service::stats::Statistics;
use crate::settings::Settings;
use crate::time::Instant;
use crate::verdict::{Transmit, Verdict};
use crate::view::{ConnectionView, ServiceView, TimeoutsView};

/// One side of the director: the link towards the clients, or the one towards the real servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Side {
    /// Longest packet the link takes, in bytes. Default 1500.
    pub mtu: u16,
    /// The director's own IPv4 address there: source of its ICMP errors and of tunnels. Default none.
    pub ipv4: Option<Ipv4Addr>,
    /// The director's own IPv6 address there. Default none.
    pub ipv6: Option<Ipv6Addr>,
}

impl Default for Side {
    fn default() -> Self {
        Self { mtu: 1500, ipv4: None, ipv6: None }
    }
}

/// What a director is made with. Every bound is fixed for its life; what changes at run time is a [`Command`].
#[derive(Clone, Debug)]
pub struct DirectorConfig {
    /// The link towards the clients.
    pub client_side: Side,
    /// The link towards the real servers.
    pub server_side: Side,
    /// Most connections at once. Memory for them is reserved at the start. Default 65,536.
    pub connections_max: u32,
    /// Most persistence templates at once. Default 16,384.
    pub templates_max: u32,
    /// Most fragmented datagrams remembered at once. Default 1,024.
    pub fragments_max: u32,
    /// Most events kept until they are polled. Default 1,024.
    pub events_max: u32,
    /// Which schedulers there are. Default: every built-in one.
    pub schedulers: SchedulerRegistry,
    /// How least-connection schedulers weigh connections. Default: as Linux 6.1.183 and later.
    pub load_formula: LoadFormula,
    /// The settings to start with. Default: Linux's.
    pub settings: Settings,
}

impl Default for DirectorConfig {
    fn default() -> Self {
        Self {
            client_side: Side::default(),
            server_side: Side::default(),
            connections_max: 65_536,
            templates_max: 16_384,
            fragments_max: 1_024,
            events_max: 1_024,
            schedulers: SchedulerRegistry::default(),
            load_formula: LoadFormula::default(),
            settings: Settings::default(),
        }
    }
}

/// The load balancer.
#[derive(Debug)]
pub struct Director {
    config: DirectorConfig,
}

impl Director {
    /// A director without services. `seed` decides every random choice.
    pub fn new(config: DirectorConfig, seed: Seed) -> Self {
        let _ = seed;
        Self { config }
    }

    /// Decides about one packet and rewrites it in place.
    pub fn handle_packet(&mut self, now: Instant, packet: &mut PacketBuf<'_>) -> Verdict {
        let _ = (now, packet);
        Verdict::Pass
    }

    /// Decides about many packets, in order; equal in effect to `handle_packet` on each, and faster.
    /// `each` is called once for each packet with its index in `packets`.
    pub fn handle_batch(
        &mut self,
        now: Instant,
        packets: &mut [PacketBuf<'_>],
        mut each: impl FnMut(usize, &mut PacketBuf<'_>, Verdict),
    ) {
        for (index, packet) in packets.iter_mut().enumerate() {
            let verdict = self.handle_packet(now, packet);
            each(index, packet, verdict);
        }
    }

    /// When `handle_timeout` next has something to do; `None` while nothing is timed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Does the work that is due: a bounded amount in each call; call again while `poll_timeout` is not after `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// Carries out a command; an `Err` has changed nothing.
    pub fn apply(&mut self, now: Instant, command: &Command) -> Result<(), ControlError> {
        let _ = (now, command);
        Ok(())
    }

    /// The next thing worth telling.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// The next packet the director itself owes the wire, written into `into`. Call until `None` after each
    /// packet, batch and timeout.
    pub fn poll_transmit(&mut self, into: &mut PacketBuf<'_>) -> Option<Transmit> {
        let _ = into;
        None
    }

    /// Every service, sorted by key, with its servers in list order.
    pub fn services(&self) -> Vec<ServiceView> {
        Vec::new()
    }

    /// One service.
    pub fn service(&self, key: &ServiceKey) -> Option<ServiceView> {
        self.services().into_iter().find(|service| service.key == *key)
    }

    /// Every living connection and template. Order is stable but means nothing.
    pub fn connections(&self, now: Instant) -> impl Iterator<Item = ConnectionView> + '_ {
        let _ = now;
        core::iter::empty()
    }

    /// The counters of the whole director.
    pub fn statistics(&self) -> Statistics {
        Statistics::default()
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.config.settings
    }

    /// The timeouts in force.
    pub fn timeouts(&self) -> TimeoutsView {
        use core::time::Duration;
        TimeoutsView { tcp: Duration::from_secs(900), tcp_fin: Duration::from_secs(120), udp: Duration::from_secs(300) }
    }

    /// Packets refused so far, for one reason.
    pub fn drops(&self, reason: crate::DropReason) -> u64 {
        let _ = reason;
        0
    }
}
