//! Generic UDP encapsulation, version 0, data messages, with remote checksum offload as the only option
//! (draft-ietf-intarea-gue, draft-ietf-intarea-gue-extensions).
//!
//! ```text
//!  0               1               2               3
//! | source port                   | destination port              |  UDP
//! | length                        | checksum, or 0                |
//! | ver |C| hlen  | 4 or 41       | flags: 1 = private flags here |  GUE
//! | private flags: 80000000 = remote checksum offload             |  if flags
//! | start of the inner checksum   | place of the inner checksum   |  if private flags
//! ```

use core::net::IpAddr;

use super::decapsulate::Found;
use super::{IPV4_IN_IP, IPV6_IN_IP, Partial, UDP, inner_protocol, sum_when_sent};
use crate::drop_reason::DropReason;
use crate::flow::AddressFamily;
use crate::service::TunnelKind;
use crate::wire::parse::Headers;
use crate::wire::{checksum, read_u16, udp, write_u16};

/// Length of the UDP and GUE headers.
pub(super) const fn header_len(is_remote: bool) -> usize {
    BASE_LEN + if is_remote { REMOTE_LEN } else { 0 }
}

/// Writes both headers at the start of `bytes`, which reach to the packet's end; UDP checksum zero. `ports` are source
/// and destination; `remote` counts from the inner packet.
#[inline]
pub(super) fn write(bytes: &mut [u8], inner: AddressFamily, ports: (u16, u16), remote: Option<Partial>) {
    let len = bytes.len() as u16;
    if let Some(header) = bytes.first_chunk_mut() {
        udp::write_header(header, ports.0, ports.1, len);
    }
    let gue = &mut bytes[udp::HEADER_LEN..];
    gue[..4].copy_from_slice(&[0, inner_protocol(inner), 0, 0]);
    if let Some(partial) = remote {
        gue[0] = (REMOTE_LEN / 4) as u8;
        write_u16(gue, 2, PRIVATE_FLAGS);
        gue[4..8].copy_from_slice(&REMOTE_CHECKSUM.to_be_bytes());
        write_u16(gue, 8, partial.start as u16);
        write_u16(gue, 10, partial.field as u16);
    }
}

/// Fills in the UDP checksum; `bytes` start at the UDP header.
pub(super) fn write_checksum(bytes: &mut [u8], source: IpAddr, destination: IpAddr, partial: Option<Partial>) {
    let pseudo_header = checksum::pseudo_header_sum(source, destination, UDP, bytes.len());
    let sum = pseudo_header + sum_when_sent(bytes, partial);
    write_u16(bytes, udp::CHECKSUM, udp::sent_checksum(!checksum::fold(sum)));
}

/// Reads both headers at the start of `payload`.
pub(super) fn read(payload: &[u8], outer: &Headers, partial: Option<Partial>) -> Result<Option<Found>, DropReason> {
    let udp_len = usize::from(read_u16(payload, 4).ok_or(DropReason::MalformedTunnel)?);
    let payload = payload.get(..udp_len).ok_or(DropReason::MalformedTunnel)?;
    let &[first, protocol, flags_high, flags_low] =
        payload.get(udp::HEADER_LEN..).and_then(|gue| gue.first_chunk()).ok_or(DropReason::MalformedTunnel)?;
    if first & NOT_DATA_V0 != 0 {
        return Ok(None);
    }
    let family = match protocol {
        IPV4_IN_IP => AddressFamily::Ipv4,
        IPV6_IN_IP => AddressFamily::Ipv6,
        _ => return Ok(None),
    };
    let is_checksum_open = partial.is_some_and(|partial| partial.start == 0);
    let has_checksum = read_u16(payload, udp::CHECKSUM) != Some(0);
    if has_checksum && !is_checksum_open {
        let pseudo_header = checksum::pseudo_header_sum(outer.source, outer.destination, UDP, payload.len());
        if checksum::fold(pseudo_header + sum_when_sent(payload, partial)) != 0xffff {
            return Err(DropReason::BadTunnelChecksum);
        }
    }
    let options_len = usize::from(first & 0x1f) * 4;
    let options = payload.get(BASE_LEN..BASE_LEN + options_len).ok_or(DropReason::MalformedTunnel)?;
    let remote = match u16::from_be_bytes([flags_high, flags_low]) {
        0 => None,
        PRIVATE_FLAGS => Some(read_remote(options)?),
        // Options whose length we do not know.
        _ => return Ok(None),
    };
    Ok(Some(Found { kind: TunnelKind::Gue, header_len: BASE_LEN + options_len, family, remote }))
}

/// Length of the UDP and GUE headers at the start of `quoted`, if they carry an IPv4 packet. The rest may be cut off.
pub(crate) fn len_around_ipv4(quoted: &[u8]) -> Option<usize> {
    let &[first, protocol] = quoted.get(udp::HEADER_LEN..)?.first_chunk()?;
    let is_ours = first & NOT_DATA_V0 == 0 && protocol == IPV4_IN_IP;
    is_ours.then(|| BASE_LEN + usize::from(first & 0x1f) * 4)
}

fn read_remote(options: &[u8]) -> Result<(u16, u16), DropReason> {
    let &[a, b, c, d, start_high, start_low, field_high, field_low] =
        options.first_chunk().ok_or(DropReason::MalformedTunnel)?;
    if u32::from_be_bytes([a, b, c, d]) != REMOTE_CHECKSUM {
        return Err(DropReason::MalformedTunnel);
    }
    Ok((u16::from_be_bytes([start_high, start_low]), u16::from_be_bytes([field_high, field_low])))
}

/// Version and control bit: all zero in a data message of version 0.
const NOT_DATA_V0: u8 = 0xe0;
/// UDP header and the part of the GUE header that is always there.
const BASE_LEN: usize = udp::HEADER_LEN + 4;
/// Private flags and the two offsets.
const REMOTE_LEN: usize = 8;
/// The flag that private flags follow.
const PRIVATE_FLAGS: u16 = 0x0001;
/// The private flag for remote checksum offload.
const REMOTE_CHECKSUM: u32 = 0x8000_0000;
