//! Conversations: what a client wants from the network, and what became of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lvs_core::Instant;

use crate::dialogue::Dialogue;

/// What a client sets out to do. Start it with [`crate::Simulation::converse`].
///
/// ```
/// use std::time::Duration;
/// use lvs_sim::Conversation;
///
/// let virtual_address = "192.0.2.80:80".parse().unwrap();
/// let late_request = Conversation::http(virtual_address).after(Duration::from_secs(5)).from_port(40_000);
/// ```
pub struct Conversation {
    pub(crate) to: SocketAddr,
    pub(crate) local_port: Option<u16>,
    pub(crate) after: Duration,
    pub(crate) patience: Duration,
    pub(crate) topic: Topic,
}

/// What a conversation is about.
pub(crate) enum Topic {
    Http,
    Echo { len: u64 },
    Datagrams { count: u32, len: usize },
    Dialogue(Box<dyn Dialogue>),
}

impl Conversation {
    /// One HTTP request, and the look at every byte of the answer.
    pub fn http(to: SocketAddr) -> Self {
        Self::new(to, Topic::Http)
    }

    /// `len` random bytes over TCP to an echo server and back, each compared.
    pub fn echo(to: SocketAddr, len: u64) -> Self {
        Self::new(to, Topic::Echo { len })
    }

    /// `count` UDP datagrams of `len` payload bytes (at least 4) to an echo server, one after the other; one that is
    /// not answered is sent again each half second.
    pub fn datagrams(to: SocketAddr, count: u32, len: usize) -> Self {
        Self::new(to, Topic::Datagrams { count, len })
    }

    /// A protocol of your own, over TCP.
    pub fn dialogue(to: SocketAddr, dialogue: Box<dyn Dialogue>) -> Self {
        Self::new(to, Topic::Dialogue(dialogue))
    }

    fn new(to: SocketAddr, topic: Topic) -> Self {
        Self { to, local_port: None, after: Duration::ZERO, patience: PATIENCE, topic }
    }

    /// From this port of the client. Default: the next one above 49151.
    #[must_use]
    pub fn from_port(mut self, port: u16) -> Self {
        self.local_port = Some(port);
        self
    }

    /// Starts this much later. Default at once.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }

    /// Gives up this long after the start. Default five minutes.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation").field("to", &self.to).field("after", &self.after).finish_non_exhaustive()
    }
}

/// Names a conversation of one simulation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConversationId(pub(crate) usize);

/// What became of a conversation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The client's address.
    pub client: IpAddr,
    /// Whom it spoke to.
    pub to: SocketAddr,
    /// When it started, or will.
    pub started: Instant,
    /// When its outcome was known.
    pub ended: Option<Instant>,
    /// How it ended.
    pub outcome: Outcome,
    /// Payload bytes the client's stack took.
    pub bytes_sent: u64,
    /// Payload bytes that came back.
    pub bytes_received: u64,
    /// The name the server gave itself.
    pub server: Option<String>,
}

impl Report {
    /// Virtual time from start to outcome.
    pub fn latency(&self) -> Option<Duration> {
        self.ended.map(|ended| ended.duration_since(self.started))
    }

    /// Whether it got all it wanted, every byte as it was sent.
    pub fn is_complete(&self) -> bool {
        self.outcome == Outcome::Complete
    }
}

/// How a conversation ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// It has not.
    Running,
    /// The client got all it wanted, every byte intact.
    Complete,
    /// Bytes arrived that were never sent, or not in that place.
    Damaged,
    /// The connection was refused or reset, or the server hung up too early.
    Reset,
    /// ICMP told the client that its server cannot be reached.
    Unreachable,
    /// The client lost its patience.
    TimedOut,
    /// The client itself was switched off.
    SwitchedOff,
}

/// How long a client waits before it gives up, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(300);
