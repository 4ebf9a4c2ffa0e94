//! What a director is made with: the two sides it stands between, its bounds, its registries.
//! Decides nothing; every field is public, documented with its unit, default and bound.

mod names;

use alloc::collections::BTreeSet;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::connection::table::ConnectionTable;
use crate::connection::timeouts::Timeouts;
use crate::director::fragments::FragmentTable;
use crate::flow::AddressFamily;
use crate::helper::HelperRegistry;
use crate::local_address::LocalPorts;
use crate::persistence::TemplateTable;
use crate::scheduler::{LoadFormula, SchedulerRegistry};
use crate::settings::Settings;

/// One side of the director: the link towards the clients, or the one towards the real servers.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Side {
    /// Longest packet the link takes, in bytes. Default 1500. With less than 1280 (RFC 8200 §5) the side is one of IPv4
    /// alone: IPv6 services are refused on the clients', IPv6 servers without an MTU of their own on the servers'.
    pub mtu: u16,
    /// The director's own IPv4 address there: source of its ICMP errors and of tunnels. Default none.
    pub ipv4: Option<Ipv4Addr>,
    /// The director's own IPv6 address there. Default none.
    pub ipv6: Option<Ipv6Addr>,
}

impl Side {
    /// The same with some fields changed. Fields may be added in any version, so a literal outside this crate is no way to
    /// make one.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

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
    Refuse,
    /// The half-open connection that came first makes room for it, and what it alone held (its persistence template, its
    /// local port) is free again. A client that answers sooner than a flood fills `half_open_max` places gets through.
    /// Counted: [`crate::view::DefenceCounters::half_open_evicted`].
    #[default]
    EvictOldest,
}

/// What a director is made with. Every bound is fixed for its life; what changes at run time is a [`crate::Command`].
/// What is a number or a word is also set by name ([`DirectorConfig::set`]): bounds by their fields' names.
///
/// # Who gives way
///
/// Linux takes memory as long as there is some; a director has bounds instead, and strangers who made their addresses up
/// must not be able to use them up. So the defaults keep three rules, none of which a recorded kernel contradicts:
///
/// - Whoever has proved nothing gives way first: a half-open connection, a datagram's flow whose client has not talked
///   on after an answer, a template of such clients only, a connection a helper expects. Where none is left, what is
///   over gives way (TIME_WAIT, CLOSE), and at last who has only talked: datagrams to and fro make a client likely, and
///   a made-up address that guesses the time of the answer looks the same. Whoever came about by a handshake (TCP, SCTP)
///   gives way to nobody.
/// - No one client (an IPv4 address, an IPv6 network of `client_ipv6_prefix` bits) has more than a share of what clients
///   keep for minutes: templates, and FullNAT's local ports.
/// - What a connection that gives way held alone is free with it.
///
/// A program for machines that strangers reach chooses `connections_max` by its memory (one connection takes some
/// 300 bytes), a quarter of that for `templates_max` if services are persistent, and leaves the other bounds as they
/// are. Only where one address stands for very many clients (a carrier's NAT, a single proxy in front, a SIP trunk)
/// `client_templates_max` and [`LocalPorts::client_max`] are to be raised.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct DirectorConfig {
    /// The link towards the clients.
    pub client_side: Side,
    /// The link towards the real servers.
    pub server_side: Side,
    /// Addresses of the director's host beside those of the two sides. From outside they are no clients
    /// ([`crate::DropReason::MartianSource`]); virtual and local addresses need not be told, but for those that the host
    /// has too: only then may it be a client by them ([`crate::PacketBuf::from_host`]). Replies to a client with such an
    /// address end in [`crate::Verdict::Local`]: name none where no stack of the host's stands behind that. Default none.
    pub host_addresses: BTreeSet<IpAddr>,
    /// Most services at once. One more is refused with [`crate::ControlError::TableFull`]. Default 65,536.
    pub services_max: u32,
    /// Most real servers at once, of all services together, deleted ones included until they are forgotten. One more is
    /// refused with [`crate::ControlError::TableFull`]. Default 262,144.
    pub servers_max: u32,
    /// Most connections at once. While they are used up, a new one takes the place of one that has proved nothing, the
    /// one that has been silent longest, or is over ([`crate::view::DefenceCounters::newcomers_evicted`]); where there is
    /// none, that of a flow that was proved by talk alone ([`crate::view::DefenceCounters::talked_evicted`]): of a few that
    /// came first the one that has been silent longest; a client that has a quarter of all places that way gives up one
    /// of its own. Where there is none either, it is refused ([`crate::DropReason::ConnectionTableFull`]). Known ones go on. Memory for them is reserved at the
    /// start. Default 65,536.
    pub connections_max: u32,
    /// Most persistence templates at once. While they are used up, a new client's takes the place of one whose client
    /// has proved nothing, or else has only talked in datagrams, the one used longest ago ([`crate::view::DefenceCounters::templates_evicted`]); that one's
    /// connections go on without it. Where there is none, new clients of persistent services are refused
    /// ([`crate::DropReason::TemplateTableFull`]). Known clients stay with their servers. Default 16,384.
    pub templates_max: u32,
    /// Most persistence templates of one client, whatever its netmask: one client makes many by a SIP engine's changing
    /// Call-IDs, or by the addresses of its IPv6 network. At the bound its own that have proved nothing, or else only
    /// talked, give way; where there are none, it is refused ([`crate::DropReason::ClientTemplatesFull`]). `u32::MAX`, the default, stands for a
    /// quarter of `templates_max`, and for 16 where that is less.
    pub client_templates_max: u32,
    /// By how many bits of their addresses IPv6 clients are told apart where one may have only so much
    /// (`client_templates_max`, [`LocalPorts::client_max`]). Default 64: what one customer is given at least.
    pub client_ipv6_prefix: u8,
    /// Most connections one client address and port may have at once (to many virtual endpoints). They are found by
    /// walking a chain, so this bounds what a packet costs: at the end of a chain of 256, 15,800 instructions instead of
    /// 2,400, and one more connection 31,400 instead of 5,700 (`cargo bench -p lvs-core --bench worst`). One more meets
    /// [`crate::DropReason::ClientEndpointFull`]. Who asks from one port (NTP, IKE, GTP, a resolver) has a connection for
    /// each virtual endpoint that it asks, and where replies bypass the director nothing ever proves them, so that all
    /// count alike: raise it where there are more of these. Default 256.
    pub client_endpoint_max: u32,
    /// Most half-open connections at once: TCP in the states NONE, SYN_RECV and SYNACK, SCTP in NONE, INIT1, INIT and
    /// C-SENT; what a flood of SYNs or INITs leaves behind. One that other connections hang on does not count. Set it
    /// below `connections_max`, so that a flood leaves room for connections that come about. `u32::MAX`, the default,
    /// stands for half of `connections_max`. Linux has no such bound.
    pub half_open_max: u32,
    /// What happens to a SYN or INIT once `half_open_max` is reached. Default: the oldest half-open connection makes
    /// room.
    pub half_open_policy: HalfOpenPolicy,
    /// Most connections one connection's helper may expect at once (FTP: data connections announced on one control
    /// connection). One more takes the place of the one announced first that no packet has come for
    /// ([`crate::view::DefenceCounters::expectations_evicted`]). 0 counts as 1. Default 8; Linux has no bound.
    pub expectations_max: u32,
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

impl DirectorConfig {
    /// The same with some fields changed. Fields may be added in any version, so a literal outside this crate is no way to
    /// make one.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The half-open connections there may be: [`Self::half_open_max`], or what its default stands for.
    pub const fn half_open_bound(&self) -> u32 {
        match self.half_open_max {
            u32::MAX if self.connections_max < 2 => 1,
            u32::MAX => self.connections_max / 2,
            max => max,
        }
    }
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
            client_templates_max: u32::MAX,
            client_ipv6_prefix: 64,
            client_endpoint_max: 256,
            half_open_max: u32::MAX,
            half_open_policy: HalfOpenPolicy::default(),
            expectations_max: 8,
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

impl DirectorConfig {
    /// How many bytes a director of this configuration reserves when it is made. By far the most of it is for
    /// connections; what their number is to be on a machine with so much memory follows from it.
    ///
    /// It is the floor of what a director takes: the director itself (some KiB), services, servers, the events that
    /// wait, the payload of fragments (`fragment_bytes_max`), and beside a connection what FullNAT translates in it and
    /// what a helper has changed are allocated when they come. Memory that is reserved and not used yet costs nothing
    /// where an operating system gives pages when they are touched.
    ///
    /// ```
    /// use lvs_core::DirectorConfig;
    ///
    /// let config = |most| DirectorConfig::default().with(|config| config.connections_max = most);
    /// let bytes = |most| config(most).reserved_bytes();
    /// println!("{} bytes a connection", (bytes(2 << 20) - bytes(1 << 20)) >> 20);
    /// ```
    pub fn reserved_bytes(&self) -> u64 {
        ConnectionTable::bytes(self.connections_max)
            + TemplateTable::bytes(self.templates_max)
            + FragmentTable::bytes(self.fragments_max)
    }
}
