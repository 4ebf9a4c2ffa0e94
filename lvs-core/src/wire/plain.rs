//! Plain packets: whole TCP segments and UDP datagrams with nothing unusual in their headers, as nearly all are. They
//! are read and rewritten at fixed places. Decides what is plain; what comes out is what [`super::parse`] and
//! [`super::rewrite`] make of the same packet, and what is not plain is left to them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::checksum::{self, Delta};
use crate::wire::tcp::TcpFlags;
use crate::wire::{ipv4, ipv6, tcp, udp};
use crate::{AddressFamily, ChecksumOffload, Endpoint, Offload, PacketBuf, Protocol};

/// What a plain packet says: its transport header comes right behind an IP header without options; it is no fragment
/// and no super-packet, has a checksum of its own and a source port, its lengths agree, its hop limit can be counted
/// down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain<A> {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Length by the IP header; what is behind it is link padding.
    pub len: u16,
    /// No flags in UDP.
    pub flags: TcpFlags,
    ports: [u16; 2],
    addresses: [A; 2],
}

/// What differs between the address families.
pub(crate) trait Address: Copy + Into<IpAddr> {
    const FAMILY: AddressFamily;
    /// Length of the IP header.
    const HEADER_LEN: usize;
    /// Where the source address is, and behind it the destination.
    const ADDRESSES: usize;

    /// Whole packet's length, hop limit and protocol; `None` if the header is not plain.
    fn read(header: &[u8]) -> Option<(u16, u8, u8)>;
    /// DSCP and ECN, and "don't fragment".
    fn class(header: &[u8]) -> Option<(u8, bool)>;
    /// Takes one from the hop limit; `delta` says what else has changed in the header.
    fn count_down(header: &mut [u8], delta: Delta);
    /// The address at the start of `bytes`.
    fn at(bytes: &[u8]) -> Option<Self>;
    /// Writes the address there, and adds the change to `delta`.
    fn replace(self, bytes: &mut [u8], delta: &mut Delta);
    /// An address of this family.
    fn of(address: IpAddr) -> Option<Self>;
}

/// One end of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Source = 0,
    Destination = 1,
}

impl<A: Address> Plain<A> {
    /// Reads a packet of this family; `None` if it is not plain.
    #[inline]
    pub fn read(packet: &PacketBuf<'_>) -> Option<Self> {
        let bytes = packet.bytes();
        let (header, _) = bytes.split_at_checked(A::HEADER_LEN)?;
        let (len, hop_limit, protocol) = A::read(header)?;
        let transport = bytes.get(A::HEADER_LEN..usize::from(len))?;
        let &[a, b, c, d] = transport.first_chunk()?;
        let ports = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
        let is_by_itself = matches!(packet.offload, Offload { checksum: ChecksumOffload::Full, gso: None });
        if hop_limit <= 1 || ports[0] == 0 || !is_by_itself {
            return None;
        }
        let (protocol, flags) = match protocol {
            TCP => (Protocol::Tcp, TcpFlags(transport.first_chunk::<{ tcp::HEADER_LEN }>()?[13])),
            UDP => match transport.first_chunk::<{ udp::HEADER_LEN }>()? {
                // RFC 768: no checksum.
                [.., 0, 0] => return None,
                _ => (Protocol::Udp, TcpFlags::default()),
            },
            _ => return None,
        };
        let addresses = [A::at(&header[A::ADDRESSES..])?, A::at(&header[A::ADDRESSES + size_of::<A>()..])?];
        Some(Self { protocol, len, flags, ports, addresses })
    }

    #[inline]
    pub fn source(&self) -> Endpoint {
        Endpoint::new(self.addresses[0].into(), self.ports[0])
    }

    #[inline]
    pub fn destination(&self) -> Endpoint {
        Endpoint::new(self.addresses[1].into(), self.ports[1])
    }

    /// Traffic class, and whether routers may not fragment the packet that was read.
    pub fn class(&self, packet: &PacketBuf<'_>) -> Option<(u8, bool)> {
        A::class(packet.bytes())
    }

    /// Sequence and acknowledgment number of the segment that was read; `None` where it has options other than
    /// timestamps by themselves (RFC 7323, appendix A).
    pub fn numbers(&self, packet: &PacketBuf<'_>) -> Option<(u32, u32)> {
        let segment = packet.bytes().get(A::HEADER_LEN..usize::from(self.len))?;
        let &[_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, ..] = segment.first_chunk::<{ tcp::HEADER_LEN }>()?;
        let has_timestamps = || segment.get(tcp::HEADER_LEN..32).is_some_and(|options| options[..4] == TIMESTAMPS);
        let is_plain = offset >> 4 == 5 || offset >> 4 == 8 && has_timestamps();
        is_plain.then_some((u32::from_be_bytes([s0, s1, s2, s3]), u32::from_be_bytes([a0, a1, a2, a3])))
    }

    /// Replaces the sequence number (an `index` of 0) or the acknowledgment number (1) of the segment that was read,
    /// and returns what its checksum is to change by ([`Plain::pass_on_changed`]).
    #[inline]
    pub fn renumber(&self, packet: &mut PacketBuf<'_>, index: usize, new: u32) -> Delta {
        let mut delta = Delta::new();
        let field = packet.bytes_mut().get_mut(A::HEADER_LEN + 4 + 4 * index..).and_then(|rest| rest.first_chunk_mut());
        if let Some(field) = field {
            delta.replace_bytes(*field, new.to_be_bytes());
            *field = new.to_be_bytes();
        }
        delta
    }

    /// Cuts off link padding, gives these ends of the packet that was read new addresses and ports, and takes one from
    /// its hop limit.
    #[inline(always)]
    pub fn pass_on<const N: usize>(&self, packet: &mut PacketBuf<'_>, changes: [(End, A, u16); N]) {
        self.pass_on_changed(packet, changes, Delta::new());
    }

    /// The same, where the transport header has changed by `transport_delta` besides.
    #[inline(always)]
    pub fn pass_on_changed<const N: usize>(
        &self,
        packet: &mut PacketBuf<'_>,
        changes: [(End, A, u16); N],
        transport_delta: Delta,
    ) {
        packet.set_len(usize::from(self.len));
        let Some((header, transport)) = packet.bytes_mut().split_at_mut_checked(A::HEADER_LEN) else { return };
        let mut delta = Delta::new();
        for (end, address, _) in changes {
            address.replace(&mut header[A::ADDRESSES + end as usize * size_of::<A>()..], &mut delta);
        }
        if N > 0 {
            self.replace_ports(transport, changes, delta + transport_delta);
        }
        A::count_down(header, delta);
    }

    /// Writes the new ports, and the checksum after them and the change of addresses.
    #[inline(always)]
    fn replace_ports<const N: usize>(&self, transport: &mut [u8], changes: [(End, A, u16); N], mut delta: Delta) {
        let checksum_at = if self.protocol == Protocol::Tcp { tcp::CHECKSUM } else { udp::CHECKSUM };
        for (end, _, port) in changes {
            let at = 2 * end as usize;
            delta.replace_u16(self.ports[end as usize], port);
            transport[at..at + 2].copy_from_slice(&port.to_be_bytes());
        }
        let field = &mut transport[checksum_at..checksum_at + 2];
        let checksum = delta.apply(u16::from_be_bytes([field[0], field[1]]));
        let checksum = if self.protocol == Protocol::Udp { udp::sent_checksum(checksum) } else { checksum };
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

impl Address for Ipv4Addr {
    const FAMILY: AddressFamily = AddressFamily::Ipv4;
    const HEADER_LEN: usize = ipv4::HEADER_LEN;
    const ADDRESSES: usize = 12;

    #[inline]
    fn read(header: &[u8]) -> Option<(u16, u8, u8)> {
        let header: &[u8; ipv4::HEADER_LEN] = header.first_chunk()?;
        let &[0x45, _, l0, l1, _, _, part, offset, hop_limit, protocol, ..] = header else { return None };
        // More fragments, or an offset: 13 bits.
        let is_fragment = part & 0x3f != 0 || offset != 0;
        let is_plain = !is_fragment && checksum::sum(header) == 0xffff;
        is_plain.then_some((u16::from_be_bytes([l0, l1]), hop_limit, protocol))
    }

    fn class(header: &[u8]) -> Option<(u8, bool)> {
        let &[_, traffic_class, _, _, _, _, part] = header.first_chunk()?;
        Some((traffic_class, part & 0x40 != 0))
    }

    #[inline]
    fn count_down(header: &mut [u8], mut delta: Delta) {
        let Some(header) = header.first_chunk_mut() else { return };
        header[8] -= 1;
        // The word that the hop limit is the high byte of, whatever else it holds.
        delta.replace_u16(0x0100, 0);
        ipv4::update_checksum(header, delta);
    }

    #[inline]
    fn at(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<4>().map(|octets| Self::from(*octets))
    }

    #[inline]
    fn replace(self, bytes: &mut [u8], delta: &mut Delta) {
        if let Some(field) = bytes.first_chunk_mut() {
            delta.replace_bytes(*field, self.octets());
            *field = self.octets();
        }
    }

    #[inline]
    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }
}

impl Address for Ipv6Addr {
    const FAMILY: AddressFamily = AddressFamily::Ipv6;
    const HEADER_LEN: usize = ipv6::HEADER_LEN;
    const ADDRESSES: usize = 8;

    #[inline]
    fn read(header: &[u8]) -> Option<(u16, u8, u8)> {
        let &[first, _, _, _, l0, l1, protocol, hop_limit] = header.first_chunk()?;
        let len = u16::from_be_bytes([l0, l1]).checked_add(ipv6::HEADER_LEN as u16)?;
        (first >> 4 == 6).then_some((len, hop_limit, protocol))
    }

    fn class(header: &[u8]) -> Option<(u8, bool)> {
        let &[a, b] = header.first_chunk()?;
        Some((a << 4 | b >> 4, false))
    }

    #[inline]
    fn count_down(header: &mut [u8], _: Delta) {
        if let Some(hop_limit) = header.get_mut(7) {
            *hop_limit -= 1;
        }
    }

    #[inline]
    fn at(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<16>().map(|octets| Self::from(*octets))
    }

    #[inline]
    fn replace(self, bytes: &mut [u8], delta: &mut Delta) {
        if let Some(field) = bytes.first_chunk_mut::<16>() {
            delta.replace_ipv6(Self::from(*field), self);
            *field = self.octets();
        }
    }

    #[inline]
    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }
}

/// Two NOPs, and timestamps of ten bytes.
const TIMESTAMPS: [u8; 4] = [1, 1, 8, 10];
const TCP: u8 = Protocol::Tcp.number();
const UDP: u8 = Protocol::Udp.number();
