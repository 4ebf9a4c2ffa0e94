//! Writes whole frames into buffers: questions, answers and announcements, for ARP and Neighbor Discovery alike,
//! reports of groups, and packets. Knows who the station is and decides nothing but how a message looks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lvs_core::{Offload, PacketBuf};

use super::address::{MacAddress, solicited_node};
use super::arp::Arp;
use super::frame::{self, FrameHeader};
use super::message::Solicitation;
use super::mld::Report;
use super::ndp::{ALL_NODES, Kind, Ndp};
use super::neighbour::Waiting;

/// The station whose frames these are.
#[derive(Debug)]
pub(super) struct FrameWriter {
    pub mac: MacAddress,
    pub vlan: Option<u16>,
    pub source_ipv4: Ipv4Addr,
    pub source_ipv6: Ipv6Addr,
}

// Each function but the first writes into an empty buffer; `None` if it is too small.
impl FrameWriter {
    /// Puts the Ethernet header before a packet; `None`, and no change, without room.
    pub(super) fn frame(&self, packet: &mut PacketBuf<'_>, destination: MacAddress) -> Option<()> {
        let is_ipv6 = packet.bytes().first().is_some_and(|first| first >> 4 == 6);
        self.prepend(packet, destination, if is_ipv6 { frame::TYPE_IPV6 } else { frame::TYPE_IPV4 })
    }

    /// A packet to `destination`.
    pub(super) fn packet(&self, into: &mut PacketBuf<'_>, destination: MacAddress, packet: &Waiting) -> Option<()> {
        fill(into, &packet.bytes)?;
        (into.offload, into.link_priority) = (packet.offload, packet.link_priority);
        self.frame(into, destination)
    }

    /// Who has `target`? Asked of everybody, or of the station that had it.
    pub(super) fn question(&self, into: &mut PacketBuf<'_>, target: IpAddr, to: Option<MacAddress>) -> Option<()> {
        match target {
            IpAddr::V4(target) => {
                let unknown = MacAddress([0; 6]);
                let (sender_mac, sender) = (self.mac, self.source_ipv4);
                let message = Arp { is_reply: false, sender_mac, sender, target_mac: to.unwrap_or(unknown), target };
                self.arp(into, to.unwrap_or(MacAddress::BROADCAST), &message)
            }
            IpAddr::V6(target) => {
                let (source, own_mac, kind) = (self.source_ipv6, self.mac, Kind::Solicitation);
                let destination = if to.is_some() { target } else { solicited_node(target) };
                self.ndp(into, to, &Ndp { source, destination, target, own_mac, kind })
            }
        }
    }

    /// It is here.
    pub(super) fn answer(&self, into: &mut PacketBuf<'_>, question: &Solicitation) -> Option<()> {
        let (to, own_mac) = (question.sender_mac, self.mac);
        match (question.target, question.sender) {
            (IpAddr::V4(address), sender) => {
                let Some(IpAddr::V4(target)) = sender.or(Some(Ipv4Addr::UNSPECIFIED.into())) else { return None };
                let message = Arp { is_reply: true, sender_mac: own_mac, sender: address, target_mac: to, target };
                self.arp(into, to, &message)
            }
            (IpAddr::V6(address), Some(IpAddr::V6(sender))) => {
                let kind = Kind::Advertisement { is_solicited: true };
                self.ndp(into, Some(to), &Ndp { source: address, destination: sender, target: address, own_mac, kind })
            }
            // RFC 4861 §7.2.4: who has no address yet is told with everybody else.
            (address, _) => self.announcement(into, address),
        }
    }

    /// It is here now, whoever had it before.
    pub(super) fn announcement(&self, into: &mut PacketBuf<'_>, address: IpAddr) -> Option<()> {
        match address {
            IpAddr::V4(address) => {
                let (sender_mac, target_mac) = (self.mac, MacAddress([0; 6]));
                let message = Arp { is_reply: false, sender_mac, sender: address, target_mac, target: address };
                self.arp(into, MacAddress::BROADCAST, &message)
            }
            IpAddr::V6(address) => {
                let (own_mac, kind) = (self.mac, Kind::Advertisement { is_solicited: false });
                self.ndp(into, None, &Ndp { source: address, destination: ALL_NODES, target: address, own_mac, kind })
            }
        }
    }

    /// Which groups this station hears. RFC 3810 §5.2.13: from its link-local address.
    pub(super) fn report(&self, into: &mut PacketBuf<'_>, report: &Report) -> Option<()> {
        let (packet, destination) = report.emit(self.mac.link_local());
        fill(into, &packet)?;
        self.frame(into, MacAddress::of_group(destination))
    }

    fn arp(&self, into: &mut PacketBuf<'_>, to: MacAddress, message: &Arp) -> Option<()> {
        fill(into, &message.emit())?;
        self.prepend(into, to, frame::TYPE_ARP)
    }

    fn ndp(&self, into: &mut PacketBuf<'_>, to: Option<MacAddress>, message: &Ndp) -> Option<()> {
        fill(into, &message.emit())?;
        self.frame(into, to.unwrap_or(MacAddress::of_group(message.destination)))
    }

    fn prepend(&self, packet: &mut PacketBuf<'_>, destination: MacAddress, kind: u16) -> Option<()> {
        let priority = packet.link_priority;
        frame::prepend(packet, &FrameHeader { destination, source: self.mac, kind, vlan: self.vlan, priority })
    }
}

fn fill(into: &mut PacketBuf<'_>, bytes: &[u8]) -> Option<()> {
    into.set_len(bytes.len())?;
    into.bytes_mut().copy_from_slice(bytes);
    (into.offload, into.link_priority) = (Offload::default(), 0);
    Some(())
}
