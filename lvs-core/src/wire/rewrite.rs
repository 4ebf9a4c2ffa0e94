//! Address and port translation in place, with every checksum that covers them (the table of IPVS in one place).
//! TCP and UDP checksums are updated, so one that was wrong stays wrong; only what cannot be updated is computed anew:
//! SCTP's CRC32c, and the checksum of a UDP datagram that had none. [`Care`] says how far from Linux that may be.

use core::net::{IpAddr, Ipv6Addr};

use crate::wire::checksum::{self, Delta};
use crate::wire::icmp::{self, ICMPV6};
use crate::wire::parse::Headers;
use crate::wire::{ipv4, ipv6, read_u16, sctp, tcp, udp, write_u16};
use crate::{AddressFamily, ChecksumOffload, DropReason, Endpoint, PacketBuf, Protocol};

/// What changes in a packet; `None` leaves that end as it is.
///
/// ```
/// use lvs_core::wire::{parse::parse, rewrite::{Rewrite, rewrite}};
/// use lvs_core::{Endpoint, HEADROOM, PacketBuf};
/// // 203.0.113.7:1024 > 192.0.2.1:80 UDP "hi", checksum none
/// let packet = [
///     0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0x7c, 0xc6, 203, 0, 113, 7, 192, 0, 2, 1,
///     4, 0, 0, 80, 0, 10, 0, 0, b'h', b'i',
/// ];
/// let mut storage = [0; HEADROOM + 30];
/// storage[HEADROOM..].copy_from_slice(&packet);
/// let mut packet = PacketBuf::new(&mut storage, HEADROOM, 30);
/// let headers = parse(packet.bytes()).unwrap();
/// let server = Endpoint::new("10.0.0.2".parse().unwrap(), 8080);
/// let to_server = Rewrite { source: None, destination: Some(server) };
/// rewrite(&mut packet, &headers, &to_server).unwrap();
/// let headers = parse(packet.bytes()).unwrap();
/// assert_eq!(headers.ports(packet.bytes()), Some((1024, 8080)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rewrite {
    /// The new source address and port.
    pub source: Option<Endpoint>,
    /// The new destination address and port.
    pub destination: Option<Endpoint>,
}

/// What is computed anew, and what of it is looked at first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Care {
    /// As Linux: a UDP datagram without checksum gets one over the whole IP payload, longer than its own length or not,
    /// and an SCTP packet that was damaged leaves with a right CRC32c.
    #[default]
    AsLinux,
    /// The same, but an SCTP packet with a wrong CRC32c is refused where a new one would be written.
    ChecksSctp,
    /// That too, and a UDP datagram without checksum gets one only where it becomes an IPv6 one, over its own length.
    Strict,
}

/// Rewrites the packet's addresses and, for TCP, UDP and SCTP except in later fragments, its ports; updates the
/// checksums; cuts off link padding behind the packet. The TTL is not touched.
///
/// | checksum | |
/// |---|---|
/// | IPv4 header | updated |
/// | TCP, UDP, ICMPv6 | updated for addresses and ports; a UDP result of zero becomes `0xffff` |
/// | UDP zero (none) | computed and written, as Linux does; in a first fragment, whose rest is not here, it stays zero |
/// | left to the device ([`ChecksumOffload::Partial`]) | its un-complemented sum is updated for addresses only: the device will sum the ports |
/// | SCTP | computed anew if a port changes; addresses are not covered |
///
/// # Errors
/// The packet is unchanged.
/// [`DropReason::TruncatedTransport`]: the fields to change are cut off, also when a first fragment holds too little.
/// [`DropReason::NotForwardable`]: a new address is of the other family, or an SCTP fragment's port would change, whose
/// CRC32c needs the whole packet.
/// [`DropReason::BadTransportChecksum`]: an SCTP packet that would get a right CRC32c came with a wrong one; not with
/// [`Care::AsLinux`].
/// [`DropReason::BadLength`]: the UDP length, over which a checksum is to be computed, is not inside the packet; with
/// [`Care::Strict`] only.
/// [`DropReason::BadOffload`]: the offload context names a checksum field that is not this packet's.
pub fn rewrite(packet: &mut PacketBuf<'_>, headers: &Headers, rewrite: &Rewrite) -> Result<(), DropReason> {
    rewrite_with(packet, headers, rewrite, Care::AsLinux)
}

/// [`rewrite`] with more care than Linux takes.
///
/// # Errors
/// As [`rewrite`].
pub fn rewrite_with(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    rewrite: &Rewrite,
    care: Care,
) -> Result<(), DropReason> {
    if rewrite_common(packet, headers, rewrite).is_some() {
        return Ok(());
    }
    rewrite_any(packet, headers, rewrite, care)
}

/// [`rewrite`] for nearly all packets: whole TCP segments and UDP datagrams with a checksum, their own or one left to
/// the device. `None`, and the packet is unchanged, if this is another one.
fn rewrite_common(packet: &mut PacketBuf<'_>, headers: &Headers, rewrite: &Rewrite) -> Option<()> {
    let (offset, header_len) = match headers.protocol {
        TCP => (tcp::CHECKSUM, tcp::HEADER_LEN),
        UDP => (udp::CHECKSUM, udp::HEADER_LEN),
        _ => return None,
    };
    let is_partial = match packet.offload.checksum {
        ChecksumOffload::Full => false,
        ChecksumOffload::Partial { start, offset: at } => {
            (usize::from(start), usize::from(at)) == (headers.transport, offset) || return None
        }
    };
    let bytes = packet.bytes_mut().get_mut(..headers.packet_len)?;
    let (network, transport) = bytes.split_at_mut_checked(headers.transport)?;
    let transport = transport.get_mut(..header_len)?;
    let checksum = u16::from_be_bytes([transport[offset], transport[offset + 1]]);
    let is_udp = headers.protocol == UDP;
    let is_other = |end: &Option<Endpoint>| end.is_some_and(|end| AddressFamily::of(end.address) != headers.family);
    let has_other_family = is_other(&rewrite.source) || is_other(&rewrite.destination);
    let changes_nothing = rewrite.source.is_none() && rewrite.destination.is_none();
    let has_no_checksum = is_udp && checksum == 0 && !is_partial;
    if headers.fragment.is_some() || has_other_family || changes_nothing || has_no_checksum {
        return None;
    }

    let (mut addresses, mut ports) = (Delta::new(), Delta::new());
    if let Some(end) = &rewrite.source {
        replace_address(network, 0, end.address, &mut addresses)?;
        replace_port(transport, 0, end.port, &mut ports);
    }
    if let Some(end) = &rewrite.destination {
        replace_address(network, 1, end.address, &mut addresses)?;
        replace_port(transport, 1, end.port, &mut ports);
    }
    if headers.family == AddressFamily::Ipv4 {
        ipv4::update_checksum(network.first_chunk_mut()?, addresses);
    }
    let checksum = match is_partial {
        true => addresses.apply_partial(checksum),
        false if is_udp => udp::sent_checksum((addresses + ports).apply(checksum)),
        false => (addresses + ports).apply(checksum),
    };
    transport[offset..offset + 2].copy_from_slice(&checksum.to_be_bytes());
    packet.set_len(headers.packet_len)
}

/// Writes the source (`index` 0) or destination address (1) of an IP header and adds the change to `delta`.
/// `None`, and nothing is written, if the header is cut off.
#[inline]
fn replace_address(header: &mut [u8], index: usize, address: IpAddr, delta: &mut Delta) -> Option<()> {
    match address {
        IpAddr::V4(address) => {
            let header = header.first_chunk_mut::<{ ipv4::HEADER_LEN }>()?;
            let field = header[12 + 4 * index..].first_chunk_mut()?;
            delta.replace_bytes(*field, address.octets());
            *field = address.octets();
        }
        IpAddr::V6(address) => {
            let header = header.first_chunk_mut::<{ ipv6::HEADER_LEN }>()?;
            let field = header[8 + 16 * index..].first_chunk_mut::<16>()?;
            delta.replace_ipv6(Ipv6Addr::from(*field), address);
            *field = address.octets();
        }
    }
    Some(())
}

/// The same for a port of a transport header, which is there.
#[inline]
fn replace_port(header: &mut [u8], index: usize, port: u16, delta: &mut Delta) {
    let field = &mut header[2 * index..2 * index + 2];
    delta.replace_u16(u16::from_be_bytes([field[0], field[1]]), port);
    field.copy_from_slice(&port.to_be_bytes());
}

/// [`rewrite`] for every packet, one question after the other.
fn rewrite_any(packet: &mut PacketBuf<'_>, headers: &Headers, rewrite: &Rewrite, care: Care) -> Result<(), DropReason> {
    let Some(bytes) = packet.bytes().get(..headers.packet_len) else { return Err(DropReason::MalformedIp) };
    let (source, destination) = new_addresses(headers, rewrite)?;
    let transport = Transport::check(bytes, headers, rewrite, packet.offload.checksum, care)?;

    packet.set_len(headers.packet_len);
    if transport.computes_crc() {
        packet.offload.checksum = ChecksumOffload::Full;
    }
    let bytes = packet.bytes_mut();
    set_addresses(bytes, source, destination);
    transport.write(bytes, headers, source, destination);
    Ok(())
}

/// Replaces both addresses of the packet at the start of `bytes` and updates an IPv4 header checksum.
///
/// Nothing happens if the addresses are not both of one family or the header is cut off. The caller has made sure that
/// it is the packet's family, and sees to checksums that cover the addresses.
pub fn set_addresses(bytes: &mut [u8], source: IpAddr, destination: IpAddr) {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            if let Some(header) = bytes.first_chunk_mut() {
                ipv4::set_addresses(header, source, destination);
            }
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            if let Some(header) = bytes.first_chunk_mut() {
                ipv6::set_addresses(header, source, destination);
            }
        }
        _ => {}
    }
}

/// Takes one from the TTL or hop limit, not below zero; updates the IPv4 header checksum.
pub fn decrement_hop_limit(bytes: &mut [u8], family: AddressFamily) {
    match family {
        AddressFamily::Ipv4 => {
            if let Some(header) = bytes.first_chunk_mut() {
                ipv4::decrement_ttl(header);
            }
        }
        AddressFamily::Ipv6 => {
            if let Some(header) = bytes.first_chunk_mut() {
                ipv6::decrement_hop_limit(header);
            }
        }
    }
}

/// Computes a checksum that was left to the device and makes the offload context say so: for a packet that is to be
/// split, held, or given to somebody without an offload context. Nothing happens if it is complete already.
///
/// # Errors
/// [`DropReason::BadOffload`]: the offload context points outside the packet, or the packet is a super-packet
/// (its segments have checksums of their own). The packet is unchanged.
pub fn complete_checksum(packet: &mut PacketBuf<'_>) -> Result<(), DropReason> {
    let ChecksumOffload::Partial { start, offset } = packet.offload.checksum else { return Ok(()) };
    let (start, offset) = (usize::from(start), usize::from(offset));
    let summed = packet.bytes().get(start..).filter(|summed| offset + 2 <= summed.len());
    let (Some(summed), None) = (summed, packet.offload.gso) else { return Err(DropReason::BadOffload) };
    // All ones where zero would do, whatever the transport: both are right, and for UDP zero would mean "none".
    let checksum = udp::sent_checksum(checksum::checksum(summed));
    write_u16(packet.bytes_mut(), start + offset, checksum);
    packet.offload.checksum = ChecksumOffload::Full;
    Ok(())
}

/// The addresses after the rewrite, if they are of the packet's family.
pub(crate) fn new_addresses(headers: &Headers, rewrite: &Rewrite) -> Result<(IpAddr, IpAddr), DropReason> {
    let source = rewrite.source.map_or(headers.source, |end| end.address);
    let destination = rewrite.destination.map_or(headers.destination, |end| end.address);
    let same_family = AddressFamily::of(source) == headers.family && AddressFamily::of(destination) == headers.family;
    if same_family { Ok((source, destination)) } else { Err(DropReason::NotForwardable) }
}

/// What will happen to the transport header; made when every check has passed.
pub(crate) struct Transport {
    ports: Option<Ports>,
    checksum: Checksum,
}

#[derive(Clone, Copy)]
struct Ports {
    old: (u16, u16),
    new: (u16, u16),
}

/// What will happen to the transport checksum.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Checksum {
    /// Nothing: no checksum, or none that covers what changes.
    Keep,
    /// The field at this offset is updated.
    Update(usize),
    /// The same, and the field is UDP's: zero is written as all ones.
    UpdateUdp(usize),
    /// The field at this offset holds an un-complemented sum without the ports.
    UpdatePartial(usize),
    /// A UDP datagram gets the checksum it did not have, over this many bytes.
    FillUdp(usize),
    /// SCTP's CRC32c is computed anew.
    Crc32c,
}

impl Transport {
    const UNTOUCHED: Self = Self { ports: None, checksum: Checksum::Keep };

    /// Checks all that could go wrong. `bytes` ends where the packet does.
    pub(crate) fn check(
        bytes: &[u8],
        headers: &Headers,
        rewrite: &Rewrite,
        offload: ChecksumOffload,
        care: Care,
    ) -> Result<Self, DropReason> {
        if headers.is_later_fragment() || *rewrite == Rewrite::default() {
            return Ok(Self::UNTOUCHED);
        }
        let (header_len, offset) = match headers.protocol {
            TCP => (tcp::HEADER_LEN, tcp::CHECKSUM),
            UDP => (udp::HEADER_LEN, udp::CHECKSUM),
            SCTP => (sctp::HEADER_LEN, sctp::CHECKSUM),
            ICMPV6 => (icmp::HEADER_LEN, icmp::CHECKSUM),
            _ => return Ok(Self::UNTOUCHED),
        };
        if headers.payload(bytes).len() < header_len {
            return Err(DropReason::TruncatedTransport);
        }
        let field = headers.transport + offset;
        let left_to_device = match offload {
            ChecksumOffload::Full => None,
            ChecksumOffload::Partial { start, offset } => Some((usize::from(start), usize::from(offset))),
        };
        let partial = left_to_device == Some((headers.transport, offset));
        // A checksum further in is that of a packet inside this one: the device sees to it, and what it will write
        // there leaves the outer checksum right.
        let inner = left_to_device.is_some_and(|(start, offset)| {
            start >= headers.transport + header_len && start + offset + 2 <= bytes.len()
        });
        if left_to_device.is_some() && !partial && !inner {
            return Err(DropReason::BadOffload);
        }
        let ports = (headers.protocol != ICMPV6).then(|| Ports::read(bytes, headers, rewrite)).flatten();
        let checksum = match headers.protocol {
            SCTP if !partial && ports.is_none_or(|ports| ports.old == ports.new) => return Ok(Self::UNTOUCHED),
            SCTP if headers.is_fragment_head() => return Err(DropReason::NotForwardable),
            SCTP if care != Care::AsLinux && !partial && !sctp::is_intact(headers.payload(bytes)) => {
                return Err(DropReason::BadTransportChecksum);
            }
            SCTP => Checksum::Crc32c,
            _ if partial => Checksum::UpdatePartial(field),
            UDP if read_u16(bytes, field) == Some(0) => {
                // RFC 768: zero is no checksum. Linux computes one as it has the whole datagram; from a first fragment
                // it cannot be had, nor over a packet whose own checksum is still missing.
                let becomes_ipv6 = rewrite.destination.is_some_and(|end| end.address.is_ipv6());
                let is_asked_for = care != Care::Strict || becomes_ipv6 && headers.family == AddressFamily::Ipv4;
                if inner || headers.is_fragment_head() || !is_asked_for {
                    Checksum::Keep
                } else if care == Care::Strict {
                    Checksum::FillUdp(udp::datagram_len(headers.payload(bytes)).ok_or(DropReason::BadLength)?)
                } else {
                    // The length is that of the IP payload, whatever the UDP header claims (`nat_truncated`).
                    Checksum::FillUdp(headers.payload(bytes).len())
                }
            }
            UDP => Checksum::UpdateUdp(field),
            _ => Checksum::Update(field),
        };
        Ok(Self { ports, checksum })
    }

    /// Whether the checksum will be complete, even where it was left to the device.
    pub(crate) fn computes_crc(&self) -> bool {
        self.checksum == Checksum::Crc32c
    }

    /// The same for a transport header that has moved from one offset to another.
    pub(crate) fn moved_to(self, old: usize, new: usize) -> Self {
        let moved = |field| field - old + new;
        let checksum = match self.checksum {
            Checksum::Update(field) => Checksum::Update(moved(field)),
            Checksum::UpdateUdp(field) => Checksum::UpdateUdp(moved(field)),
            Checksum::UpdatePartial(field) => Checksum::UpdatePartial(moved(field)),
            other => other,
        };
        Self { checksum, ..self }
    }

    /// Writes ports and checksum of a packet whose addresses have become `source` and `destination`.
    pub(crate) fn write(self, bytes: &mut [u8], headers: &Headers, source: IpAddr, destination: IpAddr) {
        let mut delta = Delta::new();
        delta.replace_address(headers.source, source);
        delta.replace_address(headers.destination, destination);
        let addresses = delta;
        if let Some(ports) = self.ports {
            write_u16(bytes, headers.transport, ports.new.0);
            write_u16(bytes, headers.transport + 2, ports.new.1);
            delta.replace_u16(ports.old.0, ports.new.0);
            delta.replace_u16(ports.old.1, ports.new.1);
        }
        let before = |bytes: &[u8], field| read_u16(bytes, field).unwrap_or(0);
        match self.checksum {
            Checksum::Keep => {}
            Checksum::Update(field) => write_u16(bytes, field, delta.apply(before(bytes, field))),
            Checksum::UpdateUdp(field) => {
                write_u16(bytes, field, udp::sent_checksum(delta.apply(before(bytes, field))));
            }
            Checksum::UpdatePartial(field) => write_u16(bytes, field, addresses.apply_partial(before(bytes, field))),
            Checksum::FillUdp(len) => {
                let segment = headers.payload(bytes);
                let segment = &segment[..len.min(segment.len())];
                let checksum = checksum::transport_checksum(source, destination, UDP, segment);
                write_u16(bytes, headers.transport + udp::CHECKSUM, udp::sent_checksum(checksum));
            }
            Checksum::Crc32c => {
                let crc = sctp::packet_crc32c(headers.payload(bytes));
                let field = headers.transport + sctp::CHECKSUM;
                // RFC 9260, Appendix A: the CRC is sent least significant byte first.
                if let Some(field) = bytes.get_mut(field..).and_then(|rest| rest.first_chunk_mut()) {
                    *field = crc.to_le_bytes();
                }
            }
        }
    }
}

impl Ports {
    fn read(bytes: &[u8], headers: &Headers, rewrite: &Rewrite) -> Option<Self> {
        let old = headers.ports(bytes)?;
        let source = rewrite.source.map_or(old.0, |end| end.port);
        let destination = rewrite.destination.map_or(old.1, |end| end.port);
        Some(Self { old, new: (source, destination) })
    }
}

const TCP: u8 = Protocol::Tcp.number();
const UDP: u8 = Protocol::Udp.number();
const SCTP: u8 = Protocol::Sctp.number();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HEADROOM;
    use crate::wire::parse::parse;

    /// A packet of this family and protocol whose transport checksum field holds `checksum`, right or wrong.
    fn packet(family: AddressFamily, protocol: u8, checksum: u16) -> alloc::vec::Vec<u8> {
        let mut bytes = alloc::vec![0; HEADROOM];
        let (source, destination) = (end(family, 1), end(family, 2));
        match family {
            AddressFamily::Ipv4 => bytes.extend([0x45, 0, 0, 46, 0, 1, 0, 0, 64, protocol, 0, 0]),
            AddressFamily::Ipv6 => bytes.extend([0x60, 0, 0, 0, 0, 26, protocol, 64]),
        }
        for address in [source.address, destination.address] {
            match address {
                IpAddr::V4(address) => bytes.extend(address.octets()),
                IpAddr::V6(address) => bytes.extend(address.octets()),
            }
        }
        let transport = bytes.len();
        bytes.extend(0..26);
        write_u16(&mut bytes, transport, source.port);
        write_u16(&mut bytes, transport + 2, destination.port);
        write_u16(&mut bytes, transport + if protocol == TCP { tcp::CHECKSUM } else { udp::CHECKSUM }, checksum);
        if family == AddressFamily::Ipv4 {
            ipv4::recompute_checksum(&mut bytes[HEADROOM..], ipv4::HEADER_LEN);
        }
        bytes.extend([0xee; 6]); // link padding
        bytes
    }

    fn end(family: AddressFamily, n: u8) -> Endpoint {
        let address = match family {
            AddressFamily::Ipv4 => IpAddr::from([198, 51, 100 + n, n]),
            AddressFamily::Ipv6 => IpAddr::from([0x2001, 0xdb8, u16::from(n) << 12, 0, 0xffff, 1, 0, u16::from(n)]),
        };
        Endpoint::new(address, 60_000 + u16::from(n))
    }

    #[test]
    fn common_packets_are_rewritten_as_any_packet_is() {
        let ends = |family| [None, Some(end(family, 1)), Some(end(family, 3)), Some(end(AddressFamily::Ipv4, 9))];
        let families = [AddressFamily::Ipv4, AddressFamily::Ipv6];
        let mut common = 0;
        for (family, other) in families.into_iter().flat_map(|family| families.map(|other| (family, other))) {
            for (source, destination) in ends(family).into_iter().flat_map(|s| ends(other).map(|d| (s, d))) {
                for (protocol, field) in [(TCP, tcp::CHECKSUM), (UDP, udp::CHECKSUM), (SCTP, sctp::CHECKSUM)] {
                    for checksum in [0, 1, 0x1234, 0x8000, 0xfffe, 0xffff] {
                        let mut storage = packet(family, protocol, checksum);
                        let len = storage.len() - HEADROOM;
                        let start = parse(&storage[HEADROOM..]).unwrap().transport as u16;
                        let left = |offset| ChecksumOffload::Partial { start, offset };
                        for offload in [ChecksumOffload::Full, left(field as u16), left(2)] {
                            let change = Rewrite { source, destination };
                            let mut plain_storage = storage.clone();
                            let mut plain = PacketBuf::new(&mut plain_storage, HEADROOM, len);
                            let mut tried = PacketBuf::new(&mut storage, HEADROOM, len);
                            (plain.offload.checksum, tried.offload.checksum) = (offload, offload);
                            let headers = parse(plain.bytes()).unwrap();
                            if rewrite_common(&mut tried, &headers, &change).is_some() {
                                common += 1;
                                assert_eq!(rewrite_any(&mut plain, &headers, &change, Care::AsLinux), Ok(()));
                            }
                            assert_eq!(tried.bytes(), plain.bytes(), "{family:?} {protocol} {checksum:#x} {change:?}");
                            assert_eq!(tried.offload, plain.offload);
                            storage = packet(family, protocol, checksum);
                        }
                    }
                }
            }
        }
        // 21 changes of one family, each with 17 checksums: six for TCP and five for UDP, and six more of each left to
        // the device.
        assert!(common > 300, "the short way was hardly taken: {common}");
    }
}
