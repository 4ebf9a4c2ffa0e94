//! What a director is made with: the two sides it stands between, its bounds, its registries.
//! Decides nothing; every field is public, documented with its unit, default and bound.

mod names;

use alloc::collections::BTreeSet;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::connection::timeouts::Timeouts;
use crate::flow::AddressFamily;
use crate::helper::HelperRegistry;
use crate::local_address::LocalPorts;
use crate::scheduler::{LoadFormula, SchedulerRegistry};
use crate::settings::Settings;

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

impl Side {
    /// The director's own address of this family on this side.
    #[inline]
    pub(crate) fn address(&self, family: AddressFamily) -> Option<IpAddr> {
        match family {
            AddressFamily::Ipv4 => self.ipv4.map(IpAddr::V4),
            AddressFamily::Ipv6 => self.ipv6.map(IpAddr::V6),
        }
    }
}

impl Default for Side {
    fn default() -> Self {
        Self { mtu: 1500, ipv4: None, ipv6: None }
    }
}

/// What happens to a TCP connection's first packet when there are as many half-open ones as there may be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum HalfOpenPolicy {
    /// It is refused ([`crate::DropReason::HalfOpenFull`]). Half-open connections keep their places for a minute, so a
    /// flood shuts new clients out, but none that has begun is lost.
    #[default]
    Refuse,
    /// The half-open connection that came first makes room for it. A client that answers sooner than a flood fills
    /// `half_open_max` places gets through. Counted: [`crate::view::DefenceCounters::half_open_evicted`].
    EvictOldest,
}

/// What a director is made with. Every bound is fixed for its life; what changes at run time is a [`crate::Command`].
/// What is a number or a word is also set by name ([`DirectorConfig::set`]): bounds by their fields' names.
#[derive(Clone, Debug)]
pub struct DirectorConfig {
    /// The link towards the clients.
    pub client_side: Side,
    /// The link towards the real servers.
    pub server_side: Side,
    /// Addresses of the director's host beside those of the two sides. From outside they are no clients
    /// ([`crate::DropReason::MartianSource`]); virtual and local addresses need not be told. Default none.
    pub host_addresses: BTreeSet<IpAddr>,
    /// Most services at once. One more is refused with [`crate::ControlError::TableFull`]. Default 65,536.
    pub services_max: u32,
    /// Most real servers at once, of all services together, deleted ones included until they are forgotten. One more is
    /// refused with [`crate::ControlError::TableFull`]. Default 262,144.
    pub servers_max: u32,
    /// Most connections at once. New ones are refused while they are used up
    /// ([`crate::DropReason::ConnectionTableFull`]); known ones go on. Memory for them is reserved at the start.
    /// Default 65,536.
    pub connections_max: u32,
    /// Most persistence templates at once. New clients of persistent services are refused while they are used up
    /// ([`crate::DropReason::TemplateTableFull`]); known clients stay with their servers. Default 16,384.
    pub templates_max: u32,
    /// Most connections one client address and port may have at once (to many virtual ports). Default 1,024.
    pub client_endpoint_max: u32,
    /// Most half-open TCP connections at once (states NONE, SYN_RECV and SYNACK): what a SYN flood leaves behind.
    /// Set it below `connections_max`, so that a flood leaves room for connections that come about. Default `u32::MAX`:
    /// no bound of their own, as in Linux.
    pub half_open_max: u32,
    /// What happens to a SYN once `half_open_max` is reached. Default: it is refused.
    pub half_open_policy: HalfOpenPolicy,
    /// Most fragmented datagrams remembered at once. Default 1,024.
    pub fragments_max: u32,
    /// Most bytes of fragments kept back at once, and as many again of those that wait for `poll_transmit`.
    /// Default 4 MiB, as Linux's `ipfrag_high_thresh`.
    pub fragment_bytes_max: u32,
    /// Most events kept until they are polled; what comes after is counted ([`crate::Event::Lost`]). Default 1,024.
    pub events_max: u32,
    /// FullNAT: which local ports there are, which of them are this director's, and how long they rest.
    pub local_ports: LocalPorts,
    /// Which schedulers there are. Default: every built-in one.
    pub schedulers: SchedulerRegistry,
    /// Which protocol helpers there are, for services that ask for one. Default: `ftp`.
    pub helpers: HelperRegistry,
    /// How least-connection schedulers weigh connections. Default: as Linux 6.1.183 and later.
    pub load_formula: LoadFormula,
    /// The timeouts to start with; [`crate::Command::SetTimeouts`] changes them. Default: Linux's.
    pub timeouts: Timeouts,
    /// The settings to start with. Default: Linux's.
    pub settings: Settings,
}

impl Default for DirectorConfig {
    fn default() -> Self {
        Self {
            client_side: Side::default(),
            server_side: Side::default(),
            host_addresses: BTreeSet::new(),
            services_max: 65_536,
            servers_max: 262_144,
            connections_max: 65_536,
            templates_max: 16_384,
            client_endpoint_max: 1_024,
            half_open_max: u32::MAX,
            half_open_policy: HalfOpenPolicy::default(),
            fragments_max: 1_024,
            fragment_bytes_max: 4 << 20,
            events_max: 1_024,
            local_ports: LocalPorts::default(),
            schedulers: SchedulerRegistry::default(),
            helpers: HelperRegistry::default(),
            load_formula: LoadFormula::default(),
            timeouts: Timeouts::default(),
            settings: Settings::default(),
        }
    }
}
