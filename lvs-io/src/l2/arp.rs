//! ARP for IPv4 over Ethernet (RFC 826), read and written.

use std::net::Ipv4Addr;

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};

use super::address::MacAddress;
use super::message::{Advertisement, LinkMessage, Solicitation};

/// Length of every message.
pub(super) const LEN: usize = 28;

/// What the message says; `None` if it is malformed or says nothing.
pub(super) fn parse(bytes: &[u8]) -> Option<LinkMessage> {
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: sender_mac,
        source_protocol_addr: sender,
        target_hardware_addr: target_mac,
        target_protocol_addr: target,
    } = ArpRepr::parse(&ArpPacket::new_checked(bytes).ok()?).ok()?
    else {
        return None;
    };
    let sender_mac = MacAddress(sender_mac.0);
    if !sender_mac.is_unicast() {
        return None;
    }
    let advertisement = |is_solicited| {
        let mac = Some(sender_mac);
        LinkMessage::Advertisement(Advertisement { address: sender.into(), mac, is_solicited, overrides: true })
    };
    match operation {
        // RFC 5227 §2.3: a request for the sender's own address announces it.
        ArpOperation::Request if sender == target => Some(advertisement(false)),
        ArpOperation::Request => {
            let sender = (!sender.is_unspecified()).then_some(sender.into());
            Some(LinkMessage::Solicitation(Solicitation { target: target.into(), sender, sender_mac }))
        }
        ArpOperation::Reply if !sender.is_unspecified() => {
            Some(advertisement(sender != target && MacAddress(target_mac.0).is_unicast()))
        }
        _ => None,
    }
}

/// An ARP message to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arp {
    pub is_reply: bool,
    pub sender_mac: MacAddress,
    pub sender: Ipv4Addr,
    /// Zero where unknown.
    pub target_mac: MacAddress,
    pub target: Ipv4Addr,
}

impl Arp {
    pub(super) fn emit(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let repr = ArpRepr::EthernetIpv4 {
            operation: if self.is_reply { ArpOperation::Reply } else { ArpOperation::Request },
            source_hardware_addr: EthernetAddress(self.sender_mac.0),
            source_protocol_addr: self.sender,
            target_hardware_addr: EthernetAddress(self.target_mac.0),
            target_protocol_addr: self.target,
        };
        repr.emit(&mut ArpPacket::new_unchecked(&mut bytes[..]));
        bytes
    }
}
