//! Numbers, addresses and names as bytes, little end first. What is read is judged: whatever is not there, or not
//! meant, reads as `None`.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::service::{ForwardMethod, ServiceKey};

/// Writes into a buffer of the caller's. What has no room is left out, and `is_full` says so.
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
    is_full: bool,
}

impl<'a> Writer<'a> {
    pub fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0, is_full: false }
    }

    pub fn len(&self) -> usize {
        self.at
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        match self.out.get_mut(self.at..self.at + bytes.len()) {
            Some(place) if !self.is_full => {
                place.copy_from_slice(bytes);
                self.at += bytes.len();
            }
            _ => self.is_full = true,
        }
    }

    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn u24(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes()[..3]);
    }

    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn duration(&mut self, value: Duration) {
        self.u64(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX));
    }

    /// An address whose family is told elsewhere.
    pub fn bare_address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.bytes(&address.octets()),
            IpAddr::V6(address) => self.bytes(&address.octets()),
        }
    }

    pub fn address(&mut self, address: IpAddr) {
        self.u8(if address.is_ipv4() { 4 } else { 6 });
        self.bare_address(address);
    }

    pub fn endpoint(&mut self, endpoint: Endpoint) {
        self.address(endpoint.address);
        self.u16(endpoint.port);
    }

    pub fn service(&mut self, key: &ServiceKey) {
        match key {
            ServiceKey::Address { protocol, address, port } => {
                self.u8(protocol.number());
                self.endpoint(Endpoint::new(*address, *port));
            }
            ServiceKey::FwMark { family, mark } => {
                self.u8(0);
                self.u8(if *family == AddressFamily::Ipv4 { 4 } else { 6 });
                self.u32(*mark);
            }
        }
    }

    /// A row of at most 255 bytes, its length before it. One that has no room is taken back; returns whether it had.
    pub fn row(&mut self, write: impl FnOnce(&mut Self)) -> bool {
        let start = self.at;
        self.u8(0);
        write(self);
        let len = u8::try_from(self.at.saturating_sub(start + 1));
        match len {
            Ok(len) if !self.is_full => self.out[start] = len,
            _ => self.at = start,
        }
        !self.is_full
    }

    /// The same of a row of at most 65,535 bytes.
    pub fn long_row(&mut self, write: impl FnOnce(&mut Self)) -> bool {
        let start = self.at;
        self.u16(0);
        write(self);
        let len = u16::try_from(self.at.saturating_sub(start + 2));
        match len {
            Ok(len) if !self.is_full => self.out[start..start + 2].copy_from_slice(&len.to_le_bytes()),
            _ => self.at = start,
        }
        !self.is_full
    }
}

/// Reads what a [`Writer`] has written, or something else.
#[derive(Clone)]
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u24(&mut self) -> Option<u32> {
        self.array::<3>().map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]))
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn duration(&mut self) -> Option<Duration> {
        self.u64().map(Duration::from_nanos)
    }

    pub fn bare_address(&mut self, family: AddressFamily) -> Option<IpAddr> {
        match family {
            AddressFamily::Ipv4 => self.array::<4>().map(|octets| Ipv4Addr::from(octets).into()),
            AddressFamily::Ipv6 => self.array::<16>().map(|octets| Ipv6Addr::from(octets).into()),
        }
    }

    fn family(&mut self) -> Option<AddressFamily> {
        match self.u8()? {
            4 => Some(AddressFamily::Ipv4),
            6 => Some(AddressFamily::Ipv6),
            _ => None,
        }
    }

    pub fn address(&mut self) -> Option<IpAddr> {
        let family = self.family()?;
        self.bare_address(family)
    }

    pub fn endpoint(&mut self) -> Option<Endpoint> {
        Some(Endpoint::new(self.address()?, self.u16()?))
    }

    pub fn service(&mut self) -> Option<ServiceKey> {
        match self.u8()? {
            0 => Some(ServiceKey::FwMark { family: self.family()?, mark: self.u32()? }),
            number => {
                let protocol = Protocol::from_number(number)?;
                let Endpoint { address, port } = self.endpoint()?;
                Some(ServiceKey::Address { protocol, address, port })
            }
        }
    }

    /// A row of [`Writer::row`]; what is left of it after its reader belongs to a newer version.
    pub fn row(&mut self) -> Option<Reader<'a>> {
        let len = self.u8()?;
        self.bytes(len.into()).map(Reader)
    }

    /// A row of [`Writer::long_row`].
    pub fn long_row(&mut self) -> Option<Reader<'a>> {
        let len = self.u16()?;
        self.bytes(len.into()).map(Reader)
    }
}

/// Methods by their numbers in a snapshot.
const METHODS: [ForwardMethod; 6] = [
    ForwardMethod::Nat,
    ForwardMethod::DirectRouting,
    ForwardMethod::Tunnel,
    ForwardMethod::FullNat,
    ForwardMethod::Local,
    ForwardMethod::Bypass,
];

/// A method's number.
pub(crate) fn method_number(method: ForwardMethod) -> u8 {
    METHODS.iter().position(|known| *known == method).unwrap_or_default() as u8
}

/// The method with this number.
pub(crate) fn method(number: u8) -> Option<ForwardMethod> {
    METHODS.get(usize::from(number)).copied()
}
