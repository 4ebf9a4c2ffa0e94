//! Packets for human eyes: one line that says what a packet is, and a dump that shows where two differ.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::golden::Emission;

/// `client: 10.0.0.1:80 > 203.0.113.7:1025 TCP S.. len 44`: where a packet went and what it is.
pub fn emission(emission: &Emission) -> String {
    format!("to {}: {}", emission.destination(), packet(&emission.bytes))
}

/// Several packets, or `nothing`.
pub fn emissions(list: &[Emission]) -> String {
    if list.is_empty() { "nothing".into() } else { list.iter().map(emission).collect::<Vec<_>>().join(" + ") }
}

/// One line about a packet, whatever its bytes are.
pub fn packet(bytes: &[u8]) -> String {
    try_packet(bytes).unwrap_or_else(|| format!("{} bytes that are no IP packet", bytes.len()))
}

/// The lines of both packets in which they differ, 16 bytes each, differing bytes marked.
pub fn difference(expected: &[u8], got: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    for start in (0..expected.len().max(got.len())).step_by(16) {
        let (ours, theirs) = (row(got, start), row(expected, start));
        if ours == theirs {
            continue;
        }
        let hex = |row: &[u8]| row.iter().map(|byte| format!("{byte:02x} ")).collect::<String>();
        let mark = |index| if ours.get(index) == theirs.get(index) { "   " } else { "^^ " };
        lines.push(format!("{start:04x} expected {}", hex(theirs).trim_end()));
        lines.push(format!("{start:04x} got      {}", hex(ours).trim_end()));
        let marks: String = (0..ours.len().max(theirs.len())).map(mark).collect();
        lines.push(format!("              {}", marks.trim_end()));
    }
    lines
}

fn row(bytes: &[u8], start: usize) -> &[u8] {
    bytes.get(start..bytes.len().min(start + 16)).unwrap_or_default()
}

fn try_packet(bytes: &[u8]) -> Option<String> {
    let (addresses, mut protocol, mut at, hops) = match bytes.first()? >> 4 {
        4 => {
            let header: &[u8; 20] = bytes.first_chunk()?;
            let address =
                |at: usize| Ipv4Addr::from_octets([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let ends = [address(12).to_string(), address(16).to_string()];
            (ends, header[9], usize::from(header[0] & 15) * 4, header[8])
        }
        6 => {
            let header: &[u8; 40] = bytes.first_chunk()?;
            let source: [u8; 16] = *header[8..].first_chunk()?;
            let target: [u8; 16] = *header[24..].first_chunk()?;
            let ends = [source, target].map(|octets| format!("[{}]", Ipv6Addr::from_octets(octets)));
            (ends, header[6], 40, header[7])
        }
        _ => return None,
    };
    let mut fragment = if bytes[0] >> 4 == 4 { fragment_v4(bytes) } else { (0, String::new()) };
    while bytes[0] >> 4 == 6 && matches!(protocol, 0 | 43 | 44 | 60) {
        let header: &[u8; 8] = bytes.get(at..)?.first_chunk()?;
        if protocol == 44 {
            let field = u16::from_be_bytes([header[2], header[3]]);
            fragment = (field & 0xfff8, fragment_text(field & 0xfff8, field & 1 != 0));
        }
        at += if protocol == 44 { 8 } else { (usize::from(header[1]) + 1) * 8 };
        protocol = header[0];
    }
    let segment = bytes.get(at..).unwrap_or_default();
    let mut line = match (protocol, fragment.0) {
        (6 | 17 | 132, 0) if segment.len() >= 4 => {
            let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
            format!("{}:{} > {}:{} {}", addresses[0], port(0), addresses[1], port(2), transport(protocol, segment))
        }
        (1 | 58, 0) if segment.len() >= 8 => {
            let quoted = if is_icmp_error(protocol, segment[0]) { try_packet(&segment[8..]) } else { None };
            let quoted = quoted.map_or_else(String::new, |quoted| format!(" {{{quoted}}}"));
            format!("{} > {} ICMP {}/{}{quoted}", addresses[0], addresses[1], segment[0], segment[1])
        }
        (4 | 41, 0) => format!("{} > {} tunnel {{{}}}", addresses[0], addresses[1], packet(segment)),
        _ => format!("{} > {} protocol {protocol}", addresses[0], addresses[1]),
    };
    let _ = write!(line, "{} ttl {hops} len {}", fragment.1, bytes.len());
    Some(line)
}

fn is_icmp_error(protocol: u8, kind: u8) -> bool {
    if protocol == 1 { matches!(kind, 3 | 4 | 5 | 11 | 12) } else { kind < 128 }
}

fn fragment_v4(bytes: &[u8]) -> (u16, String) {
    let field = u16::from_be_bytes([bytes[6], bytes[7]]);
    let offset = (field & 0x1fff) << 3;
    (offset, fragment_text(offset, field & 0x2000 != 0))
}

fn fragment_text(offset: u16, has_more: bool) -> String {
    match (offset, has_more) {
        (0, false) => String::new(),
        (offset, true) => format!(" fragment at {offset} (more follow)"),
        (offset, false) => format!(" fragment at {offset} (last)"),
    }
}

fn transport(protocol: u8, segment: &[u8]) -> String {
    match protocol {
        6 if segment.len() >= 20 => {
            let letters = "FSRPAUEC".chars().enumerate().filter(|(bit, _)| segment[13] >> bit & 1 == 1);
            format!("TCP {}", letters.map(|(_, letter)| letter).collect::<String>())
        }
        6 => "TCP (cut short)".into(),
        17 => "UDP".into(),
        _ => format!("SCTP chunk {}", segment.get(12).copied().unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_shown_with_its_place() {
        let mut other = [0u8; 40];
        other[17] = 0xff;
        assert_eq!(
            difference(&[0; 40], &other),
            [
                "0010 expected 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
                "0010 got      00 ff 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
                "                 ^^",
            ]
        );
        assert_eq!(difference(&[1, 2], &[1]), ["0000 expected 01 02", "0000 got      01", "                 ^^"]);
        assert!(difference(&[1; 100], &[1; 100]).is_empty());
    }

    #[test]
    fn any_bytes_can_be_described() {
        for len in 0..80 {
            for first in [0x00, 0x45, 0x4f, 0x60, 0xff] {
                for protocol in [0, 1, 4, 6, 17, 41, 43, 44, 58, 60, 132] {
                    let mut bytes = vec![0xff; len];
                    for (at, value) in [(0, first), (9, protocol), (6, protocol)] {
                        if let Some(byte) = bytes.get_mut(at) {
                            *byte = value;
                        }
                    }
                    let _ = packet(&bytes);
                }
            }
        }
    }
}
