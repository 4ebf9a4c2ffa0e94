//! Whether a packet may move its connection's state, for services that ask (`--check-window`): what would shorten the
//! connection's life, or open a half-open one, must be one that its sender may have sent, with a right checksum. What
//! is not believed goes its way all the same, as in IPVS, and moves nothing. Connections are followed in
//! `carry_out/followed.rs`, by the rules of `connection/window.rs` (TCP) and `connection/tags.rs` (SCTP).

use crate::connection::followed::Followed;
use crate::connection::tags::Tagged;
use crate::connection::window::{Rule, Segment};
use crate::connection::{Connection, ConnectionId, State};
use crate::director::tables::Tables;
use crate::flow::Protocol;
use crate::packet::PacketBuf;
use crate::service::ForwardMethod;
use crate::verdict::Direction;
use crate::wire::parse::Headers;
use crate::wire::{damage, stream};

/// How far a helper may have moved the two sides' numbers apart.
const HELPER_SLACK: u32 = 65_535;

impl Tables<'_> {
    /// Whether a packet may move its connection to this state.
    pub(in crate::director) fn is_believed(
        &self,
        id: Option<ConnectionId>,
        connection: &Connection,
        next: State,
        packet: &PacketBuf<'_>,
        headers: &Headers,
        direction: Direction,
    ) -> bool {
        let Some(followed) = id.filter(|_| connection.checks_window).and_then(|id| self.flows.followed.get(id)) else {
            return true;
        };
        let opens = connection.state.is_half_open() && !next.is_half_open();
        let shortens = self.services.timeout_of(connection.server, next) < connection.timeout;
        if next == connection.state || !(opens || shortens) {
            return true;
        }
        let (bytes, rule) = (packet.bytes(), rule(connection));
        match followed {
            Followed::Tcp(numbers) => {
                let segment = self.segment_of(id, connection, bytes, headers, direction);
                let may_be_sent = |segment| numbers.believes(direction, &segment, rule);
                numbers.is_unknown() || stream::checksum_is_valid(packet, headers) && segment.is_some_and(may_be_sent)
            }
            Followed::Sctp(tags) => {
                let may_be_sent = |packet| tags.believes(direction, &packet, rule.replies_bypass);
                let is_intact = || !damage::is_damaged(packet, headers);
                tags.is_unknown() || Tagged::read(bytes, headers).is_some_and(may_be_sent) && is_intact()
            }
        }
    }

    /// Whether a new connection's service asks for all this. Connections keep what was asked when they began.
    pub(in crate::director) fn checks_window(&self, connection: &Connection) -> bool {
        connection.protocol != Protocol::Udp
            && self.services.service_of(connection.server).is_some_and(|service| service.config.check_window)
    }

    /// A segment in the client's numbers.
    pub(in crate::director) fn segment_of(
        &self,
        id: Option<ConnectionId>,
        connection: &Connection,
        bytes: &[u8],
        headers: &Headers,
        direction: Direction,
    ) -> Option<Segment> {
        let mut segment = Segment::read(bytes, headers)?;
        if connection.forward == ForwardMethod::FullNat && direction == Direction::Reply {
            if let Some(translation) = id.and_then(|id| self.flows.full_nat.translation(id)) {
                segment.acknowledgment = segment.acknowledgment.map(|number| translation.to_client(number));
            }
        }
        Some(segment)
    }
}

pub(in crate::director) fn rule(connection: &Connection) -> Rule {
    Rule { replies_bypass: connection.no_output, slack: if connection.has_helper { HELPER_SLACK } else { 0 } }
}
