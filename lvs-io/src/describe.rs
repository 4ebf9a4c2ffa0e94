//! A packet in one line, for traces and error messages. Shows what the headers say, right or wrong, and never fails.

use std::fmt;

use lvs_core::wire::icmp::{ICMP, ICMPV6};
use lvs_core::wire::parse::{Headers, parse};

/// Displays an IP packet in one line.
///
/// ```
/// use lvs_io::Describe;
/// let packet = [
///     0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0x7c, 0xc6, 203, 0, 113, 7, 192, 0, 2, 1, 4, 0, 0, 80, 0, 10, 0, 0, b'h', b'i',
/// ];
/// assert_eq!(Describe(&packet).to_string(), "203.0.113.7:1024 > 192.0.2.1:80 UDP data 2, ttl 64, 30 bytes");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Describe<'a>(pub &'a [u8]);

impl fmt::Display for Describe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers = match parse(self.0) {
            Ok(headers) => headers,
            Err(reason) => return write!(f, "{} bytes, {}", self.0.len(), reason.advice()),
        };
        self.write_endpoints(f, &headers)?;
        match headers.protocol {
            _ if headers.is_later_fragment() => write!(f, " protocol {}", headers.protocol)?,
            TCP => self.write_tcp(f, &headers)?,
            UDP => write!(f, " UDP data {}", headers.payload(self.0).len().saturating_sub(8))?,
            SCTP => self.write_sctp(f, &headers)?,
            ICMP | ICMPV6 => self.write_icmp(f, &headers)?,
            other => write!(f, " protocol {other}")?,
        }
        if let Some(part) = headers.fragment {
            let more = if part.more { "+" } else { "" };
            write!(f, ", fragment {:x}@{}{more}", part.id, part.offset)?;
        }
        write!(f, ", ttl {}, {} bytes", headers.hop_limit, self.0.len())
    }
}

impl Describe<'_> {
    fn write_endpoints(&self, f: &mut fmt::Formatter<'_>, headers: &Headers) -> fmt::Result {
        let has_ports = matches!(headers.protocol, TCP | UDP | SCTP);
        match headers.ports(self.0).filter(|_| has_ports) {
            Some((source, target)) => {
                let source = std::net::SocketAddr::new(headers.source, source);
                let target = std::net::SocketAddr::new(headers.destination, target);
                write!(f, "{source} > {target}")
            }
            None => write!(f, "{} > {}", headers.source, headers.destination),
        }
    }

    fn write_tcp(&self, f: &mut fmt::Formatter<'_>, headers: &Headers) -> fmt::Result {
        let segment = headers.payload(self.0);
        let Some(header) = segment.first_chunk::<20>() else { return f.write_str(" TCP cut short") };
        f.write_str(" TCP ")?;
        for (bit, letter) in (0..).zip("FSRPAUEC".chars()) {
            if header[13] >> bit & 1 != 0 {
                write!(f, "{letter}")?;
            }
        }
        let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let data_len = segment.len().saturating_sub(usize::from(header[12] >> 4) * 4);
        write!(f, " seq {} ack {} data {data_len}", number(4), number(8))
    }

    fn write_sctp(&self, f: &mut fmt::Formatter<'_>, headers: &Headers) -> fmt::Result {
        match headers.payload(self.0).get(12) {
            Some(chunk) => write!(f, " SCTP chunk {chunk}"),
            None => f.write_str(" SCTP"),
        }
    }

    fn write_icmp(&self, f: &mut fmt::Formatter<'_>, headers: &Headers) -> fmt::Result {
        let name = if headers.protocol == ICMP { "ICMP" } else { "ICMPv6" };
        match headers.transport_header::<2>(self.0) {
            Some([kind, code]) => write!(f, " {name} {kind}/{code}"),
            None => write!(f, " {name} cut short"),
        }
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

#[cfg(test)]
mod tests {
    use lvs_testkit::{icmp, sctp, tcp, udp};

    use super::*;

    #[track_caller]
    fn check(packet: &[u8], wanted: &str) {
        assert_eq!(Describe(packet).to_string(), wanted);
    }

    #[test]
    fn each_protocol_shows_what_matters() {
        let (client, service) = ("203.0.113.7:1024", "192.0.2.1:80");
        check(
            &tcp(client, service).syn().numbers(5, 0).build(),
            "203.0.113.7:1024 > 192.0.2.1:80 TCP S seq 5 ack 0 data 0, ttl 64, 40 bytes",
        );
        check(
            &udp("[2001:db8::7]:1024", "[2001:db8::1]:53").payload(b"hello").build(),
            "[2001:db8::7]:1024 > [2001:db8::1]:53 UDP data 5, ttl 64, 53 bytes",
        );
        check(
            &sctp(client, service).chunk(1, &[0; 16]).build(),
            "203.0.113.7:1024 > 192.0.2.1:80 SCTP chunk 1, ttl 64, 52 bytes",
        );
        check(&icmp("203.0.113.7", "192.0.2.1", 8, 0, 0).build(), "203.0.113.7 > 192.0.2.1 ICMP 8/0, ttl 64, 28 bytes");
    }

    #[test]
    fn a_later_fragment_shows_no_ports() {
        let packet =
            udp("203.0.113.7:1024", "192.0.2.1:80").identification(7).fragment(8, true).payload(&[0; 16]).build();
        check(&packet, "203.0.113.7 > 192.0.2.1 protocol 17, fragment 7@8+, ttl 64, 44 bytes");
    }

    #[test]
    fn what_is_no_packet_is_named() {
        check(&[], "0 bytes, the IP header is truncated or its lengths contradict the packet");
    }
}
