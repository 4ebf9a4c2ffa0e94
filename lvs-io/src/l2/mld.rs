//! Multicast Listener Discovery, read and written as whole IPv6 packets: queries of version 2 (RFC 3810 §5.1) and
//! version 1 (RFC 2710 §3), and what a listener says in each (RFC 3810 §5.2).
//!
//! ```text
//!  IPv6, next header 0, hop limit 1 | hop-by-hop: router alert | ICMPv6 message
//! ```

use std::net::Ipv6Addr;
use std::time::Duration;

use smoltcp::wire::{Icmpv6Packet, IpProtocol, Ipv6Packet, Ipv6Repr};

use super::message::{GroupQuery, LinkMessage};

const QUERY: u8 = 130;
const REPORT_V1: u8 = 131;
const DONE_V1: u8 = 132;
const REPORT_V2: u8 = 143;

/// ff02::16, where routers and switches hear reports; ff02::2, where they hear who leaves in version 1.
const ALL_MLDV2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

const HEADER_LEN: usize = 40;
/// RFC 2711: option 5 with two bytes, zero for MLD; then a PadN of two bytes.
const ROUTER_ALERT: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];
/// A query of version 1; those of version 2 are longer.
const QUERY_V1_LEN: usize = 24;
const QUERY_V2_LEN: usize = 28;

/// Most records in a report: what fits the smallest MTU (RFC 8200 §5).
pub(super) const RECORDS_MAX: usize = (1280 - HEADER_LEN - ROUTER_ALERT.len() - 8) / 20;

/// What a listener has to say of a group (RFC 3810 §5.2.12), which it hears from every source or not at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Record {
    /// It listens: an answer (MODE_IS_EXCLUDE).
    Listens(Ipv6Addr),
    /// It has begun to (CHANGE_TO_EXCLUDE_MODE).
    Joins(Ipv6Addr),
    /// It has ceased to (CHANGE_TO_INCLUDE_MODE).
    Leaves(Ipv6Addr),
}

/// A message of a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Report {
    /// At most [`RECORDS_MAX`] records, in version 2.
    Together(Vec<Record>),
    /// One record, in version 1.
    Alone(Record),
}

/// Whether the IPv6 packet is a query, which is never forwarded.
pub(super) fn is_query(packet: &[u8]) -> bool {
    message_at(packet).is_some_and(|at| packet.get(at) == Some(&QUERY))
}

/// Where the ICMPv6 message is that comes right behind a hop-by-hop header.
fn message_at(packet: &[u8]) -> Option<usize> {
    let &[next, len] = packet.get(HEADER_LEN..)?.first_chunk()?;
    let has_options = packet.get(6) == Some(&0) && next == 58;
    has_options.then_some(HEADER_LEN + (usize::from(len) + 1) * 8)
}

/// What a query asks; `None` if it is malformed, or was not sent on this link (RFC 3810 §6.2).
pub(super) fn parse(bytes: &[u8]) -> Option<LinkMessage> {
    let packet = Ipv6Packet::new_checked(bytes).ok()?;
    let (source, destination) = (packet.src_addr(), packet.dst_addr());
    let at = message_at(bytes)?;
    let options = bytes.get(HEADER_LEN + 2..at)?;
    let message = packet.payload().get(at - HEADER_LEN..)?;
    let is_from_link = source.is_unicast_link_local() && packet.hop_limit() == 1 && has_router_alert(options);
    let is_of_known_length = message.len() == QUERY_V1_LEN || message.len() >= QUERY_V2_LEN;
    if !is_from_link || !is_of_known_length || message[0] != QUERY || message[1] != 0 {
        return None;
    }
    if !Icmpv6Packet::new_unchecked(message).verify_checksum(&source, &destination) {
        return None;
    }
    let is_version_1 = message.len() == QUERY_V1_LEN;
    let code = u16::from_be_bytes([message[4], message[5]]);
    let group = Ipv6Addr::from(*message[8..].first_chunk::<16>()?);
    if !group.is_unspecified() && !group.is_multicast() {
        return None;
    }
    Some(LinkMessage::GroupQuery(GroupQuery {
        group: (!group.is_unspecified()).then_some(group),
        answer_within: if is_version_1 { Duration::from_millis(code.into()) } else { answer_within(code) },
        is_version_1,
    }))
}

fn has_router_alert(mut options: &[u8]) -> bool {
    loop {
        match *options {
            [5, ..] => return true,
            // RFC 8200 §4.2: Pad1 alone has no length.
            [0, ref rest @ ..] => options = rest,
            [_, len, ref rest @ ..] => options = rest.get(usize::from(len)..).unwrap_or(&[]),
            _ => return false,
        }
    }
}

/// RFC 3810 §5.1.3: milliseconds, the larger ones as mantissa and exponent.
fn answer_within(code: u16) -> Duration {
    let code = u64::from(code);
    Duration::from_millis(if code < 0x8000 { code } else { (code & 0xfff | 0x1000) << ((code >> 12 & 7) + 3) })
}

impl Report {
    /// The packet, and where it goes.
    pub(super) fn emit(&self, source: Ipv6Addr) -> (Vec<u8>, Ipv6Addr) {
        let (destination, message) = match self {
            Self::Together(records) => {
                let [high, low] = (records.len() as u16).to_be_bytes();
                let mut message = vec![REPORT_V2, 0, 0, 0, 0, 0, high, low];
                records.iter().for_each(|record| message.extend(record.emit()));
                (ALL_MLDV2_ROUTERS, message)
            }
            Self::Alone(record) => {
                let (kind, to, group) = match *record {
                    Record::Listens(group) | Record::Joins(group) => (REPORT_V1, group, group),
                    Record::Leaves(group) => (DONE_V1, ALL_ROUTERS, group),
                };
                (to, [&[kind, 0, 0, 0, 0, 0, 0, 0], &group.octets()[..]].concat())
            }
        };
        let header = Ipv6Repr {
            src_addr: source,
            dst_addr: destination,
            next_header: IpProtocol::HopByHop,
            payload_len: ROUTER_ALERT.len() + message.len(),
            hop_limit: 1,
        };
        let mut bytes = [&[0; HEADER_LEN][..], &ROUTER_ALERT, &message].concat();
        header.emit(&mut Ipv6Packet::new_unchecked(&mut bytes[..]));
        let message = &mut bytes[HEADER_LEN + ROUTER_ALERT.len()..];
        Icmpv6Packet::new_unchecked(message).fill_checksum(&source, &destination);
        (bytes, destination)
    }
}

impl Record {
    /// RFC 3810 §5.2: type, no auxiliary data, no sources, group.
    fn emit(&self) -> [u8; 20] {
        let (kind, group) = match *self {
            Self::Listens(group) => (2, group),
            Self::Leaves(group) => (3, group),
            Self::Joins(group) => (4, group),
        };
        let mut record = [0; 20];
        record[0] = kind;
        record[4..].copy_from_slice(&group.octets());
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_delays_have_an_exponent() {
        for (code, milliseconds) in [(0, 0), (0x7fff, 32_767), (0x8000, 32_768), (0x8001, 32_776), (0xffff, 8_387_584)]
        {
            assert_eq!(answer_within(code), Duration::from_millis(milliseconds), "{code:#x}");
        }
    }

    #[test]
    fn a_router_alert_is_found_among_other_options() {
        for (options, expected) in [
            (&[5, 2, 0, 0, 1, 0][..], true),
            (&[0, 1, 0, 5, 2, 0, 0], true),
            (&[1, 4, 5, 2, 0, 0], false),
            (&[1, 9, 5], false),
            (&[7], false),
            (&[], false),
        ] {
            assert_eq!(has_router_alert(options), expected, "{options:?}");
        }
    }
}
