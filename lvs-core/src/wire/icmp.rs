//! ICMP and ICMPv6: errors about a packet, made in its own buffer; errors about a tracked flow, recognised and
//! translated together with the packet they quote. Which flow that is, is not decided here.
//! RFC 792, RFC 4443; what is answered and how many bytes are quoted follows Linux (`nat_mtu`, `nat6_mtu`, `nat_ttl`).

use core::net::IpAddr;

use crate::wire::parse::{Headers, parse_quoted};
use crate::wire::rewrite::{Rewrite, new_addresses, set_addresses};
use crate::wire::{checksum, ipv4, ipv6, write_u16};
use crate::{AddressFamily, ChecksumOffload, DropReason, Offload, PacketBuf, Protocol};

/// IANA number of ICMP.
pub const ICMP: u8 = 1;
/// IANA number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// Length of an ICMP or ICMPv6 header: type, code, checksum, and four bytes that depend on the type.
pub const HEADER_LEN: usize = 8;

/// Offset of the checksum in the header.
pub const CHECKSUM: usize = 2;

/// An error to send about a packet, in the terms of both versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpError {
    /// Nobody serves this port: 3/3, ICMPv6 1/4.
    PortUnreachable,
    /// The server cannot be reached: 3/1, ICMPv6 1/3 (address unreachable).
    HostUnreachable,
    /// TTL or hop limit used up: 11/0, ICMPv6 3/0.
    TimeExceeded,
    /// Longer than the way out takes: 3/4, ICMPv6 2/0.
    TooBig {
        /// Longest packet that would fit, in bytes. ICMP has 16 bits for it; more is sent as 65535.
        mtu: u32,
    },
    /// Any other message, or one that is passed on.
    Other {
        /// ICMP or ICMPv6 type.
        error_type: u8,
        /// Code.
        code: u8,
        /// The header's last four bytes.
        rest: u32,
    },
}

impl IcmpError {
    /// Type, code and the header's last four bytes.
    pub fn header(self, family: AddressFamily) -> (u8, u8, u32) {
        use AddressFamily::{Ipv4, Ipv6};
        match (self, family) {
            (Self::PortUnreachable, Ipv4) => (3, 3, 0),
            (Self::PortUnreachable, Ipv6) => (1, 4, 0),
            (Self::HostUnreachable, Ipv4) => (3, 1, 0),
            (Self::HostUnreachable, Ipv6) => (1, 3, 0),
            (Self::TimeExceeded, Ipv4) => (11, 0, 0),
            (Self::TimeExceeded, Ipv6) => (3, 0, 0),
            (Self::TooBig { mtu }, Ipv4) => (3, 4, mtu.min(0xffff)),
            (Self::TooBig { mtu }, Ipv6) => (2, 0, mtu),
            (Self::Other { error_type, code, rest }, _) => (error_type, code, rest),
        }
    }
}

/// Turns the packet into an ICMP error about itself, from `source` to the packet's own source.
///
/// The packet is quoted as it is in the buffer, up to 576 bytes altogether (IPv4) or 1280 (IPv6); a checksum that was
/// left to the device is quoted unfinished. TTL 64, DF clear, no flow label; `identification` is IPv4's. The TOS is
/// the packet's without precedence and lowest bit, plus precedence "internetwork control"; ICMPv6 has traffic class 0.
/// The packet grows into its headroom by 28 or 48 bytes and leaves with a default offload context.
/// Whether an answer is proper at all is for [`may_answer`].
///
/// # Errors
/// The packet is unchanged. [`DropReason::NoHeadroom`]: too little room before the packet.
/// [`DropReason::NotForwardable`]: `source` is of the other family.
pub fn make_error(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    error: IcmpError,
    source: IpAddr,
    identification: u16,
) -> Result<(), DropReason> {
    let (ip_header_len, len_max) = match headers.family {
        AddressFamily::Ipv4 => (ipv4::HEADER_LEN, ERROR_LEN_MAX_V4),
        AddressFamily::Ipv6 => (ipv6::HEADER_LEN, ERROR_LEN_MAX_V6),
    };
    if AddressFamily::of(source) != headers.family {
        return Err(DropReason::NotForwardable);
    }
    let quoted_len = headers.packet_len.min(packet.len()).min(len_max - ip_header_len - HEADER_LEN);
    packet.grow_front(ip_header_len + HEADER_LEN).ok_or(DropReason::NoHeadroom)?;
    let len = ip_header_len + HEADER_LEN + quoted_len;
    packet.set_len(len);
    packet.offload = Offload::default();

    let bytes = packet.bytes_mut();
    let payload_len = (HEADER_LEN + quoted_len) as u16;
    match (source, headers.source) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = ipv4::Header {
                traffic_class: headers.traffic_class & 0x1e | 0xc0,
                total_len: ip_header_len as u16 + payload_len,
                identification,
                dont_fragment: false,
                hop_limit: HOP_LIMIT,
                protocol: ICMP,
                source,
                destination,
            };
            bytes.first_chunk_mut().into_iter().for_each(|bytes| ipv4::write_header(bytes, &header));
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = ipv6::Header {
                traffic_class: 0,
                payload_len,
                next_header: ICMPV6,
                hop_limit: HOP_LIMIT,
                source,
                destination,
            };
            bytes.first_chunk_mut().into_iter().for_each(|bytes| ipv6::write_header(bytes, &header));
        }
        _ => {}
    }
    let (error_type, code, rest) = error.header(headers.family);
    let message = &mut bytes[ip_header_len..];
    message[..4].copy_from_slice(&[error_type, code, 0, 0]);
    message[4..HEADER_LEN].copy_from_slice(&rest.to_be_bytes());
    write_message_checksum(message, source, headers.source);
    Ok(())
}

/// Whether an ICMP error about this packet may be sent (RFC 1122 §3.2.2, RFC 4443 §2.4(e)): not about an ICMP error
/// or redirect, a later fragment, a packet to many, or one whose source is nobody or many.
pub fn may_answer(headers: &Headers, bytes: &[u8]) -> bool {
    if headers.is_later_fragment() || is_many(headers.destination) || !is_someone(headers.source) {
        return false;
    }
    let icmp_type = headers.transport_header::<1>(bytes).map(|&[icmp_type]| icmp_type);
    match headers.protocol {
        ICMP if headers.family == AddressFamily::Ipv4 => icmp_type.is_some_and(|t| !matches!(t, 3 | 4 | 5 | 11 | 12)),
        ICMPV6 if headers.family == AddressFamily::Ipv6 => icmp_type.is_some_and(|t| t >= 128 && t != REDIRECT_V6),
        _ => true,
    }
}

/// An ICMP error and the packet it quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Related {
    /// ICMP or ICMPv6 type.
    pub error_type: u8,
    /// Code.
    pub code: u8,
    /// The header's last four bytes: in 3/4 the MTU, in ICMPv6 2/0 too.
    pub rest: u32,
    /// Offset of the quoted packet in the whole one.
    pub quoted_start: usize,
    /// The quoted packet's headers. Offsets count from the start of the *whole* packet, so the accessors take its
    /// bytes.
    pub quoted: Headers,
}

/// Whether the packet is an ICMP error that could concern a tracked flow: ICMP types 3, 4 and 11, every ICMPv6 error
/// (types below 128). IPVS translates these and no others.
///
/// `Ok(None)` is a packet to be treated like any other: no such error, nothing readable quoted, a later fragment quoted
/// (of AH and ESP it is taken all the same), or an IPv4 fragment, which has to be put together first. Any quoted
/// protocol is taken; tunnels are looked into by the caller, and so are ports ([`Headers::ports`] of `quoted`).
/// The ICMP checksum is not verified: see [`checksum_is_valid`].
///
/// # Errors
/// [`DropReason::TruncatedIcmp`]: the ICMP header is cut off, or an ICMPv6 error comes behind a fragment header.
pub fn related(bytes: &[u8], headers: &Headers) -> Result<Option<Related>, DropReason> {
    let is_icmp = match headers.family {
        AddressFamily::Ipv4 => headers.protocol == ICMP && headers.fragment.is_none(),
        AddressFamily::Ipv6 => headers.protocol == ICMPV6 && !headers.is_later_fragment(),
    };
    if !is_icmp {
        return Ok(None);
    }
    let &[error_type, code, _, _, a, b, c, d] = headers.transport_header(bytes).ok_or(DropReason::TruncatedIcmp)?;
    let is_error = match headers.family {
        AddressFamily::Ipv4 => matches!(error_type, 3 | 4 | 11),
        AddressFamily::Ipv6 => error_type < 128,
    };
    if !is_error {
        return Ok(None);
    }
    if headers.family == AddressFamily::Ipv6 && headers.fragment.is_some() {
        return Err(DropReason::TruncatedIcmp);
    }
    let quoted_start = headers.transport + HEADER_LEN;
    let Some(quoted) = parse_quoted(&headers.payload(bytes)[HEADER_LEN..]) else { return Ok(None) };
    let ipsec = matches!(quoted.protocol, 50 | 51);
    if quoted.family != headers.family || (quoted.is_later_fragment() && !ipsec) {
        return Ok(None);
    }
    let rest = u32::from_be_bytes([a, b, c, d]);
    Ok(Some(Related { error_type, code, rest, quoted_start, quoted: quoted.moved_by(quoted_start) }))
}

/// Whether the checksum of an ICMP or ICMPv6 packet is right.
pub fn checksum_is_valid(bytes: &[u8], headers: &Headers) -> bool {
    let message = headers.payload(bytes);
    let pseudo_header = match headers.family {
        AddressFamily::Ipv4 => 0,
        AddressFamily::Ipv6 => checksum::pseudo_header_sum(headers.source, headers.destination, ICMPV6, message.len()),
    };
    checksum::fold(pseudo_header + checksum::sum(message)) == 0xffff
}

/// Translates an ICMP error about a NAT flow: `outer` gives the error's own new addresses (ports are ignored), `quoted`
/// the new addresses and ports of the packet it quotes.
///
/// Quoted ports change for TCP, UDP and SCTP. The quoted IPv4 header checksum and the ICMP checksum are computed anew;
/// the quoted transport checksum is left as it is and so becomes stale, as in Linux (`nat_icmp_from_rs`). Cuts off link
/// padding behind the packet.
///
/// # Errors
/// The packet is unchanged. [`DropReason::TruncatedIcmp`]: a quoted port is to change that is not there.
/// [`DropReason::NotForwardable`]: an address is of the other family.
pub fn rewrite_error(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    related: &Related,
    outer: &Rewrite,
    quoted: &Rewrite,
) -> Result<(), DropReason> {
    let Some(bytes) = packet.bytes().get(..headers.packet_len) else { return Err(DropReason::MalformedIp) };
    let (source, destination) = new_addresses(headers, outer)?;
    let (quoted_source, quoted_destination) = new_addresses(&related.quoted, quoted)?;
    let has_ports = Protocol::from_number(related.quoted.protocol).is_some() && !related.quoted.is_later_fragment();
    if has_ports && related.quoted.ports(bytes).is_none() {
        return Err(DropReason::TruncatedIcmp);
    }

    packet.set_len(headers.packet_len);
    packet.offload.checksum = ChecksumOffload::Full;
    let bytes = packet.bytes_mut();
    set_addresses(bytes, source, destination);
    let inner = &mut bytes[related.quoted_start..];
    set_addresses(inner, quoted_source, quoted_destination);
    if related.quoted.family == AddressFamily::Ipv4 {
        ipv4::recompute_checksum(inner, related.quoted.transport - related.quoted_start);
    }
    if has_ports {
        let ports = [(quoted.source, 0), (quoted.destination, 2)];
        for (end, offset) in ports.into_iter().filter_map(|(end, offset)| Some((end?, offset))) {
            write_u16(bytes, related.quoted.transport + offset, end.port);
        }
    }
    write_message_checksum(&mut bytes[headers.transport..], source, destination);
    Ok(())
}

/// Computes the checksum of an ICMP message, ICMPv6 with its pseudo header, and writes it.
pub(crate) fn write_message_checksum(message: &mut [u8], source: IpAddr, destination: IpAddr) {
    write_u16(message, CHECKSUM, 0);
    let checksum = match AddressFamily::of(source) {
        AddressFamily::Ipv4 => checksum::checksum(message),
        AddressFamily::Ipv6 => checksum::transport_checksum(source, destination, ICMPV6, message),
    };
    write_u16(message, CHECKSUM, checksum);
}

/// Multicast, or IPv4's limited broadcast.
fn is_many(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

/// Whether an answer to this source would reach one host (RFC 1122 §3.2.1.3): not "this host", loopback or class E.
fn is_someone(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !matches!(address.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(address) => !(address.is_unspecified() || address.is_loopback() || address.is_multicast()),
    }
}

/// RFC 1812 §4.3.2.3: an ICMP error is at most this long, so that it fits everywhere.
const ERROR_LEN_MAX_V4: usize = 576;

/// RFC 4443 §2.4(c): an ICMPv6 error is at most the minimum IPv6 MTU long.
const ERROR_LEN_MAX_V6: usize = 1280;

/// Linux's default for packets it makes (`ip_default_ttl`).
const HOP_LIMIT: u8 = 64;

/// ICMPv6 redirect, which RFC 4443 §2.4(e) does not want answered either.
const REDIRECT_V6: u8 = 137;
