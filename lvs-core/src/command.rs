//! Everything that can be changed while the director runs. A list of accepted commands, replayed, rebuilds the
//! configuration: that is also save and restore, and how shards are kept alike.

use core::net::IpAddr;
use core::time::Duration;

use crate::flow::AddressFamily;
use crate::service::{ServerConfig, ServerKey, ServiceConfig, ServiceKey};
use crate::settings::Settings;

/// One change of configuration, for [`crate::Director::apply`].
///
/// ```
/// use lvs_core::{Command, Protocol, ServerConfig, ServiceConfig, ServiceKey};
///
/// let web = ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse().unwrap());
/// let commands = [
///     Command::AddService(web, ServiceConfig::new("wrr")),
///     Command::AddServer(web, ServerConfig::nat("10.0.0.2:8080".parse().unwrap()).weight(3)),
/// ];
/// # let _ = commands;
/// ```
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Command {
    /// Adds a virtual service. ipvsadm: `-A`.
    AddService(ServiceKey, ServiceConfig),
    /// Replaces a service's configuration; what is not repeated goes back to its default. ipvsadm: `-E`.
    EditService(ServiceKey, ServiceConfig),
    /// Deletes a service. Its connections stay. ipvsadm: `-D`.
    DeleteService(ServiceKey),
    /// Deletes every service. ipvsadm: `-C`.
    Flush,
    /// Adds a real server to a service. ipvsadm: `-a`.
    AddServer(ServiceKey, ServerConfig),
    /// Replaces a real server's configuration. ipvsadm: `-e`.
    EditServer(ServiceKey, ServerConfig),
    /// Deletes a real server. Its connections stay. ipvsadm: `-d`.
    DeleteServer(ServiceKey, ServerKey),
    /// Adds one of the director's own addresses for FullNAT towards a service's servers of that family: requests leave
    /// with it as their source. At most [`crate::local_address::LOCAL_ADDRESSES_MAX`]. An addition to IPVS:
    /// `--add-laddr`, as DPVS.
    AddLocalAddress(ServiceKey, IpAddr),
    /// Takes a local address from a service. Its connections keep it. An addition to IPVS: `--del-laddr`.
    DeleteLocalAddress(ServiceKey, IpAddr),
    /// Zeroes the statistics of one service and its servers, or of everything. ipvsadm: `-Z`.
    Zero(Option<ServiceKey>),
    /// Sets timeouts; `None` leaves one unchanged. ipvsadm: `--set tcp tcpfin udp`, where 0 means unchanged.
    SetTimeouts {
        /// TCP ESTABLISHED.
        tcp: Option<Duration>,
        /// TCP FIN_WAIT.
        tcp_fin: Option<Duration>,
        /// UDP.
        udp: Option<Duration>,
    },
    /// Replaces the settings (the sysctls of `net.ipv4.vs`).
    SetSettings(Settings),
    /// Sets a server's reported load factor, in 1/1024ths (1024 = neutral): what health and load agents move
    /// without losing the operator's weight. Effective weight = weight × slow-start ramp × factor.
    SetServerFactor {
        /// The service.
        service: ServiceKey,
        /// The server.
        server: ServerKey,
        /// The factor in 1/1024ths, 0 to 1024 × 1024.
        factor: u32,
    },
    /// Takes a server out of service with an end: from now on it gets no new connections, neither by its scheduler nor
    /// by persistence. [`crate::Event::Drained`] tells when its last connection is over, or when the deadline has
    /// passed; what remains then is closed. Until it is edited or deleted the server gets nothing more. Editing it
    /// (also to the same weight) without [`ServerConfig::drain`] puts it back into service and calls the drain off.
    /// Repeating the command sets a new deadline; an edit with the same drain leaves a running one as it is. What is left meanwhile: [`crate::view::ServerView::drain`].
    Drain {
        /// The service.
        service: ServiceKey,
        /// The server.
        server: ServerKey,
        /// How long its connections may go on.
        deadline: Duration,
        /// What happens to those that remain.
        then: AfterDrain,
    },
}

/// What happens to the connections a drained server still has at its deadline.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AfterDrain {
    /// TCP: the next segment of either side is answered with a RST, and the other side gets one too. Both are made to
    /// send one: they get acknowledgments they cannot have expected ([`crate::Director::poll_transmit`]), and answer
    /// with the numbers a RST needs. SCTP: silence. UDP: the next datagram goes to another server.
    Reset,
    /// TCP and SCTP: packets are dropped ([`crate::DropReason::ServerDrained`]) until the connection times out.
    /// UDP: the next datagram goes to another server.
    Silence,
}

impl Command {
    /// The address family this command concerns, where it concerns one.
    pub fn family(&self) -> Option<AddressFamily> {
        match self {
            Self::AddService(key, _)
            | Self::EditService(key, _)
            | Self::DeleteService(key)
            | Self::AddServer(key, _)
            | Self::EditServer(key, _)
            | Self::DeleteServer(key, _)
            | Self::AddLocalAddress(key, _)
            | Self::DeleteLocalAddress(key, _)
            | Self::Zero(Some(key))
            | Self::SetServerFactor { service: key, .. }
            | Self::Drain { service: key, .. } => Some(key.family()),
            Self::Flush | Self::Zero(None) | Self::SetTimeouts { .. } | Self::SetSettings(_) => None,
        }
    }
}
