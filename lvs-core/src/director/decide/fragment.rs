//! Fragments: the first one is handled like any packet and decides for the rest of its datagram. Parts that come
//! before it wait and leave through `poll_transmit`; datagrams that are needed whole (SCTP's checksum, tunnels) wait
//! until they are complete. A datagram counts once, with its whole length.

use crate::director::decide::classify::Route;
use crate::director::tables::Tables;
use crate::drop_reason::DropReason;
use crate::flow::{AddressFamily, Protocol};
use crate::fragment::{DatagramId, DatagramKey, Decision, Fit};
use crate::packet::PacketBuf;
use crate::time::Instant;
use crate::wire::ipv6;
use crate::wire::parse::{FragmentPart, Headers};

/// What becomes of a fragment, before anything is changed.
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart where it is made; a box would be an allocation for each fragment"
)]
pub(in crate::director) enum Fate {
    /// Not a datagram of ours.
    Pass,
    Drop(DropReason),
    /// A first fragment: handled like a whole packet.
    First,
    /// Its datagram's first fragment showed the way.
    Follow(DatagramId, Route),
    /// The first fragment was passed on.
    PassedOn(DatagramId),
    /// Kept until the first fragment comes, or until the datagram is complete.
    Wait,
}

impl Tables<'_> {
    /// What becomes of a fragment. Changes nothing.
    pub(in crate::director) fn fragment_fate(
        &self,
        now: Instant,
        packet: &PacketBuf<'_>,
        headers: &Headers,
        part: &FragmentPart,
    ) -> Fate {
        let is_whole = part.offset == 0 && !part.more;
        if is_whole {
            return Fate::First;
        }
        if Protocol::from_number(headers.protocol).is_none() && !hides_protocol(headers, part) {
            return if part.offset == 0 { Fate::First } else { Fate::Pass };
        }
        if !self.serves(headers.family) {
            return Fate::Pass;
        }
        let is_payload_odd = part.more && (headers.packet_len - headers.transport) % 8 != 0;
        if is_payload_odd {
            return Fate::Drop(DropReason::MalformedIp);
        }
        let memory = &self.fragments.memory;
        let key = DatagramKey::of(headers, part);
        let is_maybe_ours = self.is_maybe_ours(headers, packet.mark);
        let is_needed_whole = || is_maybe_ours && self.is_needed_whole(headers, part, packet.mark);
        let is_server = self.services.servers.has_address(headers.source);
        let wait = |id, is_collected| match memory.has_room_for(
            (id, &key, is_server),
            packet.bytes(),
            headers,
            is_collected,
        ) {
            true => Fate::Wait,
            false => Fate::Drop(DropReason::FragmentTableFull),
        };
        let Some(id) = memory.find(now, &key) else {
            return match part.offset {
                // What is not ours goes its way, followed or not.
                0 if !is_maybe_ours => Fate::First,
                _ if !is_maybe_ours => Fate::Pass,
                _ if is_needed_whole() => wait(None, true),
                0 if memory.has_place() => Fate::First,
                0 => Fate::Drop(DropReason::FragmentTableFull),
                _ => wait(None, false),
            };
        };
        let fit = || memory.fit(id, packet.bytes(), headers, part);
        match memory.decision(id) {
            Decision::Collecting => match fit() {
                Fit::Fits => wait(Some(id), true),
                Fit::Contradicts => wait(None, true),
                Fit::Repeats | Fit::TooManyPieces => Fate::Drop(DropReason::OverlappingFragment),
            },
            // The first part of a datagram whose first part was seen is another datagram's.
            _ if part.offset == 0 && is_needed_whole() => wait(None, true),
            _ if part.offset == 0 => Fate::First,
            Decision::Open => match fit() {
                Fit::Fits => wait(Some(id), false),
                Fit::Contradicts => wait(None, is_needed_whole()),
                Fit::Repeats | Fit::TooManyPieces => Fate::Drop(DropReason::OverlappingFragment),
            },
            Decision::Pass => Fate::PassedOn(id),
            Decision::Drop(reason) => Fate::Drop(reason),
            Decision::Follow(_) if fit() != Fit::Fits => Fate::Drop(DropReason::OverlappingFragment),
            Decision::Follow(end) => Fate::Follow(id, end),
        }
    }

    /// Whether a fragment without its first one may belong to a flow of ours.
    pub(in crate::director) fn is_maybe_ours(&self, headers: &Headers, mark: u32) -> bool {
        mark != 0
            || self.services.table.is_virtual(headers.destination)
            || self.services.servers.has_address(headers.source)
    }

    /// Whether a datagram of ours is put together before anything is decided. SCTP's CRC32c covers the whole packet, so
    /// a port can only change once all of it is there. And Linux puts what goes into a tunnel together, so that the
    /// server gets the datagram whole; which datagrams do is not known before their first fragment, so all requests
    /// wait. Nor is it known before that which protocol an IPv6 datagram is of that has extension headers in its first
    /// fragment.
    pub(in crate::director) fn is_needed_whole(&self, headers: &Headers, part: &FragmentPart, mark: u32) -> bool {
        let is_request = mark != 0 || self.services.table.is_virtual(headers.destination);
        let is_sctp = headers.protocol == Protocol::Sctp.number();
        is_sctp || hides_protocol(headers, part) || (is_request && self.services.servers.has_tunnels())
    }
}

/// Whether this later fragment's datagram has headers behind its fragment header, of which the last names the protocol.
fn hides_protocol(headers: &Headers, part: &FragmentPart) -> bool {
    headers.family == AddressFamily::Ipv6 && part.offset != 0 && ipv6::is_extension(headers.protocol)
}
