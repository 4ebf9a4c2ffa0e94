//! Connections whose server is of no more use: deleted (`on_server_gone`), or drained and past its deadline.
//! Decides what a packet of such a connection meets: another server, a RST to both sides, an ICMP error, or nothing.

use crate::answer_limit::Refused;
use crate::command::AfterDrain;
use crate::connection::Connection;
use crate::director::decide::classify::Fate;
use crate::director::tables::Tables;
use crate::drop_reason::DropReason;
use crate::flow::Protocol;
use crate::packet::PacketBuf;
use crate::service::OnServerGone;
use crate::service::server_table::ServerRecord;
use crate::time::Instant;
use crate::verdict::Verdict;
use crate::wire::parse::Headers;
use crate::wire::reset;
use crate::wire::tcp::TcpFlags;

impl Tables<'_> {
    /// What a request of a connection meets whose server may be of no more use. `is_opening`: it is a SYN or INIT.
    pub(in crate::director) fn fate_by_server(
        &self,
        now: Instant,
        connection: &Connection,
        flags: Option<TcpFlags>,
        is_opening: bool,
    ) -> Fate {
        let Some(server) = connection.server.and_then(|id| self.services.servers.get(id)) else {
            return Fate::Continue;
        };
        if server.is_listed() {
            return match server.drain.filter(|drain| drain.deadline <= now) {
                Some(drain) => fate_after_drain(drain.then, connection, flags, is_opening),
                None => Fate::Continue,
            };
        }
        match self.on_server_gone(server) {
            OnServerGone::Default if self.site.config.settings.expire_nodest_conn => Fate::Ended,
            OnServerGone::Default | OnServerGone::Drop => Fate::Drop(DropReason::ServerGone),
            _ if is_opening => Fate::Ended,
            OnServerGone::Reschedule => Fate::Elsewhere,
            OnServerGone::Reset if connection.protocol == Protocol::Tcp => reset_or_continue(flags),
            OnServerGone::Reset | OnServerGone::IcmpUnreachable => Fate::Unreachable,
        }
    }

    /// What a reply of a connection meets whose server may be of no more use.
    pub(in crate::director) fn fate_of_reply(
        &self,
        now: Instant,
        connection: &Connection,
        flags: Option<TcpFlags>,
    ) -> Fate {
        let Some(server) = connection.server.and_then(|id| self.services.servers.get(id)) else {
            return Fate::Continue;
        };
        let is_tcp = connection.protocol == Protocol::Tcp;
        if !server.is_listed() {
            // As in Linux, what a deleted server still has to say reaches its clients.
            return match self.on_server_gone(server) {
                OnServerGone::Reset if is_tcp => reset_or_continue(flags),
                _ => Fate::Continue,
            };
        }
        match server.drain.filter(|drain| drain.deadline <= now) {
            None => Fate::Continue,
            Some(drain) if is_tcp && drain.then == AfterDrain::Reset => reset_or_continue(flags),
            Some(_) => Fate::Drop(DropReason::ServerDrained),
        }
    }

    fn on_server_gone(&self, server: &ServerRecord) -> OnServerGone {
        let service = self.services.find(&server.service);
        service.map_or(OnServerGone::Default, |service| service.config.on_server_gone)
    }
}

/// Answers a segment with a RST, unless enough of them have been sent for now.
pub(in crate::director) fn answer_with_reset(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    refused: Refused,
) -> Verdict {
    if refused.is_reset() {
        return Verdict::Drop(DropReason::AnswerLimited);
    }
    match reset::answer(packet, headers) {
        Ok(()) => Verdict::Reply { next_hop: headers.source },
        Err(reason) => Verdict::Drop(reason),
    }
}

fn fate_after_drain(then: AfterDrain, connection: &Connection, flags: Option<TcpFlags>, is_opening: bool) -> Fate {
    match (connection.protocol, then) {
        _ if is_opening => Fate::Ended,
        // Datagrams need no closing: they go to another server.
        (Protocol::Udp, _) => Fate::Ended,
        (Protocol::Tcp, AfterDrain::Reset) => reset_or_continue(flags),
        _ => Fate::Drop(DropReason::ServerDrained),
    }
}

/// A side that resets the connection itself may do so.
fn reset_or_continue(flags: Option<TcpFlags>) -> Fate {
    if flags.is_some_and(|flags| flags.rst()) { Fate::Continue } else { Fate::Close }
}
