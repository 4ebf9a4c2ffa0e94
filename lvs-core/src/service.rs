//! What an operator configures: virtual services and their real servers. Names and defaults follow ipvsadm 1.31.

pub mod effect;
pub mod effective_weight;
mod place;
pub mod real_server;
pub(crate) mod server_table;
pub mod stats;
pub(crate) mod table;

use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use crate::command::AfterDrain;
use crate::flow::{AddressFamily, Endpoint, Protocol};
pub use place::ServicePlace;
pub use real_server::{RealServer, ServerId};

/// What makes a virtual service: an address, or a firewall mark.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ServiceKey {
    /// Protocol, virtual address and port; port 0 is any port (persistent services only). ipvsadm: `-t -u
    /// --sctp-service`.
    Address {
        /// The protocol.
        protocol: Protocol,
        /// The virtual address (VIP).
        address: IpAddr,
        /// The virtual port; 0 is any port.
        port: u16,
    },
    /// Every packet with this firewall mark, whatever its protocol, address and port. ipvsadm: `-f`, with `-6` for
    /// IPv6.
    FwMark {
        /// The family the service balances.
        family: AddressFamily,
        /// The mark, not 0.
        mark: u32,
    },
}

impl ServiceKey {
    /// A service on an address and port.
    pub fn address(protocol: Protocol, at: core::net::SocketAddr) -> Self {
        Self::Address { protocol, address: at.ip(), port: at.port() }
    }

    /// IPv4 or IPv6.
    pub const fn family(&self) -> AddressFamily {
        match self {
            Self::Address { address, .. } => AddressFamily::of(*address),
            Self::FwMark { family, .. } => *family,
        }
    }

    /// The virtual port: 0 for any-port and fwmark services.
    pub const fn port(&self) -> u16 {
        match self {
            Self::Address { port, .. } => *port,
            Self::FwMark { .. } => 0,
        }
    }
}

/// Which part of the client address persistence goes by. ipvsadm: `-M`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Netmask {
    /// An IPv4 mask. The default is 255.255.255.255.
    V4(Ipv4Addr),
    /// An IPv6 prefix length, 1 to 128. The default is 128.
    V6(u8),
}

impl Netmask {
    /// Every bit counts: each client by itself.
    pub const fn host(family: AddressFamily) -> Self {
        match family {
            AddressFamily::Ipv4 => Self::V4(Ipv4Addr::BROADCAST),
            AddressFamily::Ipv6 => Self::V6(128),
        }
    }

    /// The part of `address` that counts. A mask of the other family leaves it as it is.
    pub fn apply(self, address: IpAddr) -> IpAddr {
        match (self, address) {
            (Self::V4(mask), IpAddr::V4(address)) => {
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask.to_bits()))
            }
            (Self::V6(prefix), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
                IpAddr::V6((address.to_bits() & mask).into())
            }
            (_, address) => address,
        }
    }
}

/// Three bits a scheduler may read. ipvsadm: `-b`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SchedulerFlags(pub u8);

impl SchedulerFlags {
    /// `flag-1`; for sh and mh: look for another server when the chosen one cannot be used (`sh-fallback`,
    /// `mh-fallback`).
    pub const FALLBACK: u8 = 1;
    /// `flag-2`; for sh and mh: the client's port counts too (`sh-port`, `mh-port`).
    pub const PORT: u8 = 2;
    /// `flag-3`; unused by Linux's schedulers.
    pub const FLAG_3: u8 = 4;

    /// Whether all bits of `flags` are set.
    pub const fn has(self, flags: u8) -> bool {
        self.0 & flags == flags
    }
}

/// A virtual service's configuration: what `ipvsadm -A` and `-E` set.
///
/// ```
/// use lvs_core::ServiceConfig;
/// let service = ServiceConfig::new("wlc").persistent(300);
/// assert_eq!(service.persistence_timeout_s, Some(300));
/// ```
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct ServiceConfig {
    /// Name of the scheduler; `none` never chooses a server. ipvsadm: `-s`, default `wlc`.
    pub scheduler: String,
    /// Scheduler flags. ipvsadm: `-b`.
    pub scheduler_flags: SchedulerFlags,
    /// Persistence: seconds a client stays with its server after its last new connection. ipvsadm: `-p`.
    pub persistence_timeout_s: Option<u32>,
    /// Which clients persistence treats as one; `None` is each address by itself. ipvsadm: `-M`.
    pub netmask: Option<Netmask>,
    /// One-packet scheduling: every UDP datagram is scheduled by itself. ipvsadm: `-o`.
    pub one_packet: bool,
    /// Persistence engine; only `sip` exists. ipvsadm: `--pe`.
    pub persistence_engine: Option<String>,
    /// Highest TCP maximum segment size that SYNs may announce through this service, in bytes; lower ones stay. Each
    /// SYN bounds what comes back to its sender: the clients' limits the servers' segments, the servers' the clients'.
    /// With direct routing and tunnels the servers' SYNs pass the director only where their replies do; else clients
    /// learn what fits into the tunnel by ICMP, or the servers announce less themselves (`ip route … advmss`). Not 0.
    /// An addition to IPVS: `--mss-clamp`; default none.
    pub mss_clamp: Option<u16>,
    /// Name of the protocol helper for its TCP connections to NAT and FullNAT servers: `ftp`, or one that the director's
    /// configuration adds. `--helper`, default none; where Linux has `ip_vs_ftp` loaded, it is on for every service on
    /// port 21.
    pub helper: Option<String>,
    /// Slow start of servers that were just added or came back. An addition to IPVS: `--slow-start`; default none.
    pub slow_start: Option<SlowStart>,
    /// What servers behind FullNAT are told of their clients, and how. An addition to IPVS:
    /// `--client-address --keep-sequence --keep-timestamps`.
    pub full_nat: FullNatOptions,
    /// Timeouts of this service's connections where they differ from the director's. An addition to IPVS:
    /// `--tcp-timeout --tcpfin-timeout --udp-timeout`; default none.
    pub timeouts: Option<ServiceTimeouts>,
    /// What happens to connections whose server was deleted from this service. An addition to IPVS:
    /// `--on-server-gone`; default Linux's.
    pub on_server_gone: OnServerGone,
    /// A SYN that reuses the port of a finished connection is scheduled anew also where the old connection was
    /// persistent, and a SYN of any connection whose server was deleted is too: no SYN is lost on a server that is
    /// gone. Linux's `conn_reuse_mode` leaves both out. An addition to IPVS: `--reuse-reschedules`; default off.
    pub reuse_reschedules: bool,
    /// A TCP segment that would shorten its connection's life (RST, FIN, one without flags), or make a half-open one
    /// established, does so only with numbers that its sender may have used and a right checksum; else it goes its way
    /// and moves nothing. As rough as a connection tracker's check of the window; where replies bypass the director
    /// (direct routing, tunnels), the server's numbers are not known, and a made-up handshake passes. Of SCTP, an ABORT, a
    /// SHUTDOWN and what else would do so must have the verification tag that its receiver asked for (RFC 9260 §8.5). A
    /// connection of which the beginning was not seen is judged by what was seen since, and believed before. Such
    /// connections do without the short path, and take some 100 bytes more. An addition to IPVS: `--check-window`; default
    /// off, as in IPVS.
    pub check_window: bool,
    /// What happens to a new connection whose replies could not be told from another one's. An addition to IPVS:
    /// `--on-reply-conflict`; default Linux's.
    pub on_reply_conflict: OnReplyConflict,
}

impl ServiceConfig {
    /// A service with this scheduler and everything else at ipvsadm's defaults.
    pub fn new(scheduler: impl Into<String>) -> Self {
        Self {
            scheduler: scheduler.into(),
            scheduler_flags: SchedulerFlags::default(),
            persistence_timeout_s: None,
            netmask: None,
            one_packet: false,
            persistence_engine: None,
            helper: None,
            slow_start: None,
            full_nat: FullNatOptions::default(),
            mss_clamp: None,
            timeouts: None,
            on_server_gone: OnServerGone::Default,
            reuse_reschedules: false,
            check_window: false,
            on_reply_conflict: OnReplyConflict::Allow,
        }
    }

    /// Clients stay with their server for `timeout_s` seconds after their last new connection. ipvsadm: `-p`.
    #[must_use]
    pub fn persistent(mut self, timeout_s: u32) -> Self {
        self.persistence_timeout_s = Some(timeout_s);
        self
    }

    /// A helper listens to the service's connections: see [`crate::helper`].
    #[must_use]
    pub fn helper(mut self, name: impl Into<String>) -> Self {
        self.helper = Some(name.into());
        self
    }
}

impl Default for ServiceConfig {
    /// ipvsadm's: `wlc`, nothing else.
    fn default() -> Self {
        Self::new("wlc")
    }
}

/// Timeouts of one service's connections; `None` leaves one to the director ([`crate::Command::SetTimeouts`]).
/// Connections take them with their next packet; those of a deleted server or service have the director's.
///
/// ```
/// use core::time::Duration;
/// use lvs_core::{ServiceConfig, ServiceTimeouts};
///
/// let mut ssh = ServiceConfig::new("wlc");
/// let patient = Some(Duration::from_secs(86_400));
/// ssh.timeouts = Some(ServiceTimeouts { tcp: patient, ..ServiceTimeouts::default() });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ServiceTimeouts {
    /// TCP ESTABLISHED. At most 8,589,934 s, not zero.
    pub tcp: Option<Duration>,
    /// TCP FIN_WAIT. Bounds as `tcp`.
    pub tcp_fin: Option<Duration>,
    /// UDP. Bounds as `tcp`.
    pub udp: Option<Duration>,
}

/// What the next packet of a connection meets whose real server was deleted from its service. A SYN or INIT opens a new
/// connection to another server, except with `Default` and `Drop`. Deleting the whole service leaves Linux's rule.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum OnServerGone {
    /// As Linux: dropped silently until the connection times out or the server is added back; with
    /// `expire_nodest_conn` the connection ends at once.
    #[default]
    Default,
    /// The packet goes to another server, which knows nothing of the flow: right for datagrams that stand by
    /// themselves; a TCP segment will be answered by that server's RST.
    Reschedule,
    /// TCP: both sides get a RST, numbered by that packet. Others: as `IcmpUnreachable`.
    Reset,
    /// The client gets ICMP port unreachable, for every packet until the connection times out.
    IcmpUnreachable,
    /// Dropped until the connection times out, also with `expire_nodest_conn` (whose sweep is not held up).
    Drop,
}

/// What happens to a new connection whose client, address and port, already has one to another virtual endpoint with the
/// same server by NAT. The server's answers would all reach the client from the newer one's virtual endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum OnReplyConflict {
    /// It is opened and takes all replies, as in Linux; [`crate::Event::ReplyConflict`] tells of it.
    #[default]
    Allow,
    /// It goes to another server, the next one in the list that can take it; where there is none among the next 64, or
    /// persistence holds the client to its server, as `Refuse`.
    Another,
    /// Its first packet is dropped ([`crate::DropReason::ReplyConflict`]).
    Refuse,
}

/// How a new server's effective weight grows: `weight · max(min_share, (t / window)^(1 / aggression))`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SlowStart {
    /// How long the ramp takes.
    pub window: Duration,
    /// The share of its weight a server starts with, in 1/1024ths.
    pub min_share: u16,
    /// The exponent's inverse in 1/1024ths: 1024 is a straight line, more grows faster at first.
    pub aggression: u16,
}

/// How FullNAT translates more than addresses and ports. Connections keep what was set when they began.
///
/// A server sees clients by the director's local endpoints, one client after the other at each. It takes a new
/// connection while it still remembers the last one (TIME_WAIT) only if sequence numbers and timestamps have grown
/// (RFC 9293 §3.6.1, RFC 7323 §5.8), which those of different clients do not; hence the defaults.
///
/// ```
/// use lvs_core::service::{ClientAddress, FullNatOptions};
/// use lvs_core::ServiceConfig;
/// let mut service = ServiceConfig::new("rr");
/// service.full_nat = FullNatOptions::default().with(|options| options.client_address = ClientAddress::Toa);
/// assert!(service.full_nat.rewrite_sequence);
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FullNatOptions {
    /// How the server learns who its client is. Default: it does not.
    pub client_address: ClientAddress,
    /// Initial sequence numbers of clients are replaced by ones that grow at each local endpoint. Default on.
    pub rewrite_sequence: bool,
    /// Timestamps are taken out of clients' SYNs, so that neither side uses them. Default on.
    pub remove_timestamps: bool,
}

impl FullNatOptions {
    /// The same with some fields changed. Fields may be added in any version, so a literal outside this crate is no way to
    /// make one.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Default for FullNatOptions {
    fn default() -> Self {
        Self { client_address: ClientAddress::None, rewrite_sequence: true, remove_timestamps: true }
    }
}

/// How a server behind FullNAT learns its client's address. Room for it is made in the maximum segment size the client
/// is told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum ClientAddress {
    /// Not at all.
    #[default]
    None,
    /// A TCP option (kind 254, as DPVS) in every segment of the client until the server's first data has arrived; for
    /// servers with a TOA kernel module. TCP only. A fragment goes without, and so does a segment where header, MTU or
    /// buffer have no room; [`crate::Director::client_addresses_omitted`] counts them.
    Toa,
    /// For UDP what TOA is for TCP: a header between IP and UDP (protocol 248, DPVS's default form) in the first three
    /// datagrams of a connection, for servers with a UOA kernel module; others refuse these datagrams. UDP only. A
    /// datagram without room for it, a fragmented one or a super-packet leaves as it is; the header then travels with
    /// an empty datagram beside it ([`crate::Director::poll_transmit`]). Where there is no room for that one either,
    /// [`crate::Director::client_addresses_omitted`] counts it.
    Uoa,
    /// A PROXY protocol header, version 1 (text), before the client's first byte. TCP only. It goes with the ACK that
    /// completes the handshake, so that servers that speak first have it, and with every segment of the client that
    /// begins there until the server has acknowledged it; an ACK that was lost comes again when the server repeats its
    /// SYN|ACK, which one with SYN cookies never does, with a director between or without. Until the server has the
    /// header, nothing of the client passes that could take its place ([`crate::DropReason::OutOfSequence`]), neither
    /// do fragments nor data in a SYN ([`crate::DropReason::NotForwardable`]); and nothing after a RST or both sides'
    /// FINs, which a server with SYN cookies could take for a new connection. A connection of which the director has
    /// not seen the SYN carries nothing.
    ProxyV1,
    /// The same in version 2 (binary), before a TCP client's first byte and in every UDP datagram. Datagrams that come
    /// in fragments or as a super-packet are dropped ([`crate::DropReason::NotForwardable`]).
    ProxyV2,
}

/// How packets reach a real server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ForwardMethod {
    /// Network address translation both ways. ipvsadm: `-m`, printed `Masq`.
    Nat,
    /// Direct routing: the packet goes unchanged to the server's own link address. ipvsadm: `-g`, printed `Route`.
    DirectRouting,
    /// Encapsulation towards the server. ipvsadm: `-i`, printed `Tunnel`.
    Tunnel,
    /// Both addresses are translated; the server answers to a local address of the director. Printed `FullNat`.
    FullNat,
    /// The server is the director's own host. Printed `Local`.
    Local,
    /// On to the packet's own destination (`cache_bypass`). Printed `Masq`, as Linux does. No server has it.
    Bypass,
}

impl ForwardMethod {
    /// As `ipvsadm -L` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nat | Self::Bypass => "Masq",
            Self::DirectRouting => "Route",
            Self::Tunnel => "Tunnel",
            Self::FullNat => "FullNat",
            Self::Local => "Local",
        }
    }
}

/// Which encapsulation a tunnel uses. ipvsadm: `--tun-type`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum TunnelKind {
    /// IP in IP (RFC 2003, RFC 2473). The default.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// Generic routing encapsulation (RFC 2784).
    Gre,
}

/// Which checksum a tunnel header carries. ipvsadm: `--tun-nocsum --tun-csum --tun-remcsum`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum TunnelChecksum {
    /// None. The default.
    #[default]
    None,
    /// A checksum over the encapsulation (GRE, GUE).
    Full,
    /// Remote checksum offload (GUE).
    Remote,
}

/// A real server's tunnel. Only used with [`ForwardMethod::Tunnel`].
///
/// ICMP errors about the tunnel's own packets are relayed to the client, and the path MTU they report is remembered for
/// ten minutes, for IPv4 in IPv4 only, as in Linux. Where one end is IPv6 and the way is shorter than the server side's
/// link, say so in [`ServerConfig::mtu`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct TunnelConfig {
    /// The encapsulation.
    pub kind: TunnelKind,
    /// UDP port for GUE, not 0 there; ignored by the others. ipvsadm: `--tun-port`.
    pub port: u16,
    /// The checksum.
    pub checksum: TunnelChecksum,
}

/// A real server's identity inside its service: address and port (0 keeps the packet's port).
pub type ServerKey = Endpoint;

/// A real server's configuration: what `ipvsadm -a` and `-e` set.
///
/// ```
/// use lvs_core::{ForwardMethod, ServerConfig};
/// let server = ServerConfig::nat("10.0.0.2:8080".parse().unwrap()).weight(5);
/// assert_eq!(server.forward, ForwardMethod::Nat);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Address and port. ipvsadm: `-r`.
    pub key: ServerKey,
    /// How packets reach it. ipvsadm: `-m -g -i`, default `-g`.
    pub forward: ForwardMethod,
    /// Its share of new connections; 0 quiesces it. At most 2³¹ − 1. ipvsadm: `-w`, default 1.
    pub weight: u32,
    /// Above this many connections it is overloaded and gets no new ones; 0 is no limit. ipvsadm: `-x`.
    pub upper_threshold: u32,
    /// Below this many it is no longer overloaded; 0 is three quarters of the upper one. ipvsadm: `-y`.
    pub lower_threshold: u32,
    /// The tunnel, for [`ForwardMethod::Tunnel`].
    pub tunnel: TunnelConfig,
    /// Longest packet the way to this server takes, not 0, and at least 1280 to an IPv6 address but by tunnel (RFC 8200
    /// §5); `None` is the server side's MTU. An addition to IPVS: `--mtu`.
    pub mtu: Option<u16>,
    /// Takes the server out of service from the moment it is added or edited, as [`crate::Command::Drain`] does. An
    /// addition to IPVS: `--drain --drain-reset`; default none, which calls a drain off.
    pub drain: Option<DrainConfig>,
}

/// How a server is taken out of service: it gets no new connections, and what it has gets a deadline.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DrainConfig {
    /// How long its connections may go on. `--drain`, in seconds.
    pub deadline: Duration,
    /// What happens to those that remain. `--drain-reset`; without it, silence.
    pub then: AfterDrain,
}

impl ServerConfig {
    /// A server with this method, weight 1 and no thresholds.
    pub fn new(at: core::net::SocketAddr, forward: ForwardMethod) -> Self {
        Self {
            key: Endpoint::new(at.ip(), at.port()),
            forward,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            tunnel: TunnelConfig::default(),
            mtu: None,
            drain: None,
        }
    }

    /// A server behind address translation. ipvsadm: `-m`.
    pub fn nat(at: core::net::SocketAddr) -> Self {
        Self::new(at, ForwardMethod::Nat)
    }

    /// A server behind full NAT; it may be IPv4 where the service is IPv6 (NAT64).
    pub fn full_nat(at: core::net::SocketAddr) -> Self {
        Self::new(at, ForwardMethod::FullNat)
    }

    /// Sets the weight. ipvsadm: `-w`.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }
}
