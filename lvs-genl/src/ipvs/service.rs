//! A virtual service in the family's attributes.

use alloc::string::String;

use lvs_core::service::stats::Statistics;

use super::{Side, address_of, bytes_of, family_of, known, name, statistics};
use crate::additions::ServiceAdditions;
use crate::errno::Errno;
use crate::wire::{Attributes, Writer};
use lvs_core::{AddressFamily, Protocol, ServiceKey};

/// A service's flags with the mask of those that count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServiceFlags {
    /// The flags.
    pub flags: u32,
    /// Which of them count; the others stay as they are.
    pub mask: u32,
}

impl ServiceFlags {
    /// Clients stay with their server.
    pub const PERSISTENT: u32 = 1;
    /// The service is in the table; set in answers.
    pub const HASHED: u32 = 2;
    /// Each datagram is scheduled by itself.
    pub const ONE_PACKET: u32 = 4;
    /// The first of the three scheduler flags.
    pub const SCHEDULER_SHIFT: u32 = 3;
    /// All three scheduler flags.
    pub const SCHEDULER: u32 = 7 << Self::SCHEDULER_SHIFT;

    /// All flags count.
    pub const fn all(flags: u32) -> Self {
        Self { flags, mask: u32::MAX }
    }

    /// What becomes of flags that are there.
    pub const fn over(self, before: u32) -> u32 {
        before & !self.mask | self.flags & self.mask
    }
}

/// A virtual service, as its attributes say.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ServiceMessage {
    /// Address family: 2 for IPv4, 10 for IPv6.
    pub family: Option<u16>,
    /// Protocol number.
    pub protocol: Option<u16>,
    /// Virtual address, IPv4 in the first four bytes.
    pub address: Option<[u8; 16]>,
    /// Virtual port.
    pub port: Option<u16>,
    /// Firewall mark; with it protocol, address and port say nothing.
    pub mark: Option<u32>,
    /// Name of the scheduler.
    pub scheduler: Option<String>,
    /// Name of the persistence engine; empty is none.
    pub engine: Option<String>,
    /// Flags.
    pub flags: Option<ServiceFlags>,
    /// Persistence timeout in seconds.
    pub timeout_s: Option<u32>,
    /// IPv4: the mask in network order. IPv6: the prefix length in host order.
    pub netmask: Option<[u8; 4]>,
    /// Counters and rates, in answers. Requests carry none.
    pub statistics: Option<Statistics>,
    /// What IPVS never had.
    pub additions: ServiceAdditions,
}

impl ServiceMessage {
    /// Only what says which service it is.
    pub fn of_key(key: &ServiceKey) -> Self {
        match *key {
            ServiceKey::Address { protocol, address, port } => Self {
                family: Some(family_of(address)),
                protocol: Some(protocol.number().into()),
                address: Some(bytes_of(address)),
                port: Some(port),
                ..Self::default()
            },
            ServiceKey::FwMark { family, mark } => Self {
                family: Some(match family {
                    AddressFamily::Ipv4 => super::AF_INET,
                    AddressFamily::Ipv6 => super::AF_INET6,
                }),
                mark: Some(mark),
                ..Self::default()
            },
        }
    }

    /// Which service it is; `None` if its protocol is one that no service has.
    ///
    /// # Errors
    /// [`Errno::INVALID`] if a part of the key is missing, [`Errno::FAMILY`] if it is neither IPv4 nor IPv6.
    pub fn key(&self) -> Result<Option<ServiceKey>, Errno> {
        let family = self.family.ok_or(Errno::INVALID)?;
        if let Some(mark) = self.mark {
            let family = match family {
                super::AF_INET => AddressFamily::Ipv4,
                super::AF_INET6 => AddressFamily::Ipv6,
                _ => return Err(Errno::FAMILY),
            };
            return Ok(Some(ServiceKey::FwMark { family, mark }));
        }
        let (Some(protocol), Some(bytes), Some(port)) = (self.protocol, self.address, self.port) else {
            return Err(Errno::INVALID);
        };
        let address = address_of(family, bytes).ok_or(Errno::FAMILY)?;
        let protocol = u8::try_from(protocol).ok().and_then(Protocol::from_number);
        Ok(protocol.map(|protocol| ServiceKey::Address { protocol, address, port }))
    }

    /// Reads the inside of a service attribute; unknown attributes are skipped, of a repeated one the last counts.
    ///
    /// # Errors
    /// [`Errno::INVALID`] if a value is too short, a name without end or longer than 15 bytes (16 for the
    /// engine), an address longer than
    /// 16 bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, Errno> {
        let mut service = Self::default();
        for found in Attributes::new(bytes) {
            match found.number {
                AF => service.family = known(found.u16())?,
                PROTOCOL => service.protocol = known(found.u16())?,
                ADDR => service.address = known(found.filled())?,
                PORT => service.port = known(found.be16())?,
                FWMARK => service.mark = known(found.u32())?,
                SCHED_NAME => service.scheduler = name(found, super::SCHEDULER_LEN)?,
                PE_NAME => service.engine = name(found, super::ENGINE_LEN)?,
                FLAGS => {
                    // A shorter value is filled up: without a mask no flag counts.
                    let bytes: [u8; 8] = found.filled().ok_or(Errno::INVALID)?;
                    let [a, b, c, d, e, f, g, h] = bytes;
                    service.flags = Some(ServiceFlags {
                        flags: u32::from_ne_bytes([a, b, c, d]),
                        mask: u32::from_ne_bytes([e, f, g, h]),
                    });
                }
                TIMEOUT => service.timeout_s = known(found.u32())?,
                NETMASK => service.netmask = known(found.value.first_chunk().copied())?,
                STATS => statistics::read(found.nested(), &mut service.statistics, statistics::Width::Narrow),
                STATS64 => statistics::read(found.nested(), &mut service.statistics, statistics::Width::Wide),
                _ => service.additions.take(found)?,
            }
        }
        Ok(service)
    }

    /// Writes it as attribute `number`.
    pub fn write(&self, out: &mut Writer<'_>, number: u16, side: Side) {
        out.nested_as(number, side == Side::Client, |out| self.write_inside(out));
    }

    fn write_inside(&self, out: &mut Writer<'_>) {
        if let Some(family) = self.family {
            out.u16(AF, family);
        }
        if let Some(protocol) = self.protocol {
            out.u16(PROTOCOL, protocol);
        }
        if let Some(address) = self.address {
            out.bytes(ADDR, &address);
        }
        if let Some(port) = self.port {
            out.be16(PORT, port);
        }
        if let Some(mark) = self.mark {
            out.u32(FWMARK, mark);
        }
        if let Some(scheduler) = &self.scheduler {
            out.text(SCHED_NAME, scheduler);
        }
        if let Some(engine) = &self.engine {
            out.text(PE_NAME, engine);
        }
        if let Some(ServiceFlags { flags, mask }) = self.flags {
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&flags.to_ne_bytes());
            bytes[4..].copy_from_slice(&mask.to_ne_bytes());
            out.bytes(FLAGS, &bytes);
        }
        if let Some(timeout_s) = self.timeout_s {
            out.u32(TIMEOUT, timeout_s);
        }
        if let Some(netmask) = self.netmask {
            out.bytes(NETMASK, &netmask);
        }
        if let Some(statistics) = &self.statistics {
            statistics::write(out, STATS, statistics, statistics::Width::Narrow);
            statistics::write(out, STATS64, statistics, statistics::Width::Wide);
        }
        self.additions.write(out);
    }
}

const AF: u16 = 1;
const PROTOCOL: u16 = 2;
const ADDR: u16 = 3;
const PORT: u16 = 4;
const FWMARK: u16 = 5;
const SCHED_NAME: u16 = 6;
const FLAGS: u16 = 7;
const TIMEOUT: u16 = 8;
const NETMASK: u16 = 9;
const STATS: u16 = 10;
const PE_NAME: u16 = 11;
const STATS64: u16 = 12;
