//! Sequence numbers behind FullNAT. A server sees many clients at one local endpoint, one after the other: their
//! initial sequence numbers are replaced by ones that grow, so that a server still in TIME_WAIT takes the next
//! connection (RFC 9293 §3.6.1; RFC 6528). A preamble put before the client's data moves the rest of it along.
//! Only numbers the client chose are changed; the server's own stay.
//!
//! What the server's SYN|ACK acknowledges says which of a client's SYNs it took: until then a new SYN is an offer
//! beside the connection that stands, whose numbers go on to hold. And until the server has the preamble, nothing of
//! the client may take its place: see [`Translation::refuses`]; what may once it has ended is in `ending.rs`.
//! Source: the published behaviour of DPVS and Alibaba LVS.

use crate::flow::Endpoint;
use crate::forward::full_nat::ending::{Beginning, Ending};
use crate::hash::sip_hash_2_4;
use crate::service::{ClientAddress, FullNatOptions};
use crate::snapshot::codec::{Reader, Writer};
use crate::time::Instant;

/// What a FullNAT connection needs to translate its segments or datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Translation {
    /// As they were when the connection began.
    pub options: FullNatOptions,
    /// Bytes put before the client's data.
    pub preamble_len: u32,
    /// The SYN of the client that the server answered.
    standing: Option<Opening>,
    /// The client's last SYN, if the server has not answered it.
    offered: Option<Opening>,
    /// The sequence number of the server's first byte of data.
    server_data: Option<u32>,
    /// The one behind what the server has sent; followed until it has all of the preamble.
    server_next: u32,
    /// The server has all of the preamble: sequence numbers need no looking at any more.
    preamble_arrived: bool,
    /// How far the connection is towards its end.
    ending: Ending,
    /// Datagrams of the client so far; more than [`UOA_DATAGRAMS`] are not told apart.
    datagrams: u8,
}

/// No preamble is longer: a PROXY header in text has at most 107 bytes.
const PREAMBLE_MAX: u16 = 107;

/// Ways to tell clients' addresses, by their numbers in a snapshot.
const CLIENT_ADDRESSES: [ClientAddress; 5] =
    [ClientAddress::None, ClientAddress::Toa, ClientAddress::Uoa, ClientAddress::ProxyV1, ClientAddress::ProxyV2];

/// A SYN of the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Opening {
    /// The client's initial sequence number.
    isn: u32,
    /// What the server's view of the client's sequence numbers is ahead of the client's.
    shift: u32,
}

impl Opening {
    const fn isn_at_server(self) -> u32 {
        self.isn.wrapping_add(self.shift)
    }
}

/// What of a TCP segment matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SegmentNumbers {
    pub sequence: u32,
    /// `None` without the ACK flag.
    pub acknowledgment: Option<u32>,
    /// Bytes of data.
    pub len: u32,
    pub fin: bool,
}

impl Translation {
    pub fn new(options: FullNatOptions, preamble_len: usize) -> Self {
        Self {
            options,
            preamble_len: preamble_len as u32,
            standing: None,
            offered: None,
            server_data: None,
            server_next: 0,
            preamble_arrived: false,
            ending: Ending::default(),
            datagrams: 0,
        }
    }

    /// For a snapshot.
    pub fn write(&self, to: &mut Writer<'_>, now: Instant) {
        let client_address = CLIENT_ADDRESSES.iter().position(|known| *known == self.options.client_address);
        to.u8(client_address.unwrap_or_default() as u8);
        to.u8(u8::from(self.options.rewrite_sequence)
            | u8::from(self.options.remove_timestamps) << 1
            | u8::from(self.standing.is_some()) << 2
            | u8::from(self.offered.is_some()) << 3
            | u8::from(self.server_data.is_some()) << 4
            | u8::from(self.preamble_arrived) << 5);
        to.u16(self.preamble_len as u16);
        for opening in [self.standing, self.offered].into_iter().flatten() {
            to.u32(opening.isn);
            to.u32(opening.shift);
        }
        if let Some(data) = self.server_data {
            to.u32(data);
        }
        to.u32(self.server_next);
        to.u8(self.datagrams);
        self.ending.write(to, now);
    }

    /// The same again; `None` if it is nothing of the kind.
    pub fn read(from: &mut Reader<'_>, now: Instant) -> Option<Self> {
        let client_address = CLIENT_ADDRESSES.get(usize::from(from.u8()?)).copied()?;
        let flags = from.u8()?;
        let has = |bit: u8| flags >> bit & 1 == 1;
        let options = FullNatOptions { client_address, rewrite_sequence: has(0), remove_timestamps: has(1) };
        let preamble_len = u32::from(from.u16().filter(|len| *len <= PREAMBLE_MAX)?);
        let mut opening = |is_there: bool| -> Option<Option<Opening>> {
            Some(if is_there { Some(Opening { isn: from.u32()?, shift: from.u32()? }) } else { None })
        };
        let (standing, offered) = (opening(has(2))?, opening(has(3))?);
        let server_data = if has(4) { Some(from.u32()?) } else { None };
        let (server_next, datagrams) = (from.u32()?, from.u8()?);
        let ending = Ending::read(from, now)?;
        Some(Self {
            options,
            preamble_len,
            standing,
            offered,
            server_data,
            server_next,
            preamble_arrived: has(5),
            ending,
            datagrams,
        })
    }

    /// After a datagram of the client.
    pub fn after_client_datagram(self) -> Self {
        Self { datagrams: self.datagrams.saturating_add(1), ..self }
    }

    /// Whether the client's last datagram is one of those that say whose they are (UOA).
    pub fn tells_client(&self) -> bool {
        self.options.client_address == ClientAddress::Uoa && (1..=UOA_DATAGRAMS).contains(&self.datagrams)
    }

    /// After a SYN of the client. One that is repeated, because its answer was lost, keeps its number; any other gets
    /// `new_isn` and waits for the server to say whether it opens the connection anew.
    pub fn after_client_syn(self, isn: u32, is_half_open: bool, new_isn: u32) -> Self {
        let is_in_handshake = if self.preamble_len > 0 { !self.preamble_arrived } else { is_half_open };
        let stands = self.standing.is_some_and(|standing| standing.isn == isn) && is_in_handshake;
        if stands || self.offered.is_some_and(|offered| offered.isn == isn) {
            return self;
        }
        let shift = if self.options.rewrite_sequence { new_isn.wrapping_sub(isn) } else { 0 };
        Self { offered: Some(Opening { isn, shift }), ..self }
    }

    /// After a SYN|ACK of the server: what was offered stands if this is the answer to it.
    pub fn after_server_syn(self, now: Instant, sequence: u32, acknowledgment: u32) -> Self {
        let is_answered = |opening: &Opening| opening.isn_at_server().wrapping_add(1) == acknowledgment;
        let server_data = sequence.wrapping_add(1);
        let anew = Self {
            server_data: Some(server_data),
            server_next: server_data,
            preamble_arrived: false,
            ending: Ending::default(),
            ..self
        };
        if let Some(offered) = self.offered.filter(is_answered) {
            return Self { standing: Some(offered), offered: None, ..anew };
        }
        let is_repeated = self.server_data == Some(server_data);
        if self.standing.is_some_and(|standing| is_answered(&standing)) && !is_repeated {
            return anew;
        }
        let segment = SegmentNumbers { sequence, acknowledgment: Some(acknowledgment), ..SegmentNumbers::default() };
        self.with_ending(|ending| ending.after_server_segment(now, &segment))
    }

    /// After a RST of the client.
    pub fn after_client_reset(self, sequence: u32) -> Self {
        let sequence = self.to_server(sequence, false);
        self.with_ending(|ending| ending.after_client_reset(sequence))
    }

    /// After a RST of the server.
    pub fn after_server_reset(self) -> Self {
        self.with_ending(Ending::after_server_reset)
    }

    /// After a segment of the client that is neither SYN nor RST.
    pub fn after_client_segment(self, now: Instant, segment: &SegmentNumbers) -> Self {
        let segment = self.at_server(segment);
        self.with_ending(|ending| ending.after_client_segment(now, &segment))
    }

    fn with_ending(self, change: impl FnOnce(Ending) -> Ending) -> Self {
        if self.preamble_len == 0 { self } else { Self { ending: change(self.ending), ..self } }
    }

    fn at_server(&self, segment: &SegmentNumbers) -> SegmentNumbers {
        SegmentNumbers { sequence: self.to_server(segment.sequence, false), ..*segment }
    }

    /// After a segment of the server that is neither SYN nor RST.
    pub fn after_server_segment(self, now: Instant, segment: &SegmentNumbers) -> Self {
        self.after_server_data(segment).with_ending(|ending| ending.after_server_segment(now, segment))
    }

    fn after_server_data(self, segment: &SegmentNumbers) -> Self {
        let Some(server_data) = self.server_data.filter(|_| !self.preamble_arrived) else { return self };
        // What does not lie behind its SYN belongs to another connection.
        let known_len = self.server_next.wrapping_sub(server_data);
        if segment.sequence.wrapping_sub(server_data) > known_len.saturating_add(REORDERING_MAX) {
            return self;
        }
        let end = segment.sequence.wrapping_add(segment.len).wrapping_add(segment.fin.into());
        let is_further = end.wrapping_sub(server_data) > known_len;
        let arrived = |number| self.past_client_syn_at_server(number) >= self.preamble();
        Self {
            server_next: if is_further { end } else { self.server_next },
            preamble_arrived: segment.acknowledgment.is_some_and(arrived),
            ..self
        }
    }

    /// Whether the client still waits for the server's first byte of data: it acknowledges nothing but the SYN.
    pub fn is_before_server_data(&self, acknowledgment: u32) -> bool {
        self.server_data == Some(acknowledgment)
    }

    /// Whether a segment of the client begins where its first byte is or will be, and the server may still need the
    /// preamble. That goes with every such segment, the ACK that completes the handshake first of all: a server that
    /// speaks first waits for it, and the client for the server. What is lost comes again with the ACK that answers the
    /// server's next SYN|ACK, or with the client's data.
    pub fn needs_preamble(&self, sequence: u32) -> bool {
        self.has_preamble_to_come() && self.past_client_syn(sequence) == Some(0)
    }

    /// Whether something may have to be put into a segment of the client with this acknowledgment number.
    pub fn may_insert(&self, acknowledgment: u32) -> bool {
        let is_toa = self.options.client_address == ClientAddress::Toa;
        self.has_preamble_to_come() || is_toa && self.is_before_server_data(acknowledgment)
    }

    /// Whether a segment of the client may have to be refused.
    pub fn guards_server(&self) -> bool {
        self.has_preamble_to_come() || self.ending.has_begun()
    }

    /// Whether a segment of the server that is no SYN, FIN or RST may change this.
    pub fn follows_server(&self) -> bool {
        (self.server_data.is_some() && !self.preamble_arrived) || self.ending.follows_server()
    }

    /// Whether the server may not have all of the preamble yet.
    pub fn has_preamble_to_come(&self) -> bool {
        self.preamble_len > 0 && !self.preamble_arrived
    }

    /// Whether a segment of the client, neither SYN nor RST, could bring the server something in the preamble's place,
    /// `reaches_program` if there is anything in it for the server's program: what begins before the first byte, of
    /// which the server takes what it misses; and what acknowledges something this connection's server has not sent,
    /// because a server with SYN cookies takes the answer to any of its SYN|ACKs. A connection of which the beginning
    /// was not seen has no numbers to hold on to, and carries nothing.
    pub fn refuses(&self, segment: &SegmentNumbers, reaches_program: bool) -> bool {
        if self.preamble_len == 0 {
            return false;
        }
        let (Some(standing), Some(server_data)) = (self.standing, self.server_data) else { return true };
        let beginning = Beginning { client: standing.isn_at_server().wrapping_add(1), server: server_data };
        if self.ending.refuses(&self.at_server(segment), reaches_program, beginning) {
            return true;
        }
        if self.preamble_arrived {
            return false;
        }
        let sent_len = self.server_next.wrapping_sub(server_data);
        let is_of_connection =
            segment.acknowledgment.is_some_and(|number| number.wrapping_sub(server_data) <= sent_len);
        let is_early = self.past_client_syn(segment.sequence).is_some_and(|past| past < 0);
        !is_of_connection || (is_early && reaches_program)
    }

    /// A sequence number of the client, as the server is to see it.
    pub fn to_server(self, sequence: u32, is_syn: bool) -> u32 {
        let offered = self.offered.filter(|offered| is_syn && offered.isn == sequence);
        let shift = offered.or(self.current()).map_or(0, |opening| opening.shift);
        let shifted = sequence.wrapping_add(shift);
        let is_behind_preamble = self.preamble_arrived || self.past_client_syn(sequence).is_some_and(|past| past > 0);
        if is_behind_preamble && !is_syn { shifted.wrapping_add(self.preamble_len) } else { shifted }
    }

    /// A number of the server about what the client sent (an acknowledgment, an edge of a selective one, the sequence
    /// number of a segment quoted in an ICMP error), as the client is to see it. What lies inside the preamble is the
    /// client's first byte.
    pub fn to_client(self, number: u32) -> u32 {
        if let Some(offered) = self.offered.filter(|offered| number.wrapping_sub(offered.isn_at_server()) <= 1) {
            return number.wrapping_sub(offered.shift);
        }
        let past_syn = self.past_client_syn_at_server(number);
        let shifted = number.wrapping_sub(self.current().map_or(0, |opening| opening.shift));
        if self.preamble_arrived || past_syn >= self.preamble() {
            shifted.wrapping_sub(self.preamble_len)
        } else if past_syn <= 0 {
            shifted
        } else {
            shifted.wrapping_sub(past_syn as u32)
        }
    }

    /// The SYN whose numbers hold.
    fn current(&self) -> Option<Opening> {
        self.standing.or(self.offered)
    }

    /// How far a number of the client is past its SYN, as far as that is known; half the number space at most.
    fn past_client_syn(&self, sequence: u32) -> Option<i32> {
        self.current().map(|opening| sequence.wrapping_sub(opening.isn.wrapping_add(1)) as i32)
    }

    /// The same for a number as the server sees it; 0 as long as there is no SYN.
    fn past_client_syn_at_server(&self, number: u32) -> i32 {
        let shift = self.current().map_or(0, |opening| opening.shift);
        self.past_client_syn(number.wrapping_sub(shift)).unwrap_or(0)
    }

    fn preamble(&self) -> i32 {
        self.preamble_len as i32
    }
}

/// An initial sequence number for a connection between these endpoints: a keyed hash of both, complete, and a clock
/// that ticks every 64 ns (RFC 6528 §3, with Linux's clock), so that it grows from one connection to the next.
pub(crate) fn initial_sequence_number(key: (u64, u64), now: Instant, local: Endpoint, real: Endpoint) -> u32 {
    let mut flow = [0; 36];
    for (endpoint, place) in [local, real].into_iter().zip(flow.chunks_exact_mut(18)) {
        let address = match endpoint.address {
            core::net::IpAddr::V4(address) => address.to_ipv6_mapped(),
            core::net::IpAddr::V6(address) => address,
        };
        place[..16].copy_from_slice(&address.octets());
        place[16..].copy_from_slice(&endpoint.port.to_be_bytes());
    }
    (sip_hash_2_4(key, &flow) as u32).wrapping_add((now.as_nanos() >> 6) as u32)
}

/// How far a server's segments may overtake each other on their way to us, before it has the preamble.
const REORDERING_MAX: u32 = 1 << 18;

/// How many datagrams of a connection carry the client's address with UOA, in case some are lost: DPVS's default.
const UOA_DATAGRAMS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// ISN 99 becomes 1099; a preamble of 28 bytes lies before the first byte. The server's first byte is 501.
    fn translation() -> Translation {
        Translation::new(FullNatOptions::default(), 28).after_client_syn(99, true, 1099).after_server_syn(
            Instant::ZERO,
            500,
            1100,
        )
    }

    fn acknowledging(translation: Translation, acknowledgment: u32) -> Translation {
        let acknowledgment = Some(acknowledgment);
        translation.after_server_segment(
            Instant::ZERO,
            &SegmentNumbers { sequence: 501, acknowledgment, ..Default::default() },
        )
    }

    #[test]
    fn what_goes_to_the_server_comes_back_from_it() {
        let translation = translation();
        assert_eq!(translation.to_server(99, true), 1099);
        assert_eq!(translation.to_server(100, false), 1100);
        assert_eq!(translation.to_server(101, false), 1129);
        assert_eq!(translation.to_client(1100), 100);
        assert_eq!(translation.to_client(1129), 101);
    }

    #[test]
    fn an_acknowledged_half_of_the_preamble_acknowledges_nothing_of_the_client() {
        for number in 1100..=1128 {
            assert_eq!(translation().to_client(number), 100, "{number}");
        }
    }

    #[test]
    fn once_the_preamble_has_arrived_numbers_may_wrap() {
        assert!(acknowledging(translation(), 1127).needs_preamble(100));
        let translation = acknowledging(translation(), 1128);
        assert!(!translation.needs_preamble(100));
        let far = 100_u32.wrapping_add(3 << 30);
        assert_eq!(translation.to_server(far, false), far.wrapping_add(1028));
        assert_eq!(translation.to_client(far.wrapping_add(1028)), far);
    }

    #[test]
    fn what_another_connection_of_the_server_acknowledges_says_nothing_of_the_preamble() {
        let other = SegmentNumbers { sequence: 500, acknowledgment: Some(1128), ..Default::default() };
        assert!(translation().after_server_segment(Instant::ZERO, &other).needs_preamble(100));
    }

    #[test]
    fn a_repeated_syn_keeps_the_number_and_another_one_is_an_offer_until_it_is_answered() {
        let first = translation();
        assert_eq!(first.after_client_syn(99, true, 5000), first);
        let offered = first.after_client_syn(70, true, 5000);
        assert_eq!(offered.after_client_syn(70, true, 6000), offered);
        assert_eq!(offered.to_server(70, true), 5000);
        assert_eq!(offered.to_server(100, false), 1100, "the connection goes on");
        assert_eq!(offered.to_client(5001), 71);
        assert_eq!(offered.after_server_syn(Instant::ZERO, 800, 4999), offered, "an answer to neither");
        let answered = offered.after_server_syn(Instant::ZERO, 800, 5001);
        assert_eq!(answered.to_server(71, false), 5001);
        assert!(answered.is_before_server_data(801));
    }

    #[test]
    fn a_connection_that_begins_again_with_the_same_numbers_needs_its_preamble_again() {
        let used = acknowledging(translation(), 1128);
        assert!(used.after_server_syn(Instant::ZERO, 900, 1100).needs_preamble(100));
        assert_eq!(used.after_server_syn(Instant::ZERO, 500, 1100), used, "a SYN|ACK seen twice");
        assert_eq!(used.after_client_syn(99, true, 5000).to_server(99, true), 5000);
    }
}
