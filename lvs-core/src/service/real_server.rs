//! A real server as schedulers see it: identity, effective weight, connection counts.
//! What else the director knows about it (statistics, forward method) lives elsewhere; this stays small
//! because schedulers walk arrays of it.

use crate::service::ServerKey;

/// Names one server for as long as anything remembers it: its service, a connection, a template or a scheduler's
/// memory. A scheduler's state holds these, not indexes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ServerId(pub u32);

/// A real server of a service. The director owns and updates it; schedulers read it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RealServer {
    /// Its name in a scheduler's memory.
    pub id: ServerId,
    /// Address and port.
    pub key: ServerKey,
    /// Effective weight: the configured one × slow-start ramp × reported factor. 0 is quiesced.
    pub weight: u32,
    /// The last effective weight that was not 0 (0 if it never had one). Used by `mh`.
    pub last_weight: u32,
    /// Connections in an active state (established and on the way there).
    pub active_connections: u32,
    /// All connections, active and inactive; persistence templates do not count.
    pub total_connections: u32,
    /// Persistence templates that point here.
    pub persistent_connections: u32,
    /// Connections that a helper expects, of which no packet has come (FTP data). They weigh nothing with schedulers
    /// and thresholds, as whoever announces them need not open them.
    pub expected_connections: u32,
    /// Over its upper threshold and not yet below the lower one.
    pub is_overloaded: bool,
}

impl RealServer {
    /// A server without connections.
    pub const fn new(id: ServerId, key: ServerKey, weight: u32) -> Self {
        Self {
            id,
            key,
            weight,
            last_weight: weight,
            active_connections: 0,
            total_connections: 0,
            persistent_connections: 0,
            expected_connections: 0,
            is_overloaded: false,
        }
    }

    /// Whether it may be given a new connection: weight above 0 and not overloaded.
    pub const fn is_eligible(&self) -> bool {
        self.weight > 0 && !self.is_overloaded
    }

    /// Connections that are not active. ipvsadm: `InActConn`.
    pub const fn inactive_connections(&self) -> u32 {
        self.total_connections.saturating_sub(self.active_connections)
    }
}
