//! Tunnels to real servers, both ends: IP in IP, GRE and GUE in every combination of address families.
//! This file says what a tunnel is; the way in is in `encapsulate`, the way out of one packet in `decapsulate`, of
//! packets in parts in `end`, what stands between the two IP headers in `gre` and `gue`, the rules for congestion marks
//! in `ecn`. Sources: RFC 2003, RFC 2473, RFC 2784, RFC 6040, draft-ietf-intarea-gue; recordings `tun_*`.

mod decapsulate;
mod ecn;
mod encapsulate;
mod end;
pub(crate) mod gre;
pub(crate) mod gue;

use core::net::IpAddr;

pub use self::decapsulate::{Accepts, decapsulate};
pub use self::encapsulate::encapsulate;
pub(crate) use self::encapsulate::{Inner, Plan, check};
pub use self::end::{EndCounters, Ending, Joined, TunnelEnd};
use crate::drop_reason::DropReason;
use crate::flow::{AddressFamily, Protocol};
use crate::packet::ChecksumOffload;
use crate::service::{TunnelChecksum, TunnelConfig, TunnelKind};
use crate::wire::{checksum, ipv4, ipv6, read_u16};

/// The outside of a tunnel: everything [`encapsulate`] does not find in the packet itself.
///
/// ```
/// use lvs_core::service::TunnelConfig;
/// use lvs_core::tunnel::{Accepts, Tunnel, decapsulate, encapsulate};
/// use lvs_core::wire::parse::parse;
/// use lvs_core::{HEADROOM, PacketBuf};
/// // 203.0.113.7:1024 > 192.0.2.1:80 UDP "hi", checksum none
/// let datagram = [
///     0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0x7c, 0xc6, 203, 0, 113, 7, 192, 0, 2, 1,
///     4, 0, 0, 80, 0, 10, 0, 0, b'h', b'i',
/// ];
/// let mut storage = [0; HEADROOM + 30];
/// storage[HEADROOM..].copy_from_slice(&datagram);
/// let mut packet = PacketBuf::new(&mut storage, HEADROOM, 30);
///
/// let ipip = TunnelConfig::default();
/// let tunnel = Tunnel::new(ipip, "10.0.0.254".parse().unwrap(), "10.0.0.2".parse().unwrap());
/// let headers = parse(packet.bytes()).unwrap();
/// encapsulate(&mut packet, &headers, &tunnel).unwrap();
/// assert_eq!(packet.len(), 50);
///
/// let accepts = Accepts { ipip: true, ..Accepts::default() };
/// assert_eq!(decapsulate(&mut packet, &accepts), Ok(Some(ipip.kind)));
/// assert_eq!(packet.bytes(), datagram);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tunnel {
    /// Encapsulation, port and checksum.
    pub config: TunnelConfig,
    /// Outer source: the director's own address.
    pub source: IpAddr,
    /// Outer destination: the real server. Of the source's family.
    pub destination: IpAddr,
    /// UDP source port, for GUE: the same for all packets of a flow, so that routers keep them on one path.
    pub source_port: u16,
    /// Identification of an outer packet that may be fragmented; IPv4 takes the lower half of it.
    pub identification: u32,
    /// Longest packet the way to the destination takes, in bytes. An outer IPv6 packet that is longer gets a fragment
    /// header, so that whoever sends it can split it.
    pub mtu: u16,
    /// Whether an inner IPv4 packet's DF is copied outside (path-MTU discovery through the tunnel).
    pub copies_dont_fragment: bool,
    /// What only the path knows, so that an ICMP error that quotes it is known to come from there: the identification
    /// of an outer IPv4 packet with DF (lower 16 bits), which means nothing else (RFC 6864 §4.1); the flow label of an
    /// outer IPv6 packet (lower 20 bits). 0, as in Linux: none.
    pub proof: u32,
}

impl Tunnel {
    /// A tunnel over a way that takes packets of any length; DF is copied.
    pub const fn new(config: TunnelConfig, source: IpAddr, destination: IpAddr) -> Self {
        Self {
            config,
            source,
            destination,
            source_port: 0,
            identification: 0,
            mtu: u16::MAX,
            copies_dont_fragment: true,
            proof: 0,
        }
    }

    /// Bytes a packet with this checksum state grows by, a fragment header apart.
    #[inline]
    pub fn overhead(&self, checksum: ChecksumOffload) -> usize {
        ip_header_len(self.destination) + self.tunnel_header_len(self.is_remote(checksum))
    }

    #[inline]
    fn tunnel_header_len(&self, is_remote: bool) -> usize {
        match self.config.kind {
            TunnelKind::Ipip => 0,
            TunnelKind::Gre => gre::header_len(self.config.checksum == TunnelChecksum::Full),
            TunnelKind::Gue => gue::header_len(is_remote),
        }
    }

    /// Whether the receiver is left to compute the inner checksum: only where it is still to be computed at all.
    #[inline]
    fn is_remote(&self, checksum: ChecksumOffload) -> bool {
        self.config.kind == TunnelKind::Gue
            && self.config.checksum == TunnelChecksum::Remote
            && checksum != ChecksumOffload::Full
    }
}

/// A checksum that is still to be computed: where the summed bytes start, and where the checksum goes.
#[derive(Clone, Copy)]
struct Partial {
    start: usize,
    field: usize,
}

impl Partial {
    /// What the offload context says of a packet of `len` bytes.
    #[inline]
    fn read(offload: ChecksumOffload, len: usize) -> Result<Option<Self>, DropReason> {
        let ChecksumOffload::Partial { start, offset } = offload else { return Ok(None) };
        let partial = Self { start: start.into(), field: usize::from(start) + usize::from(offset) };
        if partial.start % 2 != 0 || partial.field + 2 > len {
            return Err(DropReason::BadOffload);
        }
        Ok(Some(partial))
    }

    fn moved_by(self, count: usize) -> Self {
        Self { start: self.start + count, field: self.field + count }
    }
}

/// The sum of `bytes` as they will be once the device has filled in a checksum that was left to it.
fn sum_when_sent(bytes: &[u8], partial: Option<Partial>) -> u32 {
    let Some(partial) = partial else { return checksum::sum(bytes) };
    // From `start` on, the bytes with their finished checksum sum to the complement of what the field holds now.
    let field = read_u16(bytes, partial.field).unwrap_or(0);
    checksum::sum(&bytes[..partial.start.min(bytes.len())]) + u32::from(!field)
}

const fn ip_header_len(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => ipv4::HEADER_LEN,
        IpAddr::V6(_) => ipv6::HEADER_LEN,
    }
}

/// The IANA number of a whole IP packet as payload.
const fn inner_protocol(family: AddressFamily) -> u8 {
    match family {
        AddressFamily::Ipv4 => IPV4_IN_IP,
        AddressFamily::Ipv6 => IPV6_IN_IP,
    }
}

/// RFC 2003.
pub(crate) const IPV4_IN_IP: u8 = 4;
/// RFC 2473.
pub(crate) const IPV6_IN_IP: u8 = 41;
const UDP: u8 = Protocol::Udp.number();
