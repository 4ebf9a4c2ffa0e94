//! Telling a server behind FullNAT who its client is: the TCP option of TOA, the header of UOA, those of the PROXY
//! protocol. Layouts: TOA and UOA as DPVS sends them; PROXY protocol versions 1 and 2 by HAProxy.

use core::fmt::Write;
use core::net::IpAddr;

use crate::flow::{Endpoint, Protocol};
use crate::service::ClientAddress;

/// Kinds of the option that carries a client's address: DPVS's for both families, and the older one for IPv6.
pub(crate) const TOA_KINDS: [u8; 2] = [254, 253];

/// The IP protocol of [`uoa_header`]; the kind of the option in it.
pub(crate) const UOA_PROTOCOL: u8 = 248;
/// See [`UOA_PROTOCOL`].
pub(crate) const UOA_OPTION: u8 = 31;

/// Longest preamble: version 1 between two IPv6 addresses written in full.
const PREAMBLE_LEN_MAX: usize = 108;

/// Bytes put before or into what a client sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Inserted {
    bytes: [u8; PREAMBLE_LEN_MAX],
    len: usize,
}

impl Inserted {
    const NOTHING: Self = Self { bytes: [0; PREAMBLE_LEN_MAX], len: 0 };

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    fn push_address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.push(&address.octets()),
            IpAddr::V6(address) => self.push(&address.octets()),
        }
    }
}

impl Write for Inserted {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// The TCP option with the client's address: 8 bytes, or 20 for an IPv6 client.
pub(crate) fn option(client: Endpoint) -> Inserted {
    let mut option = Inserted::NOTHING;
    option.push(&[TOA_KINDS[0], if client.address.is_ipv4() { 8 } else { 20 }]);
    option.push(&client.port.to_be_bytes());
    option.push_address(client.address);
    option
}

/// What comes between IP and UDP header: 12 bytes, or 24 for an IPv6 client.
///
/// ```text
/// |version|  0    | next protocol |    length of all of this      |   version 1: IPv4 client, 2: IPv6 client
/// |  option 31    | option length |         client's port         |   option length: 8 or 20
/// |                      client's address ...
/// ```
pub(crate) fn uoa_header(client: Endpoint) -> Inserted {
    let mut header = Inserted::NOTHING;
    let (version, len) = if client.address.is_ipv4() { (1, 8) } else { (2, 20) };
    header.push(&[version << 4, Protocol::Udp.number(), 0, 4 + len]);
    header.push(&[UOA_OPTION, len]);
    header.push(&client.port.to_be_bytes());
    header.push_address(client.address);
    header
}

/// What comes before the first byte of a client's data, or before each of its datagrams; empty where nothing does.
pub(crate) fn preamble(kind: ClientAddress, protocol: Protocol, client: Endpoint, to: Endpoint) -> Inserted {
    match (kind, protocol) {
        (ClientAddress::ProxyV1, Protocol::Tcp) => proxy_v1(client, to),
        (ClientAddress::ProxyV2, Protocol::Tcp | Protocol::Udp) => proxy_v2(protocol, client, to),
        _ => Inserted::NOTHING,
    }
}

fn proxy_v1(client: Endpoint, to: Endpoint) -> Inserted {
    let mut line = Inserted::NOTHING;
    let family = if client.address.is_ipv4() { '4' } else { '6' };
    // Writing into a buffer that is long enough cannot fail.
    let _ = write!(line, "PROXY TCP{family} {} {} {} {}\r\n", client.address, to.address, client.port, to.port);
    line
}

fn proxy_v2(protocol: Protocol, client: Endpoint, to: Endpoint) -> Inserted {
    let mut header = Inserted::NOTHING;
    header.push(b"\r\n\r\n\0\r\nQUIT\n");
    let (family, len) = if client.address.is_ipv4() { (0x10, 12) } else { (0x20, 36) };
    let transport = if protocol == Protocol::Udp { 2 } else { 1 };
    // Version 2, command PROXY.
    header.push(&[0x21, family | transport, 0, len]);
    header.push_address(client.address);
    header.push_address(to.address);
    header.push(&client.port.to_be_bytes());
    header.push(&to.port.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(address: &str, port: u16) -> Endpoint {
        Endpoint::new(address.parse().unwrap(), port)
    }

    #[test]
    fn the_longest_preamble_fits() {
        let long = endpoint("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65_535);
        let line = preamble(ClientAddress::ProxyV1, Protocol::Tcp, long, long);
        let address = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(line.as_bytes(), alloc::format!("PROXY TCP6 {address} {address} 65535 65535\r\n").as_bytes());
    }

    #[test]
    fn uoa_says_the_clients_family_and_what_follows() {
        let header = uoa_header(endpoint("203.0.113.7", 1024));
        assert_eq!(header.as_bytes(), [0x10, 17, 0, 12, 31, 8, 4, 0, 203, 0, 113, 7]);
        let header = uoa_header(endpoint("2001:db8::7", 1024));
        let expected = [0x20, 17, 0, 24, 31, 20, 4, 0, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        assert_eq!(header.as_bytes(), expected);
    }

    #[test]
    fn version_2_says_family_and_transport() {
        let (client, to) = (endpoint("203.0.113.7", 1024), endpoint("192.0.2.1", 80));
        let header = preamble(ClientAddress::ProxyV2, Protocol::Udp, client, to);
        let expected = [
            0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x12, 0, 12, 203, 0, 113, 7,
            192, 0, 2, 1, 4, 0, 0, 80,
        ];
        assert_eq!(header.as_bytes(), expected);
        assert_eq!(preamble(ClientAddress::ProxyV1, Protocol::Udp, client, to).as_bytes(), [0u8; 0]);
    }
}
