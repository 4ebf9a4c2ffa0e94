//! A connection as it begins. That it is opened is `carry_out/open.rs`'s business.

use crate::connection::Connection;
use crate::director::decide::classify::FirstPacket;
use crate::director::tables::Tables;
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::service::{ForwardMethod, ServerId};
use crate::time::Instant;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl Tables<'_> {
    /// One-packet scheduling; not with FullNAT, where a reply finds its client through the connection only, and not for
    /// flows read from ICMP errors, whose translation needs the connection.
    pub(in crate::director) fn is_one_packet(&self, first: &FirstPacket, forward: ForwardMethod) -> bool {
        first.protocol == Protocol::Udp
            && !first.is_quoted
            && forward != ForwardMethod::FullNat
            && self.services.table.get(first.service).is_some_and(|service| service.config.one_packet)
    }
}

/// A connection as it begins.
pub(in crate::director) fn new_connection(
    now: Instant,
    first: &FirstPacket,
    real: Endpoint,
    forward: ForwardMethod,
    server: Option<ServerId>,
) -> Connection {
    let mut connection = Connection::new(first.protocol, first.client, first.destination, real, forward);
    connection.server = server;
    connection.mark = first.mark;
    connection.deadline = now + connection.timeout;
    connection
}

/// A connection past all servers, to the packet's own destination; shown with server 0.0.0.0:0.
pub(in crate::director) fn bypass_connection(now: Instant, first: &FirstPacket) -> Connection {
    let nowhere = match AddressFamily::of(first.destination.address) {
        AddressFamily::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    new_connection(now, first, Endpoint::new(nowhere, 0), ForwardMethod::Bypass, None)
}
