//! Everything that comes of one packet. `decide.rs` makes a plan and changes nothing; `carry_out.rs` does it; `explain`
//! tells it. What a plan makes of the packet's bytes is written here, for both.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::net::IpAddr;
use core::time::Duration;

use crate::connection::{Connection, ConnectionId, State};
use crate::director::decide::choose::Persistence;
use crate::director::decide::classify::FirstPacket;
use crate::director::decide::classify::Route;
use crate::director::decide::icmp_error::translate_related;
use crate::director::decide::payload_edit::Help;
use crate::director::decide::room::Room;
use crate::director::decide::server_gone::answer_with_reset;
use crate::director::decide::tunnel_error::TunnelError;
use crate::director::tables::Tables;
use crate::drop_reason::DropReason;
use crate::flow::Endpoint;
use crate::forward;
use crate::helper::Helper;
use crate::packet::PacketBuf;
use crate::persistence::TemplateId;
use crate::service::ServerId;
use crate::service::table::ServiceIndex;
use crate::verdict::{Direction, Verdict};
use crate::wire::icmp::{IcmpError, Related};
use crate::wire::parse::Headers;

pub(super) struct Plan {
    /// A connection that ends: it is opened anew, or its server is gone (`expire_nodest_conn`).
    pub given_up: Option<ConnectionId>,
    /// A template that was found and cannot be used any more.
    pub invalid: Option<TemplateId>,
    /// The connection that is opened before the packet is sent.
    pub opening: Option<Opening>,
    pub act: Act,
}

impl Plan {
    /// Where the packet goes with its connection, and the other parts of its datagram after it.
    pub const fn route(&self) -> Option<&Route> {
        match &self.act {
            Act::Send(_, sending) | Act::SendOnce(sending) => Some(&sending.route),
            _ => None,
        }
    }

    pub const fn of(act: Act) -> Self {
        Self { given_up: None, invalid: None, opening: None, act }
    }
}

/// A connection that is opened.
pub(super) struct Opening {
    pub first: FirstPacket,
    pub connection: Connection,
    pub persistence: Persistence,
    /// Who gives way to it.
    pub room: Room,
    pub helper: Option<Arc<dyn Helper>>,
}

/// What is done with the packet. A connection is `None` where it is the one that is opened.
pub(super) enum Act {
    Pass,
    Drop(DropReason),
    /// On its way with its connection.
    Send(Option<ConnectionId>, Sending),
    /// The same for a connection that lives for this packet only.
    SendOnce(Sending),
    /// An ICMP error about a connection, on its way.
    Relate(Option<ConnectionId>, Relating),
    /// One that is for the host itself. Its connection's server counts it.
    KeepRelated(Option<ServerId>),
    /// An ICMP error about a tunnel packet of ours: the client is told.
    TellOfTunnel(ConnectionId, TunnelError),
    /// An ICMP error that tells the path MTU of a tunnel and nothing else.
    LearnPathMtu {
        address: IpAddr,
        mtu: u32,
    },
    /// One that would, and may come from anybody.
    DistrustPathMtu {
        /// Whose proof was guessed wrong.
        guessed: Option<IpAddr>,
    },
    /// Its TCP connection is closed: RST to both sides.
    Close(ConnectionId, Direction),
    /// Its server is gone and the client is told by ICMP.
    RefuseOrphan,
    /// From a NAT server, without a connection (`nat_icmp_send`).
    RefuseReply,
    /// Its service has no server for it: the client is told.
    RefuseUnserved(ServiceIndex),
    /// Some table has no room for its connection.
    RefuseForRoom(DropReason),
    /// No local port is left: the client is told.
    RefuseForPort {
        service: ServiceIndex,
        server: Option<ServerId>,
        real: Endpoint,
        reason: DropReason,
    },
}

/// A packet of a connection: its way out, and what it does to the connection.
pub(super) struct Sending {
    pub route: Route,
    pub server: Option<ServerId>,
    /// The state it leads to.
    pub moved: Option<Moved>,
    /// It would have moved the state, and is not believed (`--check-window`).
    pub is_disbelieved: bool,
    /// The connection was only expected, and this is not its first packet.
    pub is_unheard: bool,
    /// It tells the port of a client that is expected.
    pub client_port: Option<u16>,
    /// It leaves without its client's address.
    pub omits_client_address: bool,
    /// Who gives way to a connection that it opens again.
    pub gives_way: Option<ConnectionId>,
    /// What the connection's helper makes of it.
    pub help: Option<Result<Box<Help>, DropReason>>,
}

/// A state, and how long a connection lives in it.
#[derive(Clone, Copy)]
pub(super) struct Moved {
    pub state: State,
    pub timeout: Duration,
}

impl Sending {
    /// Whether the packet counts for its connection: requests do whatever becomes of them, replies once they are sent.
    pub fn is_counted(&self, verdict: Verdict) -> bool {
        self.route.direction == Direction::Request || matches!(verdict, Verdict::Forward { .. })
    }

    /// What the helper makes of a packet that was sent. It is heard with no other.
    pub fn heard_help(&self, verdict: Verdict) -> Option<&Help> {
        let is_sent = matches!(verdict, Verdict::Forward { .. } | Verdict::Local);
        self.help.as_ref()?.as_deref().ok().filter(|_| is_sent)
    }
}

/// An ICMP error about a connection.
pub(super) struct Relating {
    pub route: Route,
    pub server: Option<ServerId>,
    pub related: Related,
    /// Addresses inside and outside are translated.
    pub is_translated: bool,
}

/// The bytes.
impl Tables<'_> {
    /// Makes of the packet what the plan says. The verdict may be worse than planned: what cannot be written is refused,
    /// and the packet is as it came.
    pub(super) fn write(&self, act: &Act, packet: &mut PacketBuf<'_>, headers: &Headers) -> Verdict {
        let now = self.now;
        match act {
            Act::Pass | Act::KeepRelated(_) => Verdict::Pass,
            Act::Drop(reason) | Act::RefuseForRoom(reason) => Verdict::Drop(*reason),
            Act::LearnPathMtu { .. } => Verdict::Drop(DropReason::PathMtuLearned),
            Act::DistrustPathMtu { .. } => Verdict::Drop(DropReason::UnprovenPathMtu),
            Act::Send(_, sending) | Act::SendOnce(sending) => self.write_sending(sending, packet, headers),
            Act::Relate(_, Relating { route, related, is_translated: true, .. }) => {
                translate_related(packet, headers, related, route)
            }
            Act::Relate(_, relating) => self.write_route(&relating.route, packet, headers),
            Act::TellOfTunnel(id, error) => {
                let connection = self.flows.connections.get(*id).expect("it was just found");
                self.tell_client(now, packet, connection, error)
            }
            Act::Close(..) => answer_with_reset(packet, headers, self.refused_answers(now, headers.source)),
            Act::RefuseReply => self.refuse_reply_on(now, packet, headers),
            Act::RefuseOrphan => self.tell_unreachable(DropReason::ServerGone, packet, headers),
            Act::RefuseUnserved(_) => self.tell_unreachable(DropReason::NoServer, packet, headers),
            Act::RefuseForPort { reason, .. } => self.tell_unreachable(*reason, packet, headers),
        }
    }

    /// Gives a packet to its connection's server or client, with what the helper makes of it.
    pub(super) fn write_sending(&self, sending: &Sending, packet: &mut PacketBuf<'_>, headers: &Headers) -> Verdict {
        if let Some(Err(reason)) = sending.help {
            return Verdict::Drop(reason);
        }
        let verdict = self.write_route(&sending.route, packet, headers);
        if let Some(help) = sending.heard_help(verdict) {
            help.write(packet, headers);
        }
        verdict
    }

    /// Rewrites a packet for its way out.
    pub(super) fn write_route(&self, route: &Route, packet: &mut PacketBuf<'_>, headers: &Headers) -> Verdict {
        if let Some(reason) = self.refuses_super_packet(packet, route) {
            return Verdict::Drop(reason);
        }
        match route.direction {
            Direction::Request => forward::request(packet, headers, &route.path),
            Direction::Reply => forward::reply(packet, headers, &route.path),
        }
    }

    /// Tells a client that nobody is there for it, or drops its packet where it may not be told.
    fn tell_unreachable(&self, otherwise: DropReason, packet: &mut PacketBuf<'_>, headers: &Headers) -> Verdict {
        let path = self.answer_path(self.now, Direction::Request, headers);
        forward::answer(packet, headers, IcmpError::PortUnreachable, &path, otherwise)
    }
}
