//! Why a packet goes where it goes: the steps a director takes for it, to be read by people and programs.
//! Made by [`crate::Director::explain`], which changes nothing.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::drop_reason::DropReason;
use crate::flow::Endpoint;
use crate::service::{ServerKey, ServiceKey};
use crate::verdict::{Direction, Verdict};
use crate::view::ConnectionView;

/// Why a packet is none of the director's business.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum PassReason {
    /// No service of the packet's address family exists.
    NoServiceOfFamily,
    /// Neither TCP, UDP, SCTP nor an ICMP error.
    UnknownProtocol,
    /// No service has this mark, address and port.
    NoService,
    /// A TCP segment without SYN, or with RST, may not open a connection (see `sloppy_tcp`).
    NotATcpOpening,
    /// Only an SCTP INIT may open a connection (see `sloppy_sctp`).
    NotAnSctpOpening,
    /// Packets from client port 20 (FTP data) are never scheduled.
    FtpDataSource,
    /// An FTP service took the packet for its data port but has no server for it.
    FtpDataPort,
    /// An ICMP message that is no error, or quotes nothing we track.
    UnrelatedIcmp,
    /// An ICMP error about a flow of ours that is not for the client: it was sent to the host itself, and only counts.
    IcmpForTheHost,
    /// A fragment of a datagram that is not ours.
    UnknownFragment,
    /// The port is unreadable and the destination not virtual.
    NoPorts,
    /// A reply of no known connection whose hop limit is used up: routing says so.
    LastHop,
}

impl fmt::Display for PassReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoServiceOfFamily => "no service of this address family exists",
            Self::UnknownProtocol => "neither TCP, UDP, SCTP nor an ICMP error",
            Self::NoService => "no service has this mark, address and port",
            Self::NotATcpOpening => "a TCP segment without SYN, or with RST, opens no connection (see sloppy_tcp)",
            Self::NotAnSctpOpening => "only an SCTP INIT opens a connection (see sloppy_sctp)",
            Self::FtpDataSource => "client port 20 (FTP data) is never scheduled",
            Self::FtpDataPort => "the FTP service has no server for this data port",
            Self::UnrelatedIcmp => "an ICMP message about nothing we track",
            Self::IcmpForTheHost => "an ICMP error about a flow of ours, but sent to the host itself",
            Self::UnknownFragment => "a fragment of a datagram that is not ours",
            Self::NoPorts => "its ports cannot be read and its destination is not virtual",
            Self::LastHop => "its hop limit is used up, which is for routing to say",
        })
    }
}

/// A server as its scheduler saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Address and port.
    pub server: ServerKey,
    /// Effective weight.
    pub weight: u32,
    /// Active connections.
    pub active_connections: u32,
    /// Inactive connections.
    pub inactive_connections: u32,
    /// Over its upper threshold.
    pub is_overloaded: bool,
}

/// One step of a decision, in the order taken.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Step {
    /// What arrived.
    Packet {
        /// Source; the port is 0 where there is none.
        source: Endpoint,
        /// Destination; the port is 0 where there is none.
        destination: Endpoint,
        /// IP protocol number.
        protocol: u8,
        /// Length in bytes, IP header included.
        len: usize,
    },
    /// Not ours, and why.
    Passed(PassReason),
    /// An ICMP error about a flow of ours.
    IcmpAbout {
        /// ICMP type.
        icmp_type: u8,
        /// ICMP code.
        code: u8,
    },
    /// The packet belongs to this connection.
    KnownFlow {
        /// Which way it travels.
        direction: Direction,
        /// The connection before this packet.
        connection: ConnectionView,
    },
    /// A later fragment follows the first fragment of its datagram.
    FollowsFirstFragment,
    /// A fragment waits for the first one of its datagram, or for all of them.
    FragmentWaits,
    /// From a server, and of no known connection (`nat_icmp_send`).
    UnknownReply,
    /// The packet is scheduled anew though its connection is known: it opens it again, or its server is gone.
    Rescheduled,
    /// This connection ends: the packet was scheduled anew.
    GivenUp(ConnectionView),
    /// The connection's server was deleted or drained, and its sender is told.
    ServerGone,
    /// The service that takes the packet.
    Service(ServiceKey),
    /// A persistence template already says which server.
    Template(ConnectionView),
    /// A persistence template was found but cannot be used any more.
    TemplateInvalid(ConnectionView),
    /// The scheduler's choice.
    Scheduled {
        /// Its name.
        scheduler: String,
        /// What it chose from, in list order.
        candidates: Vec<Candidate>,
        /// What it chose; `None` if nothing was to be had.
        chosen: Option<ServerKey>,
    },
    /// This connection or template ends: the new one takes its place, because its client has proved nothing
    /// ([`crate::DirectorConfig`], "Who gives way").
    Evicted(ConnectionView),
    /// The connection that is opened.
    NewConnection(ConnectionView),
    /// The way of a datagram that is scheduled by itself (ipvsadm: `-o`). No connection remains.
    OnePacket(ConnectionView),
    /// The state the connection goes to.
    State {
        /// Before.
        before: &'static str,
        /// After.
        after: &'static str,
        /// The timeout that now runs.
        timeout: Duration,
    },
    /// The segment would have moved the state, and is not believed: its numbers or its checksum are wrong
    /// (`--check-window`).
    NotBelieved,
    /// What the connection's protocol helper made of the segment.
    Helped {
        /// The connection that was announced and will be opened.
        expected: Option<ConnectionView>,
        /// What was said, and what is said instead.
        said: Option<(String, String)>,
    },
    /// A header field that changes.
    Changed {
        /// Its name.
        field: &'static str,
        /// Before.
        before: String,
        /// After.
        after: String,
    },
    /// The sender is told by an ICMP error.
    AnsweredByIcmp {
        /// ICMP type.
        icmp_type: u8,
        /// ICMP code.
        code: u8,
    },
    /// The sender is told by a RST.
    AnsweredByReset,
    /// Refused, and why.
    Dropped(DropReason),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet { source, destination, protocol, len } => {
                let name = protocol_name(*protocol);
                write!(f, "packet: {name} {source} -> {destination}, {len} bytes")
            }
            Self::Passed(reason) => write!(f, "not ours: {reason}"),
            Self::IcmpAbout { icmp_type, code } => write!(f, "ICMP error {icmp_type}/{code} about a flow"),
            Self::KnownFlow { direction: Direction::Request, connection } => {
                write!(f, "request of a known connection: {}", Row(connection))
            }
            Self::KnownFlow { direction: Direction::Reply, connection } => {
                write!(f, "reply of a known connection: {}", Row(connection))
            }
            Self::FollowsFirstFragment => f.write_str("later fragment: follows its datagram's first fragment"),
            Self::FragmentWaits => f.write_str("fragment: waits for its datagram's first one, or for all of them"),
            Self::UnknownReply => f.write_str("from a server, and of no known connection (see nat_icmp_send)"),
            Self::Rescheduled => f.write_str("opens a connection again, or its server is gone: scheduled anew"),
            Self::GivenUp(connection) => write!(f, "the old connection ends: {}", Row(connection)),
            Self::ServerGone => f.write_str("its server was deleted or drained: the sender is told"),
            Self::Service(key) => match key {
                ServiceKey::Address { protocol, address, port } => {
                    write!(f, "service: {protocol} {}", Endpoint::new(*address, *port))
                }
                ServiceKey::FwMark { mark, .. } => write!(f, "service: FWM {mark}"),
            },
            Self::Template(template) => write!(f, "persistence template: {}", Row(template)),
            Self::TemplateInvalid(template) => write!(f, "persistence template of no use: {}", Row(template)),
            Self::Scheduled { scheduler, candidates, chosen } => {
                write!(f, "scheduler {scheduler} chooses ")?;
                match chosen {
                    Some(server) => write!(f, "{server}")?,
                    None => f.write_str("nothing")?,
                }
                for candidate in candidates {
                    write!(
                        f,
                        "\n     {} {} weight {} active {} inactive {}{}",
                        if Some(candidate.server) == *chosen { "->" } else { "  " },
                        candidate.server,
                        candidate.weight,
                        candidate.active_connections,
                        candidate.inactive_connections,
                        if candidate.is_overloaded { " overloaded" } else { "" }
                    )?;
                }
                Ok(())
            }
            Self::Evicted(template) if template.is_template => {
                write!(f, "template ends to make room: {}", Row(template))
            }
            Self::Evicted(connection) => write!(f, "connection ends to make room: {}", Row(connection)),
            Self::NewConnection(connection) => write!(f, "new connection: {}", Row(connection)),
            Self::OnePacket(way) => write!(f, "one packet by itself, no connection: {}", Way(way)),
            Self::State { before, after, timeout } => {
                write!(f, "state: {before} -> {after}, timeout {} s", timeout.as_secs())
            }
            Self::NotBelieved => f.write_str("numbers, tag or checksum are wrong: the state stays as it is"),
            Self::Helped { expected, said } => {
                f.write_str("helper:")?;
                if let Some((before, after)) = said {
                    write!(f, " says {after:?} for {before:?}")?;
                }
                match expected {
                    Some(expected) => write!(f, " expects {}", Row(expected)),
                    None => Ok(()),
                }
            }
            Self::Changed { field, before, after } => write!(f, "{field}: {before} -> {after}"),
            Self::AnsweredByIcmp { icmp_type, code } => write!(f, "answered by ICMP error {icmp_type}/{code}"),
            Self::AnsweredByReset => f.write_str("answered by a RST"),
            Self::Dropped(reason) => write!(f, "dropped ({reason}): {}", reason.advice()),
        }
    }
}

/// What would happen to a packet, and why. `Display` prints one numbered line a step.
#[derive(Clone, PartialEq, Debug)]
pub struct Explanation {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The verdict `handle_packet` would give.
    pub verdict: Verdict,
    /// The packet's bytes as `handle_packet` would leave them.
    pub bytes: Vec<u8>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:>2}. {step}", index + 1)?;
        }
        let number = self.steps.len() + 1;
        match self.verdict {
            Verdict::Pass => writeln!(f, "{number:>2}. verdict: pass, untouched"),
            Verdict::Forward { next_hop, mtu, .. } => {
                writeln!(f, "{number:>2}. verdict: forward to {next_hop}, MTU {mtu}")
            }
            Verdict::Local => writeln!(f, "{number:>2}. verdict: to the host's own stack"),
            Verdict::Reply { next_hop } => writeln!(f, "{number:>2}. verdict: answer {next_hop}"),
            Verdict::Held => writeln!(f, "{number:>2}. verdict: held"),
            Verdict::Drop(reason) => writeln!(f, "{number:>2}. verdict: drop ({reason})"),
        }
    }
}

fn protocol_name(number: u8) -> &'static str {
    match number {
        1 => "ICMP",
        6 => "TCP",
        17 => "UDP",
        50 => "ESP",
        51 => "AH",
        58 => "ICMPv6",
        132 => "SCTP",
        _ => "IP",
    }
}

/// A connection with its state and timer.
struct Row<'a>(&'a ConnectionView);

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, {} s left", Way(self.0), self.0.state, self.0.expires_in.as_secs())
    }
}

/// The ends of a connection, and how it is forwarded.
struct Way<'a>(&'a ConnectionView);

impl fmt::Display for Way<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.0;
        let local = view.local.map_or_else(String::new, |local| format!(" -> {local}"));
        write!(f, "{} -> {}{local} -> {} {}", view.client, view.virtual_endpoint, view.real, view.forward.name())
    }
}
