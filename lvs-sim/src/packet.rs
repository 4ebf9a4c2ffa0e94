//! Raw packets: made for injection, and looked at where the network must know what it carries.

use std::net::SocketAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, IpRepr, IpVersion,
    Ipv4Packet, Ipv6Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

/// A TCP SYN with a valid checksum, as a stranger would send it.
///
/// # Panics
/// If the two addresses are not of one family.
///
/// ```
/// let syn = lvs_sim::syn("203.0.113.9:1234".parse().unwrap(), "192.0.2.80:80".parse().unwrap(), 7);
/// assert_eq!(syn.len(), 44);
/// ```
pub fn syn(from: SocketAddr, to: SocketAddr, sequence_number: u32) -> Vec<u8> {
    let segment = TcpRepr {
        src_port: from.port(),
        dst_port: to.port(),
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(sequence_number as i32),
        ack_number: None,
        window_len: 64_240,
        window_scale: None,
        max_seg_size: Some(1_460),
        sack_permitted: false,
        sack_ranges: [None, None, None],
        timestamp: None,
        payload: &[],
    };
    let (source, target) = (IpAddress::from(from.ip()), IpAddress::from(to.ip()));
    let ip = IpRepr::new(source, target, IpProtocol::Tcp, segment.buffer_len(), 64);
    let mut bytes = vec![0; ip.buffer_len()];
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut bytes[..], &checksums);
    let mut tcp = TcpPacket::new_unchecked(&mut bytes[ip.header_len()..]);
    segment.emit(&mut tcp, &source, &target, &checksums);
    bytes
}

/// What the network wants to know of a TCP segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TcpSegment {
    pub(crate) source: SocketAddr,
    pub(crate) target: SocketAddr,
    /// It opens a connection: SYN without ACK.
    pub(crate) opens: bool,
    pub(crate) fin: bool,
    pub(crate) sequence_number: TcpSeqNumber,
}

/// Looks into an unfragmented TCP packet without extension headers; `None` for anything else.
pub(crate) fn tcp_segment(packet: &[u8]) -> Option<TcpSegment> {
    let (source, target, payload): (IpAddress, IpAddress, &[u8]) = match IpVersion::of_packet(packet).ok()? {
        IpVersion::Ipv4 => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            let is_tcp = ip.next_header() == IpProtocol::Tcp && ip.frag_offset() == 0 && !ip.more_frags();
            (ip.src_addr().into(), ip.dst_addr().into(), is_tcp.then(|| ip.payload())?)
        }
        IpVersion::Ipv6 => {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            let is_tcp = ip.next_header() == IpProtocol::Tcp;
            (ip.src_addr().into(), ip.dst_addr().into(), is_tcp.then(|| ip.payload())?)
        }
    };
    let tcp = TcpPacket::new_checked(payload).ok()?;
    Some(TcpSegment {
        source: SocketAddr::new(source.into(), tcp.src_port()),
        target: SocketAddr::new(target.into(), tcp.dst_port()),
        opens: tcp.syn() && !tcp.ack() && !tcp.rst(),
        fin: tcp.fin(),
        sequence_number: tcp.seq_number(),
    })
}

/// Makes a packet into a FIN with this sequence number; `segment` is what [`tcp_segment`] found in it.
pub(crate) fn make_fin(packet: &mut [u8], segment: &TcpSegment, sequence_number: TcpSeqNumber) {
    let is_ipv4 = segment.source.is_ipv4();
    let header_len = if is_ipv4 { usize::from(Ipv4Packet::new_unchecked(&packet[..]).header_len()) } else { 40 };
    let mut tcp = TcpPacket::new_unchecked(&mut packet[header_len..]);
    tcp.set_seq_number(sequence_number);
    tcp.set_fin(true);
    tcp.fill_checksum(&segment.source.ip().into(), &segment.target.ip().into());
}

/// The flow an ICMP "destination unreachable" with a valid checksum complains about: source and destination of the TCP
/// segment or UDP datagram it quotes (RFC 792, RFC 4443 §3.1). Fragmentation needed is no such complaint.
pub(crate) fn unreachable_flow(packet: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let checksums = ChecksumCapabilities::default();
    let (source, target, quoted): (IpAddress, IpAddress, &[u8]) = match IpVersion::of_packet(packet).ok()? {
        IpVersion::Ipv4 => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            let icmp = (ip.next_header() == IpProtocol::Icmp).then(|| ip.payload())?;
            match Icmpv4Repr::parse(&Icmpv4Packet::new_checked(icmp).ok()?, &checksums).ok()? {
                Icmpv4Repr::DstUnreachable { reason, header, data } if reason != Icmpv4DstUnreachable::FragRequired => {
                    (header.src_addr.into(), header.dst_addr.into(), data)
                }
                _ => return None,
            }
        }
        IpVersion::Ipv6 => {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            let icmp = (ip.next_header() == IpProtocol::Icmpv6).then(|| ip.payload())?;
            let icmp = Icmpv6Packet::new_checked(icmp).ok()?;
            match Icmpv6Repr::parse(&ip.src_addr(), &ip.dst_addr(), &icmp, &checksums).ok()? {
                Icmpv6Repr::DstUnreachable { header, data, .. } => {
                    (header.src_addr.into(), header.dst_addr.into(), data)
                }
                _ => return None,
            }
        }
    };
    let port = |at| quoted.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    Some((SocketAddr::new(source.into(), port(0)?), SocketAddr::new(target.into(), port(2)?)))
}

/// Where a packet wants to go.
pub(crate) fn destination(packet: &[u8]) -> Option<std::net::IpAddr> {
    match IpVersion::of_packet(packet).ok()? {
        IpVersion::Ipv4 => Some(Ipv4Packet::new_checked(packet).ok()?.dst_addr().into()),
        IpVersion::Ipv6 => Some(Ipv6Packet::new_checked(packet).ok()?.dst_addr().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_is_recognised_by_its_endpoints_in_both_families() {
        for (from, to) in [("203.0.113.9:1234", "192.0.2.80:80"), ("[2001:db8::9]:1234", "[2001:db8::80]:80")] {
            let (source, target) = (from.parse().unwrap(), to.parse().unwrap());
            let sequence_number = TcpSeqNumber(1);
            let segment = TcpSegment { source, target, opens: true, fin: false, sequence_number };
            assert_eq!(tcp_segment(&syn(source, target, 1)), Some(segment));
        }
    }
}
