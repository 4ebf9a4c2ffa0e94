//! Reads a packet's headers once and keeps the offsets. Decides what is a packet at all and what is none.
//! Lengths are taken from the header only after they were compared with the bytes that are there.
//! RFC 791, RFC 8200; what Linux does with odd packets was recorded (`nat_truncated`, `nat6_exthdr`, `nat_ipopts`).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::tcp::{self, TcpFlags};
use crate::wire::{checksum, ipv4, ipv6, read_u16, sctp, udp};
use crate::{AddressFamily, DropReason, Endpoint, Protocol};

/// A packet's headers, parsed once: what they say and where things are. All offsets count from the IP header.
///
/// ```
/// use lvs_core::wire::parse::parse;
/// // 203.0.113.7:1024 > 192.0.2.1:80 UDP "hi", checksum none
/// let packet = [
///     0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0x7c, 0xc6, 203, 0, 113, 7, 192, 0, 2, 1,
///     4, 0, 0, 80, 0, 10, 0, 0, b'h', b'i',
/// ];
/// let headers = parse(&packet).unwrap();
/// assert_eq!(headers.ports(&packet), Some((1024, 80)));
/// assert_eq!(headers.payload(&packet).len(), 10);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// IPv4 or IPv6.
    pub family: AddressFamily,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IANA number of the transport protocol, behind all IPv6 extension headers, of which AH (51) is one. In IPv4 AH
    /// counts as a transport protocol; ESP (50) does in both. In a later fragment: what its IP or fragment header says.
    pub protocol: u8,
    /// Offset of the transport header, or of a later fragment's data.
    pub transport: usize,
    /// Length of the whole packet by its IP header, never more than there are bytes; what is behind it is link padding.
    pub packet_len: usize,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// IPv4 TOS or IPv6 traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// IPv4's "don't fragment"; false in IPv6, where no router fragments.
    pub dont_fragment: bool,
    /// Set if the packet is a part of a datagram: IPv4 with MF or an offset, IPv6 with a fragment header
    /// (an "atomic" one, RFC 6946, has offset 0 and no more).
    pub fragment: Option<FragmentPart>,
    /// Whether there are IPv4 options, or IPv6 extension headers other than a fragment header.
    pub has_options: bool,
    /// Whether the sender chose the route: IPv4 LSRR or SSRR; an IPv6 routing header with segments left, whose
    /// destination is not the final one, so that nothing can be said about the transport checksum.
    pub source_route: bool,
    /// Offset of an IPv4 record-route option.
    pub record_route: Option<usize>,
}

/// Which part of a fragmented datagram this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentPart {
    /// Where this part's data belongs in the datagram's, in bytes.
    pub offset: u16,
    /// Whether more parts follow.
    pub more: bool,
    /// The datagram's identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// Offset of the IPv6 fragment header; 0 in IPv4.
    pub header: usize,
}

/// Parses a packet that came over a link.
///
/// Says nothing about the transport header: whether it is whole is for [`Headers::ports`] and its like to say, because
/// Linux passes such packets on or drops them depending on what it knows of the flow.
///
/// # Errors
/// [`DropReason::MalformedIp`]: shorter than its header, an unknown version, lengths that contradict each other or the
/// bytes, broken IPv4 options (zero or overlong length, a record-route pointer with less than an address of room:
/// RFC 791 calls such a datagram "in error" and has it discarded), an IPv4 fragment that reaches beyond 65535, carries
/// nothing, or is no multiple of eight bytes although more follow.
/// [`DropReason::BadIpChecksum`]: the IPv4 header checksum is wrong.
/// [`DropReason::MalformedExtensionHeader`]: an IPv6 extension-header chain that leaves the packet, has more than
/// [`EXTENSION_HEADERS_MAX`] headers, two fragment headers or a hop-by-hop header not in first place; or a fragment as
/// above (RFC 8200 §4.5). Linux hands packets with such chains to the host's stack.
pub fn parse(bytes: &[u8]) -> Result<Headers, DropReason> {
    match bytes.first() {
        Some(first) if first >> 4 == 4 => parse_ipv4(bytes),
        Some(first) if first >> 4 == 6 => parse_ipv6(bytes),
        _ => Err(DropReason::MalformedIp),
    }
}

/// Parses the packet quoted in an ICMP error, of which the end may be missing.
///
/// `packet_len` is what is there of it. An IPv4 header must be there whole but its checksum is not verified (routers
/// quote packets they had changed already), and broken options are overlooked.
/// `None` if there is no version 4 or 6 header, or its extension headers cannot be followed to the transport header.
pub fn parse_quoted(bytes: &[u8]) -> Option<Headers> {
    match bytes.first()? >> 4 {
        4 => {
            let header = bytes.first_chunk()?;
            let options = bytes.get(ipv4::HEADER_LEN..ipv4_header_len(header)?)?;
            let (source_route, record_route) = read_options(options).unwrap_or_default();
            // Some senders garble the length; then all there is belongs to the packet.
            let total_len = Some(ipv4_total_len(header)).filter(|&len| len >= ipv4::HEADER_LEN + options.len());
            let packet_len = total_len.map_or(bytes.len(), |len| len.min(bytes.len()));
            Some(Headers { source_route, record_route, ..ipv4_headers(header, packet_len) })
        }
        6 => {
            let header = bytes.first_chunk()?;
            let packet_len = ipv6_total_len(header).min(bytes.len());
            ipv6_headers(header, &bytes[..packet_len]).ok()
        }
        _ => None,
    }
}

/// Protocol, source and destination, as a packet without options or extension headers has them: a guess from fixed
/// places, for those who only want to be early. Nothing but the version and the length is checked.
pub(crate) fn guess_flow(bytes: &[u8]) -> Option<(Protocol, Endpoint, Endpoint)> {
    if let Some(packet) = bytes.first_chunk::<24>().filter(|packet| packet[0] == 0x45) {
        let [.., a, b, c, d, e, f, g, h, i, j, k, l] = *packet;
        let source = Endpoint::new(IpAddr::from([a, b, c, d]), u16::from_be_bytes([i, j]));
        let destination = Endpoint::new(IpAddr::from([e, f, g, h]), u16::from_be_bytes([k, l]));
        return Some((Protocol::from_number(packet[9])?, source, destination));
    }
    let packet = bytes.first_chunk::<44>().filter(|packet| packet[0] >> 4 == 6)?;
    let header = packet.first_chunk()?;
    let source = Endpoint::new(ipv6_address(header, 8), u16::from_be_bytes([packet[40], packet[41]]));
    let destination = Endpoint::new(ipv6_address(header, 24), u16::from_be_bytes([packet[42], packet[43]]));
    Some((Protocol::from_number(packet[6])?, source, destination))
}

impl Headers {
    /// Whether this is the first of several fragments.
    pub fn is_fragment_head(&self) -> bool {
        self.fragment.is_some_and(|part| part.offset == 0 && part.more)
    }

    /// Whether this is a fragment without the transport header: every one but the first.
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|part| part.offset != 0)
    }

    /// What follows the IP headers, up to the packet's end. `bytes` is the packet that was parsed.
    pub fn payload<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.transport..self.packet_len).unwrap_or(&[])
    }

    /// The first `N` bytes of the transport header; `None` for a later fragment or if there are fewer.
    pub fn transport_header<'a, const N: usize>(&self, bytes: &'a [u8]) -> Option<&'a [u8; N]> {
        if self.is_later_fragment() { None } else { self.payload(bytes).first_chunk() }
    }

    /// Source and destination port: the transport header's first four bytes, whatever the protocol.
    /// `None` for a later fragment or if they are cut off.
    pub fn ports(&self, bytes: &[u8]) -> Option<(u16, u16)> {
        let &[a, b, c, d] = self.transport_header(bytes)?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    /// The TCP flags; `None` unless all 20 bytes of a TCP header are there. Its data offset is not looked at, as in
    /// Linux.
    pub fn tcp_flags(&self, bytes: &[u8]) -> Option<TcpFlags> {
        self.transport_header::<{ tcp::HEADER_LEN }>(bytes).map(|header| TcpFlags(header[13]))
    }

    /// The SCTP chunk types a director looks at; `None` unless common header and first chunk header are there.
    pub fn sctp_chunks(&self, bytes: &[u8]) -> Option<sctp::Chunks> {
        if self.is_later_fragment() { None } else { sctp::Chunks::read(self.payload(bytes)) }
    }

    /// Whether the UDP header is whole. Its length field is not looked at, as in Linux.
    pub fn has_udp_header(&self, bytes: &[u8]) -> bool {
        self.transport_header::<{ udp::HEADER_LEN }>(bytes).is_some()
    }

    /// How much of its datagram this part is. Headers behind an IPv6 fragment header belong to it (RFC 8200 §4.5).
    pub(crate) fn part_len(&self, part: &FragmentPart) -> usize {
        let data = if part.header == 0 { self.transport } else { part.header + ipv6::FRAGMENT_HEADER_LEN };
        self.packet_len - data
    }

    /// Whether this cannot be a part of any datagram.
    fn is_impossible_fragment(&self) -> bool {
        self.fragment.is_some_and(|part| {
            let len = self.part_len(&part);
            let unaligned = part.more && len % 8 != 0;
            let empty = part.offset != 0 && len == 0;
            unaligned || empty || usize::from(part.offset) + len > DATAGRAM_LEN_MAX
        })
    }

    /// The same headers, of a packet that starts `count` bytes into another one.
    pub(crate) fn moved_by(self, count: usize) -> Self {
        let fragment = self
            .fragment
            .map(|part| FragmentPart { header: if part.header == 0 { 0 } else { part.header + count }, ..part });
        Self {
            transport: self.transport + count,
            packet_len: self.packet_len + count,
            record_route: self.record_route.map(|offset| offset + count),
            fragment,
            ..self
        }
    }
}

fn parse_ipv4(bytes: &[u8]) -> Result<Headers, DropReason> {
    let header = bytes.first_chunk().ok_or(DropReason::MalformedIp)?;
    let header_len = ipv4_header_len(header).ok_or(DropReason::MalformedIp)?;
    let packet_len = ipv4_total_len(header);
    if packet_len < header_len || packet_len > bytes.len() {
        return Err(DropReason::MalformedIp);
    }
    let mut sum = checksum::sum(header);
    if header_len > ipv4::HEADER_LEN {
        sum = u32::from(checksum::fold(sum + checksum::sum(&bytes[ipv4::HEADER_LEN..header_len])));
    }
    if sum != 0xffff {
        return Err(DropReason::BadIpChecksum);
    }
    let mut headers = ipv4_headers(header, packet_len);
    if headers.has_options {
        (headers.source_route, headers.record_route) =
            read_options(&bytes[ipv4::HEADER_LEN..header_len]).ok_or(DropReason::MalformedIp)?;
    }
    if headers.is_impossible_fragment() { Err(DropReason::MalformedIp) } else { Ok(headers) }
}

fn parse_ipv6(bytes: &[u8]) -> Result<Headers, DropReason> {
    let header = bytes.first_chunk().ok_or(DropReason::MalformedIp)?;
    let packet = bytes.get(..ipv6_total_len(header)).ok_or(DropReason::MalformedIp)?;
    let headers = ipv6_headers(header, packet)?;
    if headers.is_impossible_fragment() { Err(DropReason::MalformedExtensionHeader) } else { Ok(headers) }
}

/// What the fixed part of an IPv4 header says.
fn ipv4_headers(header: &[u8; ipv4::HEADER_LEN], packet_len: usize) -> Headers {
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let flags_and_offset = u16::from_be_bytes([header[6], header[7]]);
    let part = FragmentPart {
        offset: (flags_and_offset & 0x1fff) * 8,
        more: flags_and_offset & 0x2000 != 0,
        id: u32::from(u16::from_be_bytes([header[4], header[5]])),
        header: 0,
    };
    let [.., a, b, c, d, e, f, g, h] = *header;
    Headers {
        family: AddressFamily::Ipv4,
        source: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        destination: IpAddr::V4(Ipv4Addr::new(e, f, g, h)),
        protocol: header[9],
        transport: header_len,
        packet_len,
        hop_limit: header[8],
        traffic_class: header[1],
        dont_fragment: flags_and_offset & 0x4000 != 0,
        fragment: (part.more || part.offset != 0).then_some(part),
        has_options: header_len > ipv4::HEADER_LEN,
        source_route: false,
        record_route: None,
    }
}

fn ipv4_header_len(header: &[u8; ipv4::HEADER_LEN]) -> Option<usize> {
    Some(usize::from(header[0] & 0x0f) * 4).filter(|&len| len >= ipv4::HEADER_LEN)
}

fn ipv4_total_len(header: &[u8; ipv4::HEADER_LEN]) -> usize {
    usize::from(u16::from_be_bytes([header[2], header[3]]))
}

fn ipv6_total_len(header: &[u8; ipv6::HEADER_LEN]) -> usize {
    ipv6::HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]))
}

/// Walks IPv4 options: whether there is a source route, and where a record route is. `None` if they are broken.
/// `options` is what follows the fixed header; the offset counts from the IP header.
fn read_options(options: &[u8]) -> Option<(bool, Option<usize>)> {
    let (mut source_route, mut record_route) = (false, None);
    let mut offset = 0;
    while let Some(&kind) = options.get(offset) {
        match kind {
            ipv4::OPTION_END => break,
            ipv4::OPTION_NOP => offset += 1,
            _ => {
                let len = usize::from(*options.get(offset + 1)?);
                let option = options.get(offset..offset + len).filter(|_| len >= 2)?;
                match kind {
                    ipv4::OPTION_RECORD_ROUTE => {
                        let pointer = usize::from(*option.get(2)?);
                        if pointer < 4 || (pointer <= len && pointer + 3 > len) {
                            return None;
                        }
                        record_route = record_route.or(Some(ipv4::HEADER_LEN + offset));
                    }
                    ipv4::OPTION_LOOSE_SOURCE_ROUTE | ipv4::OPTION_STRICT_SOURCE_ROUTE => source_route = true,
                    _ => {}
                }
                offset += len;
            }
        }
    }
    Some((source_route, record_route))
}

/// What an IPv6 header and its extension headers say. `packet` ends where the packet does.
fn ipv6_headers(header: &[u8; ipv6::HEADER_LEN], packet: &[u8]) -> Result<Headers, DropReason> {
    let mut headers = Headers {
        family: AddressFamily::Ipv6,
        source: ipv6_address(header, 8),
        destination: ipv6_address(header, 24),
        protocol: header[6],
        transport: ipv6::HEADER_LEN,
        packet_len: packet.len(),
        hop_limit: header[7],
        traffic_class: header[0] << 4 | header[1] >> 4,
        dont_fragment: false,
        fragment: None,
        has_options: false,
        source_route: false,
        record_route: None,
    };
    if ipv6::is_extension(headers.protocol) {
        walk_extension_headers(packet, &mut headers)?;
    }
    Ok(headers)
}

fn ipv6_address(header: &[u8; ipv6::HEADER_LEN], offset: usize) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[offset..offset + 16]);
    IpAddr::V6(Ipv6Addr::from(octets))
}

/// Moves `headers.protocol` and `headers.transport` behind the extension headers (RFC 8200 §4).
fn walk_extension_headers(packet: &[u8], headers: &mut Headers) -> Result<(), DropReason> {
    for _ in 0..EXTENSION_HEADERS_MAX {
        let (kind, offset) = (headers.protocol, headers.transport);
        let &[next, len, _, segments_left, ..] = packet
            .get(offset..)
            .and_then(|rest| rest.first_chunk::<8>())
            .ok_or(DropReason::MalformedExtensionHeader)?;
        let misplaced = kind == ipv6::HOP_BY_HOP && offset != ipv6::HEADER_LEN;
        if misplaced || (kind == ipv6::FRAGMENT && headers.fragment.is_some()) {
            return Err(DropReason::MalformedExtensionHeader);
        }
        headers.protocol = next;
        if kind == ipv6::FRAGMENT {
            headers.fragment = Some(read_fragment_header(packet, offset));
        } else {
            headers.has_options = true;
            headers.source_route |= kind == ipv6::ROUTING && segments_left != 0;
        }
        headers.transport = offset + ipv6::extension_len(kind, len);
        if headers.transport > packet.len() {
            return Err(DropReason::MalformedExtensionHeader);
        }
        // What a later fragment holds is the middle of something, not headers.
        if headers.is_later_fragment() || !ipv6::is_extension(headers.protocol) {
            return Ok(());
        }
    }
    Err(DropReason::MalformedExtensionHeader)
}

fn read_fragment_header(packet: &[u8], offset: usize) -> FragmentPart {
    let field = read_u16(packet, offset + 2).unwrap_or(0);
    let id = u32::from(read_u16(packet, offset + 4).unwrap_or(0)) << 16;
    FragmentPart {
        offset: field & 0xfff8,
        more: field & 1 != 0,
        id: id | u32::from(read_u16(packet, offset + 6).unwrap_or(0)),
        header: offset,
    }
}

/// More IPv6 extension headers than this are refused: RFC 8200 §4.1 names six, of which one may come twice.
pub const EXTENSION_HEADERS_MAX: usize = 8;

/// Longest datagram that fragments can make up, by the 16-bit length of both IP versions.
const DATAGRAM_LEN_MAX: usize = 65535;
