//! One readable line for a packet, in the layout the recordings' own printer uses.

use crate::oracle::{self, Parsed};

/// A packet in one line: addresses and ports, what it is, then what is unusual. Never fails: bytes that are no packet
/// are printed in hexadecimal. `BADIP` and `BADL4` mark wrong checksums.
///
/// ```
/// use lvs_testkit::{describe, icmp_error, udp};
/// let reply = udp("192.0.2.1:53", "203.0.113.7:1024").payload_len(64).build();
/// let error = icmp_error("203.0.113.7", 3, 3, 0, &reply[..28]).build();
/// assert_eq!(
///     describe(&error),
///     "203.0.113.7 > 192.0.2.1 ICMP 3/3 info=00000000 \
///      {192.0.2.1.53 > 203.0.113.7.1024 UDP pl=0 id=4660 ttl=64 len=92(cap 28)} id=4660 ttl=64 len=56"
/// );
/// ```
pub fn describe(packet: &[u8]) -> String {
    let Some(parsed) = oracle::parse(packet) else {
        return packet.iter().map(|byte| format!("{byte:02x}")).collect();
    };
    let tail = format!("{}{}", ip_facts(&parsed, packet), checksum_facts(&parsed, packet));
    let (source, destination) = (parsed.source, parsed.destination);
    if parsed.fragment.is_some_and(|(offset, _)| offset != 0) {
        return format!("{source} > {destination} proto {}{tail}", parsed.protocol);
    }
    let body = transport(&parsed);
    match (parsed.protocol, parsed.segment) {
        (6 | 17 | 132, [a, b, c, d, ..]) => {
            let (from, to) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
            format!("{source}.{from} > {destination}.{to} {body}{tail}")
        }
        _ => format!("{source} > {destination} {body}{tail}"),
    }
}

fn transport(parsed: &Parsed<'_>) -> String {
    let segment = parsed.segment;
    let word = |at: usize| u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]]);
    let len = segment.len();
    match parsed.protocol {
        6 if len >= 20 => {
            let payload = len as isize - isize::from(segment[12] >> 4) * 4;
            format!("TCP {} seq={} ack={} pl={payload}", tcp_flags(segment[13]), word(4), word(8))
        }
        6 if len >= 4 => "TCP".into(),
        17 if len >= 8 => {
            let none = if segment[6..8] == [0, 0] { " csum0" } else { "" };
            format!("UDP pl={}{none}{}", len - 8, gue(segment))
        }
        17 if len >= 4 => "UDP".into(),
        132 if len > 12 => format!("SCTP chunk {}", segment[12]),
        132 if len >= 4 => "SCTP chunk -1".into(),
        1 | 58 if len >= 8 => {
            let name = if parsed.protocol == 58 { "ICMP6" } else { "ICMP" };
            let is_error = if parsed.protocol == 58 { segment[0] < 128 } else { matches!(segment[0], 3..=5 | 11 | 12) };
            let quoted = if is_error { format!(" {{{}}}", describe(&segment[8..])) } else { String::new() };
            format!("{name} {}/{} info={:08x}{quoted}", segment[0], segment[1], word(4))
        }
        4 | 41 => format!("IPIP {{{}}}", describe(segment)),
        47 if len >= 4 => {
            let (header, inner) = segment.split_at((if segment[0] & 0x80 == 0 { 4 } else { 8 }).min(len));
            format!("GRE[{}] {{{}}}", hex(header), describe(inner))
        }
        protocol => format!("proto {protocol}"),
    }
}

/// The packet inside generic UDP encapsulation, recognised by the ports the recordings use.
fn gue(segment: &[u8]) -> String {
    let port = u16::from_be_bytes([segment[2], segment[3]]);
    if !matches!(port, 6080 | 5555 | 1234 | 999) || segment.len() <= 28 {
        return String::new();
    }
    let gue = &segment[8..];
    let (header, inner) = gue.split_at((4 + usize::from(gue[0] & 31) * 4).min(gue.len()));
    format!(" GUE[{}] {{{}}}", hex(header), describe(inner))
}

fn tcp_flags(bits: u8) -> String {
    let flags: String =
        "FSRPAUEC".chars().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, c)| c).collect();
    if flags.is_empty() { "-".into() } else { flags }
}

fn ip_facts(parsed: &Parsed<'_>, packet: &[u8]) -> String {
    let mut facts = String::new();
    let more = parsed.fragment.is_some_and(|(_, more)| more);
    if parsed.source.is_ipv4() {
        facts += &format!(" id={}", parsed.identification);
        facts += if parsed.dont_fragment { " DF" } else { "" };
        facts += if more { " MF" } else { "" };
    }
    if let Some((offset, _)) = parsed.fragment {
        facts += &format!(" frag@{offset}");
    }
    facts += &format!(" ttl={}", parsed.hop_limit);
    if parsed.traffic_class != 0 {
        facts += &format!(" tos={:02x}", parsed.traffic_class);
    }
    facts += &format!(" len={}", parsed.claimed_len);
    if parsed.claimed_len != packet.len() {
        facts += &format!("(cap {})", packet.len());
    }
    facts
}

fn checksum_facts(parsed: &Parsed<'_>, packet: &[u8]) -> String {
    let errors = oracle::checksum_errors(packet);
    // Of a packet that is cut short, the transport checksum says nothing.
    let whole = parsed.claimed_len == packet.len();
    errors.iter().filter(|error| whole || **error == "IP").map(|error| format!(" BAD{error}")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
