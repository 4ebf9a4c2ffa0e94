//! A packet in words: one that somebody asks about, written as one line.
//!
//! `PROTOCOL SOURCE > DESTINATION [WORD…]`; protocol and addresses as in `tcp 198.51.100.7:1024 > 192.0.2.80:80`. TCP is a SYN
//! unless flags are named (`ack`, `syn+ack`, `fin+ack`, `rst`), SCTP an INIT unless a chunk is (`data`, `init`, `cookie-echo`,
//! `abort`, `shutdown`), `icmp` an echo request. `len N` is bytes of data, `ttl N` the hop limit. Everything else is what a
//! host would send, checksums included.

use std::net::{IpAddr, SocketAddr};

use lvs_core::wire::{checksum, ipv4, ipv6, sctp};

/// The bytes of the packet that `words` describe.
///
/// # Errors
/// A sentence: what is wrong, and how it is written.
///
/// ```
/// let syn = lvs_admin::packet("tcp 198.51.100.7:1024 > 192.0.2.80:80").unwrap();
/// assert_eq!((syn.len(), syn[9], syn[33]), (40, 6, 0x02));
/// let datagram = lvs_admin::packet("udp [2001:db8::7]:5000 > [2001:db8::53]:53 len 30").unwrap();
/// assert_eq!((datagram.len(), datagram[6]), (40 + 8 + 30, 17));
/// assert!(lvs_admin::packet("tcp 198.51.100.7 > 192.0.2.80:80").unwrap_err().contains("ADDRESS:PORT"));
/// ```
pub fn packet(words: &str) -> Result<Vec<u8>, String> {
    let mut words = words.split_ascii_whitespace();
    let kind = match words.next() {
        Some("tcp") => Kind::Tcp,
        Some("udp") => Kind::Udp,
        Some("sctp") => Kind::Sctp,
        Some("icmp") => Kind::Icmp,
        Some(other) => return Err(format!("{other:?} is no protocol here: {HOW}")),
        None => return Err(HOW.to_owned()),
    };
    let source = endpoint(kind, words.next())?;
    if words.next() != Some(">") {
        return Err(format!("'>' is missing between source and destination: {HOW}"));
    }
    let destination = endpoint(kind, words.next())?;
    if source.is_ipv4() != destination.is_ipv4() {
        return Err("source and destination are of two address families".to_owned());
    }
    let mut details = Details { is: None, len: 0, hop_limit: 64 };
    while let Some(word) = words.next() {
        details.read(kind, word, &mut words)?;
    }
    let segment = segment(kind, &details, source, destination);
    whole(kind, &segment, details.hop_limit, source.ip(), destination.ip())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Sctp,
    Icmp,
}

/// What stands behind the addresses.
struct Details {
    /// TCP's flags, or the type of SCTP's chunk.
    is: Option<u8>,
    len: usize,
    hop_limit: u8,
}

impl Details {
    fn read<'a>(&mut self, kind: Kind, word: &str, rest: &mut impl Iterator<Item = &'a str>) -> Result<(), String> {
        let mut number = |most: usize| {
            let number = rest.next().and_then(|number| number.parse().ok()).filter(|number| *number <= most);
            number.ok_or_else(|| format!("{word} takes a number up to {most}"))
        };
        match (word, kind) {
            ("len", _) => self.len = number(LEN_MAX)?,
            // It fits: the most is 255.
            ("ttl", _) => self.hop_limit = number(255)? as u8,
            (flags, Kind::Tcp) => {
                let flag = |name: &str| FLAGS.iter().find(|(known, _)| *known == name).map(|(_, flag)| *flag);
                let flags = flags.split('+').map(flag).try_fold(0, |all, flag| Some(all | flag?));
                self.is = Some(
                    flags.ok_or_else(|| format!("{word:?} is no flag: syn, ack, fin, rst, psh, urg, joined by '+'"))?,
                );
            }
            (chunk, Kind::Sctp) => {
                let known = CHUNKS.iter().find(|(known, _)| *known == chunk);
                self.is = Some(
                    known.ok_or_else(|| format!("{word:?} is no chunk: init, data, cookie-echo, abort, shutdown"))?.1,
                );
            }
            _ => return Err(format!("{word:?} says nothing here: {HOW}")),
        }
        Ok(())
    }
}

fn endpoint(kind: Kind, word: Option<&str>) -> Result<SocketAddr, String> {
    let word = word.ok_or_else(|| HOW.to_owned())?;
    if kind == Kind::Icmp {
        let address: IpAddr = word.parse().map_err(|_| format!("{word:?} is no address, which ICMP has alone"))?;
        return Ok(SocketAddr::new(address, 0));
    }
    word.parse().map_err(|_| format!("{word:?} is no ADDRESS:PORT, an IPv6 address in brackets"))
}

/// What stands behind the IP header.
fn segment(kind: Kind, details: &Details, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    let (mut header, protocol, checksum_at) = match kind {
        // RFC 9293 §3.1: numbers, offset and flags, the largest window, checksum, urgent pointer.
        Kind::Tcp => {
            let flags = details.is.unwrap_or(0x02);
            let acknowledgment = u32::from(flags & 0x10 != 0);
            let header = [
                &ports[..],
                &1_u32.to_be_bytes(),
                &acknowledgment.to_be_bytes(),
                &[0x50, flags, 0xff, 0xff, 0, 0, 0, 0],
            ];
            (header.concat(), 6, 16)
        }
        // RFC 768.
        Kind::Udp => {
            let len = (8 + details.len) as u16;
            ([&ports[..], &len.to_be_bytes(), &[0, 0]].concat(), 17, 6)
        }
        // RFC 9260 §3: a verification tag, which an INIT has not, and one chunk.
        Kind::Sctp => return sctp_packet(details, &ports),
        // RFC 792, RFC 4443: an echo request.
        Kind::Icmp if source.is_ipv4() => (vec![8, 0, 0, 0, 0, 1, 0, 1], 1, 2),
        Kind::Icmp => (vec![128, 0, 0, 0, 0, 1, 0, 1], 58, 2),
    };
    header.resize(header.len() + details.len, 0);
    let sum = match (kind, source.is_ipv4()) {
        (Kind::Icmp, true) => checksum::checksum(&header),
        _ => checksum::transport_checksum(source.ip(), destination.ip(), protocol, &header),
    };
    // RFC 768: a checksum of zero is sent as all ones.
    let sum = if kind == Kind::Udp && sum == 0 { u16::MAX } else { sum };
    header[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
    header
}

fn sctp_packet(details: &Details, ports: &[u8]) -> Vec<u8> {
    let chunk_type = details.is.unwrap_or(SCTP_INIT);
    let tag = u32::from(chunk_type != SCTP_INIT);
    let fixed: &[u8] = match chunk_type {
        // Initiate tag, window, streams, first number.
        SCTP_INIT => &[0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1],
        // Number, stream, sequence, protocol.
        SCTP_DATA => &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        SCTP_SHUTDOWN => &[0, 0, 0, 1],
        _ => &[],
    };
    let len = 4 + fixed.len() + details.len;
    // A DATA chunk is a whole message: flags B and E.
    let flags = if chunk_type == SCTP_DATA { 3 } else { 0 };
    let mut packet =
        [ports, &tag.to_be_bytes(), &[0; 4], &[chunk_type, flags], &(len as u16).to_be_bytes(), fixed].concat();
    packet.resize(12 + len.next_multiple_of(4), 0);
    let sum = sctp::packet_crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

fn whole(kind: Kind, segment: &[u8], hop_limit: u8, source: IpAddr, destination: IpAddr) -> Result<Vec<u8>, String> {
    let too_long = |_| format!("a packet has {} bytes at most", u16::MAX);
    let protocol = match (kind, source) {
        (Kind::Tcp, _) => 6,
        (Kind::Udp, _) => 17,
        (Kind::Sctp, _) => 132,
        (Kind::Icmp, IpAddr::V4(_)) => 1,
        (Kind::Icmp, IpAddr::V6(_)) => 58,
    };
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = [0; ipv4::HEADER_LEN];
            let total_len = u16::try_from(ipv4::HEADER_LEN + segment.len()).map_err(too_long)?;
            ipv4::write_header(
                &mut header,
                &ipv4::Header {
                    traffic_class: 0,
                    total_len,
                    identification: 0,
                    dont_fragment: true,
                    hop_limit,
                    protocol,
                    source,
                    destination,
                },
            );
            Ok([&header, segment].concat())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = [0; ipv6::HEADER_LEN];
            let payload_len = u16::try_from(segment.len()).map_err(too_long)?;
            ipv6::write_header(
                &mut header,
                &ipv6::Header { traffic_class: 0, payload_len, next_header: protocol, hop_limit, source, destination },
            );
            Ok([&header, segment].concat())
        }
        _ => Err("source and destination are of two address families".to_owned()),
    }
}

const HOW: &str =
    "write a packet as 'tcp 198.51.100.7:1024 > 192.0.2.80:80', also udp, sctp, icmp; then flags, len N, ttl N";
/// Data with which the packet is no longer than one may be.
const LEN_MAX: usize = 65_000;
const FLAGS: [(&str, u8); 6] =
    [("fin", 0x01), ("syn", 0x02), ("rst", 0x04), ("psh", 0x08), ("ack", 0x10), ("urg", 0x20)];
const SCTP_DATA: u8 = 0;
const SCTP_INIT: u8 = 1;
const SCTP_SHUTDOWN: u8 = 7;
const CHUNKS: [(&str, u8); 5] =
    [("data", SCTP_DATA), ("init", SCTP_INIT), ("abort", 6), ("shutdown", SCTP_SHUTDOWN), ("cookie-echo", 10)];

#[cfg(test)]
mod tests {
    use lvs_core::wire::parse;

    use super::*;

    #[test]
    fn what_is_written_is_read_as_a_packet_by_the_director() {
        for (words, protocol, ports) in [
            ("tcp 198.51.100.7:1024 > 192.0.2.80:80", 6, Some((1024, 80))),
            ("tcp [2001:db8::7]:1024 > [2001:db8::80]:80 syn+ack len 7 ttl 3", 6, Some((1024, 80))),
            ("udp 198.51.100.7:5000 > 192.0.2.53:53 len 31", 17, Some((5000, 53))),
            ("udp [2001:db8::7]:5000 > [2001:db8::53]:53", 17, Some((5000, 53))),
            ("sctp 198.51.100.7:5000 > 192.0.2.53:53 data len 5", 132, Some((5000, 53))),
            ("sctp [2001:db8::7]:5000 > [2001:db8::53]:53", 132, Some((5000, 53))),
            ("icmp 198.51.100.7 > 192.0.2.80 len 8", 1, None),
            ("icmp 2001:db8::7 > 2001:db8::80", 58, None),
        ] {
            let bytes = packet(words).unwrap();
            let headers = parse::parse(&bytes).unwrap();
            assert_eq!(
                (headers.protocol, headers.ports(&bytes).filter(|_| ports.is_some())),
                (protocol, ports),
                "{words}"
            );
            if matches!(protocol, 6 | 17) {
                let sum = checksum::transport_checksum(
                    headers.source,
                    headers.destination,
                    protocol,
                    headers.payload(&bytes),
                );
                assert_eq!(sum, 0, "{words}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_what_would_be_right() {
        for (words, complaint) in [
            ("", "write a packet as"),
            ("gre 1.2.3.4 > 2.3.4.5", "no protocol"),
            ("tcp 1.2.3.4:1 2.3.4.5:2", "'>' is missing"),
            ("tcp 1.2.3.4:1 >", "write a packet as"),
            ("tcp 1.2.3.4:1 > [::1]:2", "two address families"),
            ("tcp 1.2.3.4:1 > 2.3.4.5:2 synack", "no flag"),
            ("sctp 1.2.3.4:1 > 2.3.4.5:2 syn", "no chunk"),
            ("udp 1.2.3.4:1 > 2.3.4.5:2 syn", "says nothing"),
            ("udp 1.2.3.4:1 > 2.3.4.5:2 len 65001", "up to 65000"),
            ("icmp 1.2.3.4:1 > 2.3.4.5", "no address"),
        ] {
            assert!(packet(words).unwrap_err().contains(complaint), "{words}: {:?}", packet(words));
        }
    }
}
