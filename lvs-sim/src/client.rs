//! The client's end of a conversation, on its host: opens a socket when it starts, follows it, keeps the report.

use std::net::SocketAddr;
use std::time::Duration;

use lvs_core::{Instant, Seed};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};

use crate::conversation::{Conversation, ConversationId, Outcome, Report, Topic};
use crate::dialogue::echo::EchoClient;
use crate::dialogue::http::HttpClient;
use crate::session::{Session, tcp_socket};
use crate::udp_echo::{UdpClient, udp_socket};

/// A conversation that has started.
pub(crate) struct Client {
    pub(crate) id: ConversationId,
    pub(crate) local: SocketAddr,
    pub(crate) handle: SocketHandle,
    to: SocketAddr,
    deadline: Instant,
    is_unreachable: bool,
    talk: Talk,
}

enum Talk {
    Tcp(Session),
    Udp(UdpClient),
}

impl Client {
    /// Opens the conversation's socket on `local`. `seed` decides the bytes it sends.
    pub(crate) fn start(
        id: ConversationId,
        now: Instant,
        conversation: Conversation,
        local: SocketAddr,
        seed: Seed,
        interface: &mut Interface,
        sockets: &mut SocketSet<'static>,
    ) -> Self {
        let to = conversation.to;
        let deadline = now + conversation.patience;
        let dialogue: Box<dyn crate::Dialogue> = match conversation.topic {
            Topic::Datagrams { count, len } => {
                let mut socket = udp_socket();
                socket.bind(local).expect("the port is not 0 and the socket is new");
                let handle = sockets.add(socket);
                let talk = Talk::Udp(UdpClient::new(to, count, len));
                return Self { id, local, handle, to, deadline, is_unreachable: false, talk };
            }
            Topic::Http => Box::new(HttpClient::new(to.ip())),
            Topic::Echo { len } => Box::new(EchoClient::new(len, seed)),
            Topic::Dialogue(dialogue) => dialogue,
        };
        let mut socket = tcp_socket();
        socket.connect(interface.context(), to, local).expect("both ends are of one family, and their ports not 0");
        let talk = Talk::Tcp(Session::new(dialogue));
        Self { id, local, handle: sockets.add(socket), to, deadline, is_unreachable: false, talk }
    }

    /// ICMP says that `target` cannot be reached from `source`. As in Linux, a UDP socket believes it, a TCP socket
    /// only until it is connected (RFC 1122 §4.2.3.9, RFC 5461).
    pub(crate) fn hear_unreachable(&mut self, source: SocketAddr, target: SocketAddr, sockets: &SocketSet<'static>) {
        let believes = match self.talk {
            Talk::Tcp(_) => sockets.get::<tcp::Socket<'_>>(self.handle).state() == tcp::State::SynSent,
            Talk::Udp(_) => true,
        };
        self.is_unreachable |= believes && source == self.local && target == self.to;
    }

    /// Does what can be done now and keeps the report; returns whether anything was done.
    pub(crate) fn advance(&mut self, now: Instant, sockets: &mut SocketSet<'static>, report: &mut Report) -> bool {
        let (progress, outcome) = match &mut self.talk {
            Talk::Tcp(session) => {
                let socket = sockets.get_mut::<tcp::Socket<'_>>(self.handle);
                let progress = session.advance(socket);
                report.bytes_sent = session.bytes_said;
                report.bytes_received = session.bytes_heard;
                if report.server.is_none() {
                    report.server = session.dialogue.server_name().map(str::to_owned);
                }
                (progress, tcp_outcome(session, socket.state()))
            }
            Talk::Udp(client) => {
                let progress = client.advance(now, sockets.get_mut::<udp::Socket<'_>>(self.handle));
                report.bytes_sent = client.bytes_sent;
                report.bytes_received = client.bytes_received;
                (progress, client.outcome())
            }
        };
        let outcome = match outcome {
            Outcome::Running if self.is_unreachable => Outcome::Unreachable,
            Outcome::Running if now >= self.deadline => Outcome::TimedOut,
            outcome => outcome,
        };
        if report.outcome == Outcome::Running && outcome != Outcome::Running {
            report.outcome = outcome;
            report.ended = Some(now);
        }
        let gives_up = matches!(outcome, Outcome::Unreachable | Outcome::Damaged) || now >= self.deadline;
        (gives_up && self.abort(sockets)) || progress
    }

    /// Ends a TCP connection with a RST, if it is not over; returns whether it was not.
    fn abort(&mut self, sockets: &mut SocketSet<'static>) -> bool {
        let Talk::Tcp(_) = self.talk else { return false };
        let socket = sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        let was_open = socket.state() != tcp::State::Closed;
        socket.abort();
        was_open
    }

    /// When it next has something to do by itself.
    pub(crate) fn wakes(&self, report: &Report) -> Option<Instant> {
        match &self.talk {
            _ if report.outcome != Outcome::Running => None,
            Talk::Tcp(_) => Some(self.deadline),
            Talk::Udp(client) => Some(client.wakes().min(self.deadline)),
        }
    }

    /// Whether the network still owes it something: the outcome, or the orderly end of its connection.
    pub(crate) fn is_open(&self, sockets: &SocketSet<'static>, report: &Report) -> bool {
        match &self.talk {
            _ if report.outcome == Outcome::Running => true,
            Talk::Tcp(_) => {
                let state = sockets.get::<tcp::Socket<'_>>(self.handle).state();
                !matches!(state, tcp::State::Closed | tcp::State::TimeWait)
            }
            Talk::Udp(_) => false,
        }
    }

    /// Whether its socket can be forgotten.
    pub(crate) fn is_gone(&self, sockets: &SocketSet<'static>, report: &Report) -> bool {
        match &self.talk {
            _ if report.outcome == Outcome::Running => false,
            Talk::Tcp(_) => is_forgotten(sockets.get::<tcp::Socket<'_>>(self.handle)),
            Talk::Udp(_) => true,
        }
    }
}

/// Whether a socket is closed and owes the wire nothing, not even a RST.
pub(crate) fn is_forgotten(socket: &tcp::Socket<'_>) -> bool {
    socket.state() == tcp::State::Closed && socket.remote_endpoint().is_none()
}

fn tcp_outcome(session: &Session, state: tcp::State) -> Outcome {
    if session.dialogue.is_damaged() {
        Outcome::Damaged
    } else if session.dialogue.is_satisfied() {
        Outcome::Complete
    } else if state == tcp::State::Closed || session.is_cut_short() {
        Outcome::Reset
    } else {
        Outcome::Running
    }
}

/// Time between two tries of a UDP datagram that is not answered.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(500);
