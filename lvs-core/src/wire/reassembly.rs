//! Putting a fragmented datagram together, once every part of it is there. Who collects the parts and decides that
//! they are complete is not this file's business. Sources: RFC 791 §3.2, RFC 8200 §4.5.

use alloc::vec::Vec;

use crate::drop_reason::DropReason;
use crate::flow::AddressFamily;
use crate::wire::parse::parse;
use crate::wire::{ipv4, ipv6, write_u16};

/// Appends to `into` the datagram made of `parts`, given in order and without gaps, the first fragment first.
///
/// An IPv6 datagram keeps its fragment header as an atomic one (RFC 6946), so that its identification survives and
/// whoever sends it may split it again.
///
/// # Errors
/// `into` is as it was. [`DropReason::TooBig`]: longer than an IP packet can be. [`DropReason::MalformedIp`]: no part,
/// or one that is no fragment. Or what [`parse`] finds wrong.
pub fn join<'a>(parts: impl Iterator<Item = &'a [u8]> + Clone, into: &mut Vec<u8>) -> Result<(), DropReason> {
    let first = parts.clone().next().ok_or(DropReason::MalformedIp)?;
    let head = parse(first)?;
    let fragment = head.fragment.ok_or(DropReason::MalformedIp)?;
    let mut len = head.transport;
    for part in parts.clone() {
        let headers = parse(part)?;
        len += headers.packet_len - headers.transport;
    }
    let counted = match head.family {
        AddressFamily::Ipv4 => len,
        AddressFamily::Ipv6 => len - ipv6::HEADER_LEN,
    };
    let counted = u16::try_from(counted).map_err(|_| DropReason::TooBig)?;
    let start = into.len();
    into.extend_from_slice(&first[..head.transport]);
    for part in parts {
        let headers = parse(part)?;
        into.extend_from_slice(&part[headers.transport..headers.packet_len]);
    }
    let packet = &mut into[start..];
    match head.family {
        AddressFamily::Ipv4 => {
            write_u16(packet, 2, counted);
            packet[6] &= DONT_FRAGMENT;
            packet[7] = 0;
            ipv4::recompute_checksum(packet, head.transport);
        }
        AddressFamily::Ipv6 => {
            write_u16(packet, 4, counted);
            write_u16(packet, fragment.header + 2, 0);
        }
    }
    Ok(())
}

/// The DF bit in the first byte of flags and fragment offset.
const DONT_FRAGMENT: u8 = 0x40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fragment::fragment;

    /// 10.0.0.1 > 10.0.0.2, UDP, `len` bytes in all.
    fn datagram(len: u16) -> Vec<u8> {
        let mut packet = alloc::vec![0; usize::from(len)];
        packet[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 7, 0, 0, 64, 17, 0, 0]);
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        write_u16(&mut packet, 2, len);
        ipv4::recompute_checksum(&mut packet, 20);
        for (index, byte) in packet[20..].iter_mut().enumerate() {
            *byte = index as u8;
        }
        packet
    }

    #[test]
    fn what_was_split_is_put_together_again() {
        let packet = datagram(1000);
        let mut parts: Vec<Vec<u8>> = Vec::new();
        fragment(&packet, 300, 0, &mut [0; 300], |part| parts.push(part.to_vec())).unwrap();
        assert!(parts.len() > 3);
        let mut joined = Vec::new();
        join(parts.iter().map(Vec::as_slice), &mut joined).unwrap();
        assert_eq!(joined, packet);
    }

    #[test]
    fn nothing_is_put_together_from_nothing() {
        let mut joined = Vec::new();
        assert_eq!(join(core::iter::empty(), &mut joined), Err(DropReason::MalformedIp));
        assert_eq!(join([datagram(100)].iter().map(Vec::as_slice), &mut joined), Err(DropReason::MalformedIp));
        assert!(joined.is_empty());
    }
}
