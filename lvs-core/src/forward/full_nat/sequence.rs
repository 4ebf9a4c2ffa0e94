//! Sequence numbers behind FullNAT. A server sees many clients at one local endpoint, one after the other: their initial
//! sequence numbers are replaced by ones that grow, so that a server still in TIME_WAIT takes the next connection
//! (RFC 9293 §3.6.1; RFC 6528). A preamble put before the client's data moves the rest of it along.
//! Only numbers the client chose are changed; the server's own stay.
//! Source: the published behaviour of DPVS and Alibaba LVS.

use crate::flow::Endpoint;
use crate::hash::sip_hash_2_4;
use crate::service::{ClientAddress, FullNatOptions};
use crate::time::Instant;

/// What a FullNAT connection needs to translate its segments or datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Translation {
    /// As they were when the connection began.
    pub options: FullNatOptions,
    /// Bytes put before the client's data.
    pub preamble_len: u32,
    /// The initial sequence number of the client's last SYN.
    client_isn: Option<u32>,
    /// What the server's view of the client's sequence numbers is ahead of the client's.
    shift: u32,
    /// The sequence number of the server's first byte of data.
    server_data: Option<u32>,
    /// The server has all of the preamble: sequence numbers need no looking at any more.
    preamble_arrived: bool,
    /// Datagrams of the client so far; more than [`UOA_DATAGRAMS`] are not told apart.
    datagrams: u8,
}

impl Translation {
    pub const fn new(options: FullNatOptions, preamble_len: usize) -> Self {
        Self {
            options,
            preamble_len: preamble_len as u32,
            client_isn: None,
            shift: 0,
            server_data: None,
            preamble_arrived: false,
            datagrams: 0,
        }
    }

    /// After a datagram of the client.
    pub fn after_client_datagram(self) -> Self {
        Self { datagrams: self.datagrams.saturating_add(1), ..self }
    }

    /// Whether the client's last datagram is one of those that say whose they are (UOA).
    pub fn tells_client(&self) -> bool {
        self.options.client_address == ClientAddress::Uoa && (1..=UOA_DATAGRAMS).contains(&self.datagrams)
    }

    /// After a SYN of the client. A repeated one changes nothing; one that opens the connection anew gets a new number.
    pub fn after_client_syn(self, sequence: u32, is_opening: bool, new_isn: u32) -> Self {
        if self.client_isn == Some(sequence) || (self.client_isn.is_some() && !is_opening) {
            return self;
        }
        let shift = if self.options.rewrite_sequence { new_isn.wrapping_sub(sequence) } else { 0 };
        Self { client_isn: Some(sequence), shift, server_data: None, preamble_arrived: false, ..self }
    }

    /// After a SYN|ACK of the server.
    pub fn after_server_syn(self, sequence: u32) -> Self {
        Self { server_data: Some(sequence.wrapping_add(1)), ..self }
    }

    /// After an acknowledgment of the server.
    pub fn after_server_ack(self, acknowledgment: u32) -> Self {
        let preamble_arrived =
            self.preamble_arrived || self.past_client_syn_at_server(acknowledgment) >= self.preamble();
        Self { preamble_arrived: preamble_arrived && self.client_isn.is_some(), ..self }
    }

    /// Whether the client still waits for the server's first byte of data: it acknowledges nothing but the SYN.
    pub fn is_before_server_data(&self, acknowledgment: u32) -> bool {
        self.server_data == Some(acknowledgment)
    }

    /// Whether a segment of the client with data or FIN carries its first byte and the server may still need the preamble.
    pub fn needs_preamble(&self, sequence: u32) -> bool {
        let is_first = self.client_isn.is_some_and(|isn| sequence == isn.wrapping_add(1));
        self.preamble_len > 0 && is_first && !self.preamble_arrived
    }

    /// Whether something may have to be put into a segment of the client with this acknowledgment number.
    pub fn may_insert(&self, acknowledgment: u32) -> bool {
        let is_toa = self.options.client_address == ClientAddress::Toa;
        self.has_preamble_to_come() || is_toa && self.is_before_server_data(acknowledgment)
    }

    /// Whether the server may not have all of the preamble yet.
    pub fn has_preamble_to_come(&self) -> bool {
        self.preamble_len > 0 && !self.preamble_arrived
    }

    /// A sequence number of the client, as the server is to see it.
    pub fn to_server(self, sequence: u32, is_syn: bool) -> u32 {
        let shifted = sequence.wrapping_add(self.shift);
        let is_behind_preamble = self.preamble_arrived || self.past_client_syn(sequence) > 0;
        if is_behind_preamble && !is_syn { shifted.wrapping_add(self.preamble_len) } else { shifted }
    }

    /// A number of the server about what the client sent (an acknowledgment, an edge of a selective one, the sequence
    /// number of a segment quoted in an ICMP error), as the client is to see it. What lies inside the preamble is the
    /// client's first byte.
    pub fn to_client(self, number: u32) -> u32 {
        let past_syn = self.past_client_syn_at_server(number);
        let shifted = number.wrapping_sub(self.shift);
        if self.preamble_arrived || past_syn >= self.preamble() {
            shifted.wrapping_sub(self.preamble_len)
        } else if past_syn <= 0 {
            shifted
        } else {
            shifted.wrapping_sub(past_syn as u32)
        }
    }

    /// How far a number of the client is past its SYN, as far as that is known; half the number space at most.
    fn past_client_syn(&self, sequence: u32) -> i32 {
        self.client_isn.map_or(0, |isn| sequence.wrapping_sub(isn.wrapping_add(1)) as i32)
    }

    /// The same for a number as the server sees it.
    fn past_client_syn_at_server(&self, number: u32) -> i32 {
        self.past_client_syn(number.wrapping_sub(self.shift))
    }

    fn preamble(&self) -> i32 {
        self.preamble_len as i32
    }
}

/// An initial sequence number for a connection between these endpoints: a keyed hash of both, complete, and a clock that
/// ticks every 64 ns (RFC 6528 §3, with Linux's clock), so that it grows from one connection to the next.
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

/// How many datagrams of a connection carry the client's address with UOA, in case some are lost: DPVS's default.
const UOA_DATAGRAMS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// ISN 99 becomes 1099; a preamble of 28 bytes lies before the first byte.
    fn translation() -> Translation {
        Translation::new(FullNatOptions::default(), 28).after_client_syn(99, true, 1099)
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
        let translation = translation();
        assert!(translation.after_server_ack(1127).needs_preamble(100));
        let translation = translation.after_server_ack(1128);
        assert!(!translation.needs_preamble(100));
        let far = 100_u32.wrapping_add(3 << 30);
        assert_eq!(translation.to_server(far, false), far.wrapping_add(1028));
        assert_eq!(translation.to_client(far.wrapping_add(1028)), far);
    }

    #[test]
    fn a_repeated_syn_keeps_the_number_and_a_new_one_gets_another() {
        let first = translation();
        assert_eq!(first.after_client_syn(99, true, 5000), first);
        assert_eq!(first.after_client_syn(70, false, 5000), first, "in the middle of a connection");
        assert_eq!(first.after_client_syn(70, true, 5000).to_server(70, true), 5000);
    }
}
