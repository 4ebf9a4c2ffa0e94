//! What the director has to tell: a bounded queue that `poll_event` empties. The core never logs.

use crate::flow::Endpoint;
use crate::service::{ServerKey, ServiceKey};

/// Something an application may want to know. Order is order of happening.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A real server reached its upper threshold; it gets no new connections.
    ServerOverloaded {
        /// The service.
        service: ServiceKey,
        /// The server.
        server: ServerKey,
    },
    /// A real server fell below its lower threshold; it gets new connections again.
    ServerAvailable {
        /// The service.
        service: ServiceKey,
        /// The server.
        server: ServerKey,
    },
    /// A deleted server was forgotten: its last connection is gone and nobody added it back in time.
    ServerForgotten {
        /// The service it belonged to.
        service: ServiceKey,
        /// The server.
        server: ServerKey,
    },
    /// A table is full and refused something. Sent once when it becomes full; the counters tell how often.
    TableFull {
        /// Which table.
        table: Table,
    },
    /// A connection was refused because no real server is available. Sent when the service turns unavailable.
    ServiceUnavailable {
        /// The service.
        service: ServiceKey,
    },
    /// A drain ended: the last connection is over, or the deadline closed what remained. A connection that both sides
    /// have closed, or one has aborted, is over, though it is remembered for a while (TIME_WAIT, CLOSE). Where replies
    /// bypass the director (direct routing, tunnels), nobody sees the server's end: there a connection is over when it
    /// has timed out.
    Drained {
        /// The service.
        service: ServiceKey,
        /// The server.
        server: ServerKey,
        /// Connections that were still open at the deadline; zero if all ended by themselves.
        remaining: u32,
    },
    /// FullNAT ran out of local ports towards a server, or the service has no local address of the server's family: it
    /// needs (more) of them ([`crate::Command::AddLocalAddress`]). Told once, until a connection is opened again.
    LocalPortsExhausted {
        /// The service.
        service: ServiceKey,
        /// The real server the ports were wanted for.
        server: Endpoint,
    },
    /// A connection was opened whose replies cannot be told from those of another one: same client, address and port,
    /// same server by NAT, another virtual endpoint. All replies now come from the new one's. As in Linux, but
    /// there nobody is told; see [`crate::service::OnReplyConflict`]. Told once a minute for each service;
    /// [`crate::Director::reply_conflicts`] counts them.
    ReplyConflict {
        /// The service of the new connection.
        service: ServiceKey,
        /// The server that both connections have.
        server: Endpoint,
        /// The client.
        client: Endpoint,
        /// The virtual endpoint of the connection that was there before.
        other: Endpoint,
    },
    /// Events were lost because nobody polled; this many.
    Lost {
        /// How many.
        count: u64,
    },
}

/// A table with a bound.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Table {
    /// Connections.
    Connections,
    /// Persistence templates.
    Templates,
    /// Fragmented datagrams in progress.
    Fragments,
    /// Half-open TCP connections.
    HalfOpen,
}
