//! Neighbour solicitations and advertisements (RFC 4861 §4.3, §4.4), read and written as whole IPv6 packets.

use std::net::{IpAddr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, HardwareAddress, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags,
    NdiscRepr, RawHardwareAddress,
};

use super::address::MacAddress;
use super::message::{Advertisement, LinkMessage, Solicitation};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Router solicitation to redirect: all of Neighbor Discovery.
const TYPES: std::ops::RangeInclusive<u8> = 133..=137;

/// RFC 4861 §3: only a packet nobody has routed has it.
const HOP_LIMIT: u8 = 255;

/// ff02::1.
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const HEADER_LEN: usize = 40;
/// ICMPv6 header, target, and one option with an Ethernet address.
const MESSAGE_LEN: usize = 32;
/// Length of every packet written here.
pub(super) const LEN: usize = HEADER_LEN + MESSAGE_LEN;

/// Whether the IPv6 packet is about the link. Such packets are never forwarded.
pub(super) fn is_neighbor_discovery(packet: &[u8]) -> bool {
    // RFC 4861 §6.1, §7.1: no extension header can come before.
    packet.get(6) == Some(&58) && packet.get(HEADER_LEN).is_some_and(|kind| TYPES.contains(kind))
}

/// What a Neighbor Discovery packet from `source_mac` says; `None` if it is malformed (RFC 4861 §7.1), or about
/// routers.
pub(super) fn parse(packet: &[u8], source_mac: MacAddress) -> Option<LinkMessage> {
    let packet = Ipv6Packet::new_checked(packet).ok()?;
    let (source, destination) = (packet.src_addr(), packet.dst_addr());
    let message = packet.payload();
    let is_whole = message.len() >= 24 && message[1] == 0 && packet.hop_limit() == HOP_LIMIT;
    if !is_whole || !matches!(message[0], SOLICITATION | ADVERTISEMENT) || source.is_multicast() {
        return None;
    }
    let message = Icmpv6Packet::new_checked(message).ok()?;
    let checked = ChecksumCapabilities::default();
    let Icmpv6Repr::Ndisc(message) = Icmpv6Repr::parse(&source, &destination, &message, &checked).ok()? else {
        return None;
    };
    match message {
        NdiscRepr::NeighborSolicit { target_addr: target, lladdr } if !target.is_multicast() => {
            if source.is_unspecified() {
                // RFC 4861 §7.1.1: asked of the group, and without an option.
                let is_good = lladdr.is_none() && destination == super::address::solicited_node(target);
                let sender_mac = source_mac;
                return is_good.then_some(LinkMessage::Solicitation(Solicitation {
                    target: target.into(),
                    sender: None,
                    sender_mac,
                }));
            }
            let sender_mac = lladdr.map_or(Some(source_mac), ethernet)?;
            let sender = Some(IpAddr::V6(source));
            Some(LinkMessage::Solicitation(Solicitation { target: target.into(), sender, sender_mac }))
        }
        NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr } if !target.is_multicast() => {
            let is_solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
            if is_solicited && destination.is_multicast() {
                return None;
            }
            let mac = match lladdr {
                Some(address) => Some(ethernet(address)?),
                None => None,
            };
            let overrides = flags.contains(NdiscNeighborFlags::OVERRIDE);
            let address = target.into();
            Some(LinkMessage::Advertisement(Advertisement { address, mac, is_solicited, overrides }))
        }
        _ => None,
    }
}

fn ethernet(address: RawHardwareAddress) -> Option<MacAddress> {
    let address = MacAddress(*address.as_bytes().first_chunk()?);
    address.is_unicast().then_some(address)
}

/// A message to be written, with `own_mac` in its option.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ndp {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub target: Ipv6Addr,
    pub own_mac: MacAddress,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Solicitation,
    /// Overrides what was known. `is_solicited`: it answers a question.
    Advertisement {
        is_solicited: bool,
    },
}

impl Ndp {
    pub(super) fn emit(&self) -> [u8; LEN] {
        let own = Some(RawHardwareAddress::from(HardwareAddress::Ethernet(EthernetAddress(self.own_mac.0))));
        let message = Icmpv6Repr::Ndisc(match self.kind {
            Kind::Solicitation => NdiscRepr::NeighborSolicit { target_addr: self.target, lladdr: own },
            Kind::Advertisement { is_solicited } => {
                let mut flags = NdiscNeighborFlags::OVERRIDE;
                flags.set(NdiscNeighborFlags::SOLICITED, is_solicited);
                NdiscRepr::NeighborAdvert { flags, target_addr: self.target, lladdr: own }
            }
        });
        let header = Ipv6Repr {
            src_addr: self.source,
            dst_addr: self.destination,
            next_header: IpProtocol::Icmpv6,
            payload_len: MESSAGE_LEN,
            hop_limit: HOP_LIMIT,
        };
        let mut bytes = [0; LEN];
        let mut packet = Ipv6Packet::new_unchecked(&mut bytes[..]);
        header.emit(&mut packet);
        let mut body = Icmpv6Packet::new_unchecked(packet.payload_mut());
        message.emit(&self.source, &self.destination, &mut body, &ChecksumCapabilities::default());
        bytes
    }
}
