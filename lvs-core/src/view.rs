//! Read-only copies of what the director holds, for listings and tests.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use crate::command::AfterDrain;
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::service::stats::Statistics;
use crate::service::{ForwardMethod, ServerConfig, ServiceConfig, ServiceKey, ServicePlace};

/// A virtual service and its servers.
#[non_exhaustive]
#[derive(Clone, PartialEq, Debug)]
pub struct ServiceView {
    /// What it is.
    pub key: ServiceKey,
    /// How many services were added before it: tells in which order they came.
    pub added: u64,
    /// As configured.
    pub config: ServiceConfig,
    /// Its counters.
    pub statistics: Statistics,
    /// The director's own addresses towards its servers, for FullNAT, in the order they were added.
    pub local_addresses: Vec<IpAddr>,
    /// Its servers in list order, newest first.
    pub servers: Vec<ServerView>,
}

impl ServiceView {
    /// A service without servers, of which nothing has been counted.
    pub fn new(key: ServiceKey, config: ServiceConfig) -> Self {
        let statistics = Statistics::default();
        Self { key, added: 0, config, statistics, local_addresses: Vec::new(), servers: Vec::new() }
    }

    /// The same with some fields changed.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Where it comes in listings piece by piece.
    pub const fn place(&self) -> ServicePlace {
        ServicePlace::new(self.key, self.added)
    }
}

/// A real server of a service.
#[non_exhaustive]
#[derive(Clone, PartialEq, Debug)]
pub struct ServerView {
    /// As configured.
    pub config: ServerConfig,
    /// The weight schedulers use now.
    pub effective_weight: u32,
    /// ipvsadm: `ActiveConn`.
    pub active_connections: u32,
    /// ipvsadm: `InActConn`. With those that a helper expects, which count nowhere else.
    pub inactive_connections: u32,
    /// ipvsadm: `PersistConn`.
    pub persistent_connections: u32,
    /// Over its upper threshold and not yet below the lower one.
    pub is_overloaded: bool,
    /// While it drains, and after: until when, and what is left.
    pub drain: Option<DrainView>,
    /// Its counters.
    pub statistics: Statistics,
}

impl ServerView {
    /// A server without connections, with the weight it is configured for.
    pub fn new(config: ServerConfig) -> Self {
        Self {
            effective_weight: config.weight,
            config,
            active_connections: 0,
            inactive_connections: 0,
            persistent_connections: 0,
            is_overloaded: false,
            drain: None,
            statistics: Statistics::default(),
        }
    }

    /// The same with some fields changed.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// How far the drain of a server is ([`crate::Command::Drain`]).
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DrainView {
    /// Time until what remains is closed; zero once that has come.
    pub ends_in: Duration,
    /// What happens, or has happened, then.
    pub then: AfterDrain,
    /// Connections that are not over, as [`crate::Event::Drained`] counts them.
    pub open: u32,
}

impl DrainView {
    /// A drain that ends then, with so many connections open.
    pub const fn new(ends_in: Duration, then: AfterDrain, open: u32) -> Self {
        Self { ends_in, then, open }
    }
}

/// A connection or a persistence template: a row of `ipvsadm -Lc` and `/proc/net/ip_vs_conn`.
#[non_exhaustive]
#[derive(Clone, PartialEq, Debug)]
pub struct ConnectionView {
    /// Whether it is a persistence template (client port 0).
    pub is_template: bool,
    /// The protocol; `None` for templates of fwmark services (printed `IP`).
    pub protocol: Option<Protocol>,
    /// The family of client and virtual address.
    pub family: AddressFamily,
    /// The client.
    pub client: Endpoint,
    /// The virtual endpoint. For templates of fwmark services the address holds the mark, as Linux shows it.
    pub virtual_endpoint: Endpoint,
    /// The real server (address unspecified and port 0 for bypass connections).
    pub real: Endpoint,
    /// The director's own endpoint towards the real server; FullNAT only.
    pub local: Option<Endpoint>,
    /// How packets are forwarded.
    pub forward: ForwardMethod,
    /// The state's name as Linux prints it: `ESTABLISHED`, `UDP`, `ASSURED`.
    pub state: &'static str,
    /// Time until it ends.
    pub expires_in: Duration,
    /// The firewall mark of the packet that opened it.
    pub mark: u32,
    /// Packets from the client so far.
    pub in_packets: u64,
    /// Persistence engine and key, for templates made by one.
    pub persistence_key: Option<(String, Vec<u8>)>,
}

impl ConnectionView {
    /// A connection of this protocol, in no state and with no time left. `None` is for templates of fwmark services.
    pub fn new(
        protocol: Option<Protocol>,
        client: Endpoint,
        virtual_endpoint: Endpoint,
        real: Endpoint,
        forward: ForwardMethod,
    ) -> Self {
        Self {
            is_template: false,
            protocol,
            family: AddressFamily::of(client.address),
            client,
            virtual_endpoint,
            real,
            local: None,
            forward,
            state: "NONE",
            expires_in: Duration::ZERO,
            mark: 0,
            in_packets: 0,
            persistence_key: None,
        }
    }

    /// The same with some fields changed.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// How full the tables are, at the cost of reading some numbers. What has ended counts until it is cleared away.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Gauges {
    /// Connections; at most `connections_max`.
    pub connections: u32,
    /// Those of them that are half-open TCP or SCTP and can make room; at most `half_open_max`.
    pub half_open: u32,
    /// Those of them that are flows of datagrams whose client has not talked on after an answer, or SCTP associations
    /// whose cookie was not acknowledged.
    pub unproven: u32,
    /// Those of them that a helper expects, of which no packet has come; at most `expectations_max` for each connection
    /// with a helper.
    pub expected: u32,
    /// Persistence templates; at most `templates_max`.
    pub templates: u32,
    /// Templates that give way first: their client has proved nothing, or they match nobody any more.
    pub templates_unproven: u32,
    /// Local ports that FullNAT connections have; at most [`crate::local_address::LocalPorts::remembered_max`].
    pub local_ports: u32,
    /// Fragmented datagrams in progress; at most `fragments_max`.
    pub fragments: u32,
    /// Packets that wait for `poll_transmit`.
    pub transmits: u32,
    /// Servers that were deleted and are not forgotten yet.
    pub deleted_servers: u32,
}

impl Gauges {
    /// Two directors' together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            half_open: self.half_open + other.half_open,
            unproven: self.unproven + other.unproven,
            expected: self.expected + other.expected,
            templates: self.templates + other.templates,
            templates_unproven: self.templates_unproven + other.templates_unproven,
            local_ports: self.local_ports + other.local_ports,
            fragments: self.fragments + other.fragments,
            transmits: self.transmits + other.transmits,
            deleted_servers: self.deleted_servers + other.deleted_servers,
        }
    }
}

/// What the defences have done to entries that were already there. Refused packets are counted by their drop reason.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DefenceCounters {
    /// Connections and templates `drop_entry` removed.
    pub entries_removed: u64,
    /// Half-open connections ended because there were as many as there may be
    /// ([`crate::HalfOpenPolicy::EvictOldest`]).
    pub half_open_evicted: u64,
    /// Connections that had proved nothing, or were over, ended because the connection table was full.
    pub newcomers_evicted: u64,
    /// Flows of datagrams whose clients had talked on after an answer, ended because the connection table was full and
    /// nobody was left who could better be done without. Some of them may have been wanted: there are too few places.
    pub talked_evicted: u64,
    /// Templates of clients that had proved nothing, or only talked in datagrams, ended because the template table was full, or the client had as
    /// many as one may have. Those that went with an evicted connection do not count.
    pub templates_evicted: u64,
    /// Connections a helper expected, ended because more were announced on the same connection than may be.
    pub expectations_evicted: u64,
    /// FullNAT connections that had proved nothing, were over, or had only talked in datagrams, ended for their local port.
    pub ports_taken_back: u64,
    /// Fragmented datagrams forgotten before their time to make room for others. Those of their parts that had waited
    /// count as [`crate::DropReason::FragmentTableFull`].
    pub datagrams_given_up: u64,
}

/// The timeouts `ipvsadm -L --timeout` shows.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeoutsView {
    /// TCP ESTABLISHED.
    pub tcp: Duration,
    /// TCP FIN_WAIT.
    pub tcp_fin: Duration,
    /// UDP.
    pub udp: Duration,
}

impl TimeoutsView {
    /// These timeouts.
    pub const fn new(tcp: Duration, tcp_fin: Duration, udp: Duration) -> Self {
        Self { tcp, tcp_fin, udp }
    }
}
