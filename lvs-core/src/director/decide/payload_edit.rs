//! Helpers at work: a segment of a connection with a helper is read, the connection it announces is found or made up, and
//! what it says is to be rewritten. `consult` decides; `Help::write` writes; what is kept of it, `carry_out/payload_edit.rs`
//! keeps. Source: Linux IPVS, as recorded in `conformance/`.

use crate::connection::tcp::TcpState;
use crate::connection::{Connection, ConnectionId, State};
use crate::director::decide::classify::FirstPacket;
use crate::director::decide::classify::Route;
use crate::director::tables::Tables;
use crate::drop_reason::DropReason;
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::forward::full_nat;
use crate::helper::sequence::Counts;
use crate::helper::table::{Changed, Helped};
use crate::helper::{Edit, Expected, Findings, Helper, Notes, Session};
use crate::packet::PacketBuf;
use crate::service::ForwardMethod;
use crate::time::Instant;
use crate::verdict::Direction;
use crate::wire::parse::{self, Headers};
use crate::wire::stream;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

/// What is to be done about a segment.
pub(in crate::director) struct Help {
    /// The connection that was announced, as it will be opened.
    pub expected: Option<Connection>,
    /// The one that gives way to it.
    pub gives_way: Option<ConnectionId>,
    /// Which bytes of the packet are replaced by what.
    pub edit: Option<(Range<usize>, Vec<u8>)>,
    /// The two sides count differently, and the segment is renumbered.
    is_renumbered: bool,
    direction: Direction,
    /// The segment's number as its sender gave it.
    sequence: u32,
    pub notes: Notes,
    pub counts: Counts,
    pub changed: Option<Arc<Changed>>,
}

impl Tables<'_> {
    /// The helper for a new connection, if its service has one for it.
    pub(in crate::director) fn helper_for(
        &self,
        first: &FirstPacket,
        forward: ForwardMethod,
    ) -> Option<Arc<dyn Helper>> {
        let is_translated = matches!(forward, ForwardMethod::Nat | ForwardMethod::FullNat);
        let service = self.services.table.get(first.service).filter(|_| is_translated)?;
        let helper = service.helper.as_ref().filter(|_| first.protocol == Protocol::Tcp)?;
        let port = match service.key.port() {
            0 => helper.port(),
            port => port,
        };
        (first.destination.port == port).then(|| Arc::clone(helper))
    }

    /// What the helper makes of a packet, `state` being the connection's as the helper sees it. Changes nothing; what
    /// it asks for can be done.
    #[expect(clippy::too_many_arguments, reason = "all of the connection's surroundings, on copies where explained")]
    pub(in crate::director) fn consult(
        &self,
        now: Instant,
        helped: &Helped,
        connection: &Connection,
        state: State,
        end: &Route,
        packet: &PacketBuf<'_>,
        headers: &Headers,
    ) -> Result<Help, DropReason> {
        let direction = end.direction;
        let mut help = Help::nothing(helped, direction);
        let Some((sequence, _)) = stream::numbers(packet.bytes(), headers) else { return Ok(help) };
        help.sequence = sequence;
        // The rest of a first fragment is not here: neither its checksum nor its text can be judged.
        if !headers.is_fragment_head() {
            if !stream::checksum_is_valid(packet, headers) {
                return Err(DropReason::BadTransportChecksum);
            }
            let payload = stream::payload(packet.bytes(), headers).unwrap_or_default();
            let text = &packet.bytes()[payload.clone()];
            let mut findings = match help.changed.as_ref().and_then(|changed| changed.again(direction, sequence, text))
            {
                Some(edit) => Findings { expected: None, edit: Some(edit) },
                None if state == ESTABLISHED && !text.is_empty() => {
                    listen(helped, &mut help.notes, connection, direction, text)
                }
                None => Findings::default(),
            };
            help.expected = findings.expected.map(|expected| self.expectation(connection, &expected));
            if let Some(expected) = &mut help.expected {
                let known = self.find_expected(now, expected);
                if known.is_none() {
                    help.gives_way = self.expectation_room(now, &helped.announced, expected)?;
                }
                expected.local = self.expected_local(now, connection, expected, known)?;
                // Whom the client wants to be called back by knows no client, but the director.
                if let (Some(local), Direction::Request) = (expected.local, direction) {
                    findings.edit = helped.helper.announce(&session(connection), text, local).or(findings.edit);
                }
            }
            if let Some(edit) = findings.edit {
                let repeats = helped.helper.repeats() || connection.forward == ForwardMethod::FullNat;
                help.changed = repeats.then(|| Changed::new(direction, sequence, &edit, text)).flatten().map(Arc::new);
                help.edit(edit, payload, sequence, end, packet, headers)?;
            }
        }
        help.is_renumbered = !help.counts.agree();
        Ok(help)
    }

    /// The announced connection: it belongs to the one it was announced on and goes to the same server.
    fn expectation(&self, parent: &Connection, expected: &Expected) -> Connection {
        let virtual_endpoint = Endpoint::new(parent.virtual_endpoint.address, expected.virtual_port);
        let (client, real) = (expected.client, expected.real);
        let mut connection = Connection::new(Protocol::Tcp, client, virtual_endpoint, real, parent.forward);
        connection.no_client_port = client.port == 0;
        connection.server = parent.server;
        connection.state = LISTEN;
        connection.is_expected = true;
        connection.timeout = self.services.timeout_of(parent.server, LISTEN);
        connection
    }

    /// The connection that was announced before, if it lives.
    pub(in crate::director) fn find_expected(&self, now: Instant, expected: &Connection) -> Option<ConnectionId> {
        let Connection { client, virtual_endpoint, real, .. } = *expected;
        if expected.forward == ForwardMethod::FullNat {
            let found = self.flows.connections.find_request(now, Protocol::Tcp, client, virtual_endpoint);
            let is_it = |known: &Connection| known.real == real && known.forward == expected.forward;
            return found.filter(|id| self.flows.connections.get(*id).is_some_and(is_it));
        }
        if expected.no_client_port {
            self.flows.connections.find_reply(now, Protocol::Tcp, real, client)
        } else {
            self.flows.connections.find_request(now, Protocol::Tcp, client, virtual_endpoint)
        }
    }

    /// The director's own endpoint of an announced FullNAT connection, `known` if it was announced before. Its address
    /// is that of the connection it was announced on: many servers want both from one.
    fn expected_local(
        &self,
        now: Instant,
        parent: &Connection,
        expected: &Connection,
        known: Option<ConnectionId>,
    ) -> Result<Option<Endpoint>, DropReason> {
        let Some(local) = parent.local else { return Ok(None) };
        if let Some(known) = known.and_then(|id| self.flows.connections.get(id)) {
            return Ok(known.local);
        }
        let (real, client) = (expected.real, expected.client.address);
        let chosen = self.flows.full_nat.pool.choose(now, Protocol::Tcp, real, &[local.address], client);
        chosen.map(Some).map_err(crate::director::decide::room::no_port)
    }

    /// Gives a segment that the director sends in place of another one, which had the number `sequence`, the numbers its
    /// receiver expects.
    pub(in crate::director) fn keep_in_step(
        &self,
        id: ConnectionId,
        direction: Direction,
        sequence: u32,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) {
        let counts = self.flows.helped.get(id).map(|helped| helped.counts).filter(|counts| !counts.agree());
        if let Some(counts) = counts {
            renumber(&counts, direction, sequence, packet, headers);
        }
    }
}

impl Help {
    fn nothing(helped: &Helped, direction: Direction) -> Self {
        let Helped { notes, counts, ref changed, .. } = *helped;
        let changed = changed.clone();
        Self {
            expected: None,
            gives_way: None,
            edit: None,
            is_renumbered: false,
            direction,
            sequence: 0,
            notes,
            counts,
            changed,
        }
    }

    /// Prepares a change of the payload: it must fit the packet's buffer and the way out.
    fn edit(
        &mut self,
        edit: Edit,
        payload: Range<usize>,
        sequence: u32,
        end: &Route,
        packet: &PacketBuf<'_>,
        headers: &Headers,
    ) -> Result<(), DropReason> {
        let Edit { range, text } = edit;
        if range.start > range.end || range.end > payload.len() {
            return Ok(());
        }
        let range = payload.start + range.start..payload.start + range.end;
        let growth = text.len().saturating_sub(range.len());
        let others_growth = full_nat::other_growth(headers, self.direction, &end.path);
        if !stream::has_room(packet, headers, growth + others_growth) {
            return Err(DropReason::HelperFailed);
        }
        let stays_ipv4 = headers.family == AddressFamily::Ipv4 && end.path.header_growth(headers) == 0;
        let may_be_cut = stays_ipv4 && !headers.dont_fragment;
        let len = headers.packet_len + growth + others_growth;
        let is_too_big = packet.offload.gso.is_none() && len > usize::from(end.path.mtu);
        if growth > 0 && is_too_big && !may_be_cut {
            return Err(DropReason::TooBig);
        }
        self.counts.note(self.direction, sequence, (text.len() as u32).wrapping_sub(range.len() as u32));
        self.edit = Some((range, text));
        Ok(())
    }

    /// Changes the packet, which has been translated since it was read, when it had these `headers`.
    pub(in crate::director) fn write(&self, packet: &mut PacketBuf<'_>, headers: &Headers) {
        if !self.is_renumbered && self.edit.is_none() {
            return;
        }
        let translated = parse::parse(packet.bytes()).expect("it was parsed before it was translated");
        if self.is_renumbered {
            renumber(&self.counts, self.direction, self.sequence, packet, &translated);
        }
        if let Some((range, text)) = &self.edit {
            // FullNAT puts things in front of the payload only.
            let from_end = |at: usize| translated.packet_len - (headers.packet_len - at);
            let range = from_end(range.start)..from_end(range.end);
            stream::replace(packet, &translated, range, text).expect("the room was checked");
        }
    }
}

/// Renumbers a segment whose sender gave it the number `sequence`; FullNAT may have given it another one since. What is
/// acknowledged it has translated to the count of him who sent it.
fn renumber(counts: &Counts, direction: Direction, sequence: u32, packet: &mut PacketBuf<'_>, headers: &Headers) {
    let added = counts.sent(direction, sequence).wrapping_sub(sequence);
    let sent = |number: u32| number.wrapping_add(added);
    stream::renumber(packet, headers, sent, |number| counts.acknowledged(direction, number));
}

fn session(connection: &Connection) -> Session {
    let Connection { client, virtual_endpoint, real, .. } = *connection;
    Session { client, virtual_endpoint, real }
}

/// Lets the helper read a payload, or the beginning of a long one.
fn listen(
    helped: &Helped,
    notes: &mut Notes,
    connection: &Connection,
    direction: Direction,
    payload: &[u8],
) -> Findings {
    let session = session(connection);
    let payload = &payload[..payload.len().min(HEARD_MAX)];
    match direction {
        Direction::Request => helped.helper.request(&session, notes, payload),
        Direction::Reply => helped.helper.reply(&session, notes, payload),
    }
}

const ESTABLISHED: State = State::Tcp(TcpState::Established);

/// Bytes of a payload that are read. Commands and replies are lines; a segment that fills an Ethernet frame has 1,460.
const HEARD_MAX: usize = 1_500;

pub(in crate::director) const LISTEN: State = State::Tcp(TcpState::Listen);
