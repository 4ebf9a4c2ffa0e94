//! Generic routing encapsulation, version 0, with or without checksum (RFC 2784).

use super::decapsulate::Found;
use super::{Partial, sum_when_sent};
use crate::drop_reason::DropReason;
use crate::flow::AddressFamily;
use crate::service::TunnelKind;
use crate::wire::{checksum, read_u16, write_u16};

/// IANA number of GRE.
pub(crate) const PROTOCOL: u8 = 47;

/// The flag in the first two bytes: a checksum and two reserved bytes follow.
const CHECKSUM_PRESENT: u16 = 0x8000;
/// Ethertype of IPv4.
const IPV4: u16 = 0x0800;
/// Ethertype of IPv6.
const IPV6: u16 = 0x86dd;
const CHECKSUM: usize = 4;

/// Length of the header.
pub(super) const fn header_len(has_checksum: bool) -> usize {
    if has_checksum { 8 } else { 4 }
}

/// Writes the header at the start of `bytes`, which reach to the packet's end.
#[inline]
pub(super) fn write(bytes: &mut [u8], inner: AddressFamily, has_checksum: bool, partial: Option<Partial>) {
    let protocol = match inner {
        AddressFamily::Ipv4 => IPV4,
        AddressFamily::Ipv6 => IPV6,
    };
    write_u16(bytes, 0, if has_checksum { CHECKSUM_PRESENT } else { 0 });
    write_u16(bytes, 2, protocol);
    if has_checksum {
        bytes[CHECKSUM..CHECKSUM + 4].fill(0);
        let checksum = !checksum::fold(sum_when_sent(bytes, partial));
        write_u16(bytes, CHECKSUM, checksum);
    }
}

/// Reads the header at the start of `payload`.
pub(super) fn read(payload: &[u8], partial: Option<Partial>) -> Result<Option<Found>, DropReason> {
    let flags = read_u16(payload, 0).ok_or(DropReason::MalformedTunnel)?;
    let has_checksum = flags & CHECKSUM_PRESENT != 0;
    let family = match read_u16(payload, 2).ok_or(DropReason::MalformedTunnel)? {
        IPV4 => AddressFamily::Ipv4,
        IPV6 => AddressFamily::Ipv6,
        _ => return Ok(None),
    };
    // RFC 2784 §2.2: routing, key (RFC 2890), sequence number and version.
    if flags & !CHECKSUM_PRESENT != 0 {
        return Ok(None);
    }
    let header_len = header_len(has_checksum);
    if payload.len() < header_len {
        return Err(DropReason::MalformedTunnel);
    }
    if has_checksum && checksum::fold(sum_when_sent(payload, partial)) != 0xffff {
        return Err(DropReason::BadTunnelChecksum);
    }
    Ok(Some(Found { kind: TunnelKind::Gre, header_len, family, remote: None }))
}

/// Length of the header at the start of `quoted`, if it is one of ours around an IPv4 packet. The rest may be cut off.
pub(crate) fn len_around_ipv4(quoted: &[u8]) -> Option<usize> {
    let flags = read_u16(quoted, 0)?;
    let is_ours = flags & !CHECKSUM_PRESENT == 0 && read_u16(quoted, 2)? == IPV4;
    is_ours.then(|| header_len(flags & CHECKSUM_PRESENT != 0))
}
