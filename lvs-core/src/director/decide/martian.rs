//! Sources that no packet from outside may have: addresses that are never a host's, and the director's own. What such a
//! packet asks a server is answered to the director itself, or to nobody; two echo services would talk for ever.
//! RFC 1812 §5.3.7, RFC 4291 §2.5 and §2.7; what Linux's routing does with them is recorded (`x_martian_al0`,
//! `x_martian_al1`).

use crate::director::decide::classify::FirstPacket;
use crate::director::decide::classify::Outcome;
use crate::director::tables::Tables;
use crate::drop_reason::DropReason;
use crate::packet::PacketBuf;
use core::net::IpAddr;

impl Tables<'_> {
    /// A packet that a service takes, unless its source could not have sent it. Only asked of packets that open a
    /// connection: a known one had a client.
    pub(in crate::director) fn unless_martian(&self, first: FirstPacket, packet: &PacketBuf<'_>) -> Outcome {
        let source = first.client.address;
        let is_own = || self.is_own_source(source, first.destination.address, packet.from_host);
        if is_no_source(source) || (!self.site.config.settings.accept_local && is_own()) {
            return Outcome::Drop(DropReason::MartianSource);
        }
        Outcome::First(first)
    }

    /// Whether the source is an address of the director. What its own host sends may have the host's, a virtual one that
    /// the host has too included. But what the host sends may come from outside and only be routed by it: a virtual
    /// address that is none of the host's is as much a forgery there as elsewhere.
    fn is_own_source(&self, source: IpAddr, destination: IpAddr, from_host: bool) -> bool {
        let is_hosts = self.is_own_address(source) || self.site.config.host_addresses.contains(&source);
        match from_host {
            true => !is_hosts && (source == destination || self.is_service_address(source)),
            false => is_hosts || source == destination || self.is_service_address(source),
        }
    }
}

/// Whether this is no address that a packet from another host may come from. 240/4 may, as in Linux.
pub(in crate::director) fn is_no_source(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.octets()[0] == 0 || address.is_loopback() || address.is_multicast() || address.is_broadcast()
        }
        IpAddr::V6(address) => {
            address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address.to_ipv4_mapped().is_some()
        }
    }
}
