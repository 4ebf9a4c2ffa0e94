//! Splits a packet into fragments that fit an MTU (RFC 791 §3.2, RFC 8200 §4.5): a pure function over bytes, for the
//! sinks that find a packet longer than its way out takes. Who may fragment what is the caller's knowledge.

use crate::wire::parse::{Headers, parse};
use crate::wire::{ipv4, ipv6, write_u16};
use crate::{AddressFamily, DropReason};

/// Writes the packet in `bytes` as fragments of at most `mtu` bytes into `buffer`, one after the other, and calls
/// `each` with every one. A packet that fits is given whole.
///
/// IPv4 packets must not have DF set. They keep their identification and options; options that belong into the first
/// fragment only (RFC 791 §3.1, "copied" bit) are no-operations in the others, as in Linux, so that all headers have
/// one length. IPv6 packets get a fragment header with `identification`, or keep the one they have; only the node that
/// made the packet may do this to it (the outside of a tunnel), or one that put it together from fragments.
///
/// The transport checksum must be complete ([`crate::wire::rewrite::complete_checksum`]).
///
/// # Errors
/// `each` has not been called. [`DropReason::TooBig`]: DF is set, or `mtu` has no room for eight bytes of data.
/// [`DropReason::NoTailroom`]: `buffer` is shorter than the longest fragment. Or what [`parse`] finds wrong.
///
/// ```
/// use lvs_core::wire::fragment::fragment;
/// // 100 bytes of UDP, 10.0.0.1 > 10.0.0.2
/// let mut packet = [0; 100];
/// packet[..20].copy_from_slice(&[
///     0x45, 0, 0, 100, 0, 1, 0, 0, 64, 17, 0x66, 0x86, 10, 0, 0, 1, 10, 0, 0, 2,
/// ]);
/// let mut lengths = vec![];
/// fragment(&packet, 68, 0, &mut [0; 68], |fragment| lengths.push(fragment.len())).unwrap();
/// assert_eq!(lengths, [68, 52]);
/// ```
pub fn fragment(
    bytes: &[u8],
    mtu: usize,
    identification: u32,
    buffer: &mut [u8],
    mut each: impl FnMut(&[u8]),
) -> Result<(), DropReason> {
    let headers = parse(bytes)?;
    let packet = &bytes[..headers.packet_len];
    if packet.len() <= mtu {
        each(packet);
        return Ok(());
    }
    if headers.dont_fragment {
        return Err(DropReason::TooBig);
    }
    let plan = Plan::new(packet, &headers, identification);
    // RFC 791 §3.2: every fragment but the last carries a multiple of eight bytes.
    let step = mtu.saturating_sub(plan.header_len()) & !7;
    if step == 0 {
        return Err(DropReason::TooBig);
    }
    if buffer.len() < plan.header_len() + step.min(plan.data.len()) {
        return Err(DropReason::NoTailroom);
    }
    let count = plan.data.len().div_ceil(step);
    for (index, part) in plan.data.chunks(step).enumerate() {
        let len = plan.header_len() + part.len();
        plan.write(&mut buffer[..len], part, index * step, index + 1 < count);
        each(&buffer[..len]);
    }
    Ok(())
}

/// What every fragment of a packet has in common.
struct Plan<'a> {
    family: AddressFamily,
    /// The headers in front of each fragment, without an IPv6 fragment header.
    head: &'a [u8],
    /// What is split.
    data: &'a [u8],
    /// Where the packet's own data belongs, if it is a fragment already, and whether more follow it.
    offset: usize,
    more: bool,
    /// IPv6: the fragment header's identification, its next header, and where in `head` that is announced.
    identification: u32,
    next_header: u8,
    next_header_at: usize,
}

impl<'a> Plan<'a> {
    fn new(packet: &'a [u8], headers: &Headers, identification: u32) -> Self {
        let part = headers.fragment;
        let (head_len, data_start, next_header_at) = match headers.family {
            AddressFamily::Ipv4 => (headers.transport, headers.transport, 0),
            AddressFamily::Ipv6 => split_ipv6(packet),
        };
        Self {
            family: headers.family,
            head: &packet[..head_len],
            data: &packet[data_start..],
            offset: part.map_or(0, |part| usize::from(part.offset)),
            more: part.is_some_and(|part| part.more),
            identification: part.map_or(identification, |part| part.id),
            // With a fragment header there already, its next header; else what the last header in `head` announces.
            next_header: if data_start > head_len { packet[head_len] } else { packet[next_header_at] },
            next_header_at,
        }
    }

    fn header_len(&self) -> usize {
        match self.family {
            AddressFamily::Ipv4 => self.head.len(),
            AddressFamily::Ipv6 => self.head.len() + ipv6::FRAGMENT_HEADER_LEN,
        }
    }

    /// Writes the fragment that carries `part`, found `start` bytes into the data, over all of `buffer`.
    fn write(&self, buffer: &mut [u8], part: &[u8], start: usize, more: bool) {
        let len = buffer.len();
        let (head, data) = buffer.split_at_mut(self.header_len());
        head[..self.head.len()].copy_from_slice(self.head);
        data.copy_from_slice(part);
        let offset = (self.offset + start) as u16;
        let more = more || self.more;
        match self.family {
            AddressFamily::Ipv4 => {
                write_u16(head, 2, len as u16);
                write_u16(head, 6, (offset / 8) | if more { 0x2000 } else { 0 });
                if start > 0 {
                    blank_first_only_options(&mut head[ipv4::HEADER_LEN..]);
                }
                ipv4::recompute_checksum(head, self.head.len());
            }
            AddressFamily::Ipv6 => {
                write_u16(head, 4, (len - ipv6::HEADER_LEN) as u16);
                head[self.next_header_at] = ipv6::FRAGMENT;
                let id = self.identification.to_be_bytes();
                let [high, low] = (offset | u16::from(more)).to_be_bytes();
                head[self.head.len()..].copy_from_slice(&[self.next_header, 0, high, low, id[0], id[1], id[2], id[3]]);
            }
        }
    }
}

/// Where an IPv6 packet is split: the end of what every fragment repeats (RFC 8200 §4.5 "per-fragment headers"), the
/// start of the data, and the offset of the byte that announces what follows the head.
/// The packet has been parsed, so its extension headers lie inside it.
fn split_ipv6(packet: &[u8]) -> (usize, usize, usize) {
    let (mut head_len, mut announced_at) = (ipv6::HEADER_LEN, 6);
    let (mut offset, mut next_header_at) = (ipv6::HEADER_LEN, 6);
    loop {
        let kind = packet[next_header_at];
        if kind == ipv6::FRAGMENT {
            return (offset, offset + ipv6::FRAGMENT_HEADER_LEN, next_header_at);
        }
        if !ipv6::is_extension(kind) {
            return (head_len, head_len, announced_at);
        }
        next_header_at = offset;
        offset += ipv6::extension_len(kind, packet[offset + 1]);
        // Routers read hop-by-hop and routing headers, and what comes before them; the rest may be split.
        if matches!(kind, ipv6::HOP_BY_HOP | ipv6::ROUTING) {
            (head_len, announced_at) = (offset, next_header_at);
        }
    }
}

/// Overwrites options without the "copied" bit by no-operations. The options have been parsed.
fn blank_first_only_options(options: &mut [u8]) {
    let mut offset = 0;
    while let Some(&kind) = options.get(offset) {
        let len = match kind {
            ipv4::OPTION_END => return,
            ipv4::OPTION_NOP => 1,
            _ => usize::from(options[offset + 1]),
        };
        if kind & OPTION_COPIED == 0 {
            options[offset..offset + len].fill(ipv4::OPTION_NOP);
        }
        offset += len;
    }
}

/// RFC 791 §3.1: the option is copied into all fragments.
const OPTION_COPIED: u8 = 0x80;
