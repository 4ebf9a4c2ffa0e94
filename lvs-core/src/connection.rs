//! Connections: the record, the table that finds it from both directions, the timer wheel, the states.
//! A connection is what the director remembers of one flow: who talks to whom, by which method, and how far they are.
//! This file holds the record; what happens to it is decided in `director/`.

pub(crate) mod client_queues;
pub(crate) mod followed;
pub(crate) mod index;
pub(crate) mod newcomer;
pub(crate) mod queue;
pub mod sctp;
pub(crate) mod store;
pub(crate) mod table;
pub(crate) mod tags;
pub mod tcp;
pub mod timeouts;
pub(crate) mod wheel;
pub(crate) mod window;

use core::num::NonZeroU16;
use core::time::Duration;

use crate::connection::newcomer::Newcomer;
use crate::connection::sctp::SctpState;
use crate::connection::store::{Handle, Timed};
use crate::connection::tcp::TcpState;
use crate::flow::{Endpoint, Protocol};
use crate::persistence::TemplateId;
use crate::service::{ForwardMethod, ServerId};
use crate::time::Instant;

/// Names one connection for as long as the director lives. The id of a connection that has ended finds nothing,
/// even when another one has taken its place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConnectionId(pub(crate) Handle);

/// What the director remembers of one flow.
///
/// The fields that make its key (`protocol`, `client`, `virtual_endpoint`, `real`, `local`, `forward`) stay as they are
/// while it is in the table, as do `timeout` and `deadline`: the table has verbs for those that may change.
/// They are laid out so that what a request's lookup reads comes first, in one cache line, and what every packet of a
/// known connection needs besides is in the second; the third is left alone.
#[derive(Clone, PartialEq, Debug)]
#[repr(C)]
pub(crate) struct Connection {
    /// When it ends.
    pub deadline: Instant,
    /// Who asked. Port 0 with `no_client_port`: not known yet.
    pub client: Endpoint,
    /// Whom the client asked.
    pub virtual_endpoint: Endpoint,
    pub protocol: Protocol,
    pub forward: ForwardMethod,
    /// The client's port is not known yet (FTP passive data). IPVS: `NO_CPORT`.
    pub no_client_port: bool,
    /// No packet from the server's side seen yet, and none expected. IPVS: `NOOUTPUT`.
    pub no_output: bool,
    /// Lives for one packet and is never in the table. ipvsadm: `-o`.
    pub one_packet: bool,
    /// Counted as active with its server.
    pub is_active: bool,
    /// A protocol helper listens to it.
    pub has_helper: bool,
    /// Its server is the director's own host.
    pub is_local: bool,
    /// Its client is the director's own host: replies are for the host's stack.
    pub client_is_host: bool,
    /// A helper expects it, and no packet of it has come. Its server does not count it yet.
    pub is_expected: bool,
    /// What would shorten its life must have plausible numbers: they are followed.
    pub checks_window: bool,
    /// Its requests may be replies of another connection too, whose client is whom this one's client asks.
    pub both_ways: bool,
    /// Which of two who exchange datagrams have been heard.
    pub talk: Talk,
    pub state: State,
    /// UDP source port of its GUE packets, once one has gone the steady way, which none does before the client's port
    /// is known.
    pub gue_source_port: Option<NonZeroU16>,

    /// Who answers.
    pub real: Endpoint,
    /// The server in the director's tables; `None` for bypass.
    pub server: Option<ServerId>,
    /// The persistence template it was made from.
    pub template: Option<TemplateId>,
    /// How long it lives after a packet.
    pub timeout: Duration,
    /// Packets from the client.
    pub in_packets: u64,

    /// The director's own endpoint towards the server; FullNAT only.
    pub local: Option<Endpoint>,
    /// The firewall mark of the packet that opened it.
    pub mark: u32,
    /// Connections that belong to it. While there are any it does not end.
    pub children: u32,
    /// The connection it belongs to: FTP data to FTP control.
    pub parent: Option<ConnectionId>,
}

impl Connection {
    /// A connection as IPVS makes it: state 0, 3 s to live until its first transition, inactive, no server bound.
    pub(crate) fn new(
        protocol: Protocol,
        client: Endpoint,
        virtual_endpoint: Endpoint,
        real: Endpoint,
        forward: ForwardMethod,
    ) -> Self {
        Self {
            deadline: Instant::ZERO,
            client,
            virtual_endpoint,
            protocol,
            forward,
            no_client_port: false,
            no_output: !matches!(forward, ForwardMethod::Nat | ForwardMethod::FullNat),
            one_packet: false,
            is_active: false,
            is_expected: false,
            talk: if matches!(protocol, Protocol::Udp) { Talk::Asked } else { Talk::Mutual },
            state: State::initial(protocol),
            gue_source_port: None,
            real,
            local: None,
            timeout: timeouts::NEW_CONNECTION,
            in_packets: 0,
            server: None,
            mark: 0,
            children: 0,
            parent: None,
            template: None,
            has_helper: false,
            is_local: false,
            client_is_host: false,
            checks_window: false,
            both_ways: false,
        }
    }

    /// Whether its client has proved nothing yet.
    pub(crate) const fn is_unproven(&self) -> bool {
        self.is_expected
            || self.state.is_half_open()
            || self.state.awaits_cookie()
            || !matches!(self.talk, Talk::Mutual)
    }

    /// As what it makes room for others, if it does: one that others hang on cannot, and one that came about by a
    /// handshake and goes on need not.
    pub(crate) const fn newcomer(&self) -> Option<Newcomer> {
        match self.state {
            _ if self.children > 0 => None,
            _ if self.is_expected => Some(Newcomer::Expected),
            State::Udp if matches!(self.talk, Talk::Mutual) => Some(Newcomer::Talked),
            State::Udp => Some(Newcomer::Unproven),
            state if state.is_half_open() => Some(Newcomer::HalfOpen),
            state if state.awaits_cookie() => Some(Newcomer::Unproven),
            state if state.is_over() => Some(Newcomer::Over),
            _ => None,
        }
    }

    /// Which column of the state tables a packet from the client reads.
    pub(crate) fn request_role(&self) -> Role {
        if self.no_output { Role::InputOnly } else { Role::Input }
    }
}

impl Timed for Connection {
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn set_timer(&mut self, timeout: Duration, deadline: Instant) {
        self.timeout = timeout;
        self.deadline = deadline;
    }

    fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }
}

/// How far two who exchange datagrams have come. TCP and SCTP, which have states for that, are always at the end of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Talk {
    /// No answer has been seen. Where replies bypass the director none ever is.
    Asked,
    /// The server has answered, perhaps to somebody who never asked.
    Answered,
    /// The client has talked on after an answer: it is there.
    Mutual,
}

/// How far a connection is, by its protocol's own states.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// A TCP state.
    Tcp(TcpState),
    /// UDP has one state.
    Udp,
    /// An SCTP state.
    Sctp(SctpState),
}

impl State {
    /// State 0, where every connection of this protocol starts.
    pub const fn initial(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp(TcpState::None),
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp(SctpState::None),
        }
    }

    /// As `ipvsadm -Lc` prints it: `ESTABLISHED`, `UDP`, `C-WAIT`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp(state) => state.name(),
            Self::Udp => "UDP",
            Self::Sctp(state) => state.name(),
        }
    }

    /// Whether its server counts it as an active connection (`ActiveConn`). UDP never is.
    pub const fn is_active(self) -> bool {
        match self {
            Self::Tcp(state) => state.is_active(),
            Self::Udp => false,
            Self::Sctp(state) => state.is_active(),
        }
    }

    /// Whether the connection has begun and not come about yet, as a flood of SYNs or INITs leaves it: TCP before
    /// ESTABLISHED, SCTP before the client has echoed its cookie.
    pub const fn is_half_open(self) -> bool {
        match self {
            Self::Tcp(state) => matches!(state, TcpState::None | TcpState::SynRecv | TcpState::SynAck),
            Self::Sctp(state) => {
                matches!(state, SctpState::None | SctpState::Init1 | SctpState::Init | SctpState::CookieSent)
            }
            Self::Udp => false,
        }
    }

    /// Whether an SCTP association waits for its cookie to be acknowledged. Anybody can send a made-up cookie when the
    /// server's INIT ACK is to be expected, or an INIT ACK himself; only who has the cookie is acknowledged
    /// (RFC 9260 §5.1).
    pub(crate) const fn awaits_cookie(self) -> bool {
        use SctpState::{Cookie, CookieEchoed, CookieReplied, CookieWait};
        matches!(self, Self::Sctp(CookieReplied | CookieWait | Cookie | CookieEchoed))
    }

    /// Whether the connection has ended and only waits to be forgotten: both sides have closed it, or one has aborted
    /// it. UDP has no end.
    pub const fn is_over(self) -> bool {
        match self {
            Self::Tcp(state) => matches!(state, TcpState::TimeWait | TcpState::Close),
            Self::Udp => false,
            Self::Sctp(state) => matches!(state, SctpState::Rejected | SctpState::Closed),
        }
    }

    /// Its number within the protocol, as on the sync wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp(state) => state as u8,
            Self::Udp => 0,
            Self::Sctp(state) => state as u8,
        }
    }
}

/// From which side a packet came, as the state tables see it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// From the client, of a connection whose replies pass the director.
    Input,
    /// From the server.
    Output,
    /// From the client, of a connection whose replies bypass the director (direct routing, tunnels), until one does
    /// not.
    InputOnly,
}

impl Role {
    /// All of them, in the order of the state tables.
    pub const ALL: [Self; 3] = [Self::Input, Self::Output, Self::InputOnly];

    /// The heading of its part of a printed state table.
    const fn heading(self) -> &'static str {
        match self {
            Self::Input => "INPUT (client to server)",
            Self::Output => "OUTPUT (server to client)",
            Self::InputOnly => "INPUT_ONLY (client to server, replies bypass the director)",
        }
    }
}
