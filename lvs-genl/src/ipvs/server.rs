//! A real server in the family's attributes.

use core::net::IpAddr;

use lvs_core::service::stats::Statistics;
use lvs_core::{AddressFamily, ServerKey};

use super::{Side, address_of, bytes_of, family_of, known, statistics};
use crate::additions::ServerAdditions;
use crate::errno::Errno;
use crate::wire::{Attributes, Writer};

/// A real server, as its attributes say.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ServerMessage {
    /// Address family; missing or 0 is that of the service.
    pub family: Option<u16>,
    /// Address, IPv4 in the first four bytes.
    pub address: Option<[u8; 16]>,
    /// Port.
    pub port: Option<u16>,
    /// Forward method: 0 NAT, 1 local, 2 tunnel, 3 direct routing; the lowest three bits count.
    pub forward: Option<u32>,
    /// Weight, signed.
    pub weight: Option<u32>,
    /// Upper threshold.
    pub upper_threshold: Option<u32>,
    /// Lower threshold.
    pub lower_threshold: Option<u32>,
    /// Tunnel kind: 0 IPIP, 1 GUE, 2 GRE.
    pub tunnel_kind: Option<u8>,
    /// Port of a GUE tunnel.
    pub tunnel_port: Option<u16>,
    /// Tunnel checksum: 0 none, 1 full, 2 remote.
    pub tunnel_flags: Option<u16>,
    /// Active connections, inactive ones, persistence templates; in answers.
    pub counts: Option<[u32; 3]>,
    /// Counters and rates; in answers.
    pub statistics: Option<Statistics>,
    /// What IPVS never had.
    pub additions: ServerAdditions,
}

impl ServerMessage {
    /// Only what says which server it is.
    pub fn of_key(key: &ServerKey) -> Self {
        Self {
            family: Some(family_of(key.address)),
            address: Some(bytes_of(key.address)),
            port: Some(key.port),
            ..Self::default()
        }
    }

    /// Which server it is, in a service of `family`.
    ///
    /// # Errors
    /// [`Errno::INVALID`] if address or port is missing, [`Errno::FAMILY`] if it is neither IPv4 nor IPv6.
    pub fn key(&self, family: AddressFamily) -> Result<ServerKey, Errno> {
        let (Some(bytes), Some(port)) = (self.address, self.port) else { return Err(Errno::INVALID) };
        let family = match (self.family.filter(|family| *family != 0), family) {
            (Some(family), _) => family,
            (None, AddressFamily::Ipv4) => super::AF_INET,
            (None, AddressFamily::Ipv6) => super::AF_INET6,
        };
        let address: IpAddr = address_of(family, bytes).ok_or(Errno::FAMILY)?;
        Ok(ServerKey::new(address, port))
    }

    /// Reads the inside of a server attribute; unknown attributes are skipped, of a repeated one the last counts.
    ///
    /// # Errors
    /// [`Errno::INVALID`] if a value is too short, or an address longer than 16 bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, Errno> {
        let mut server = Self::default();
        for found in Attributes::new(bytes) {
            let mut count = |index: usize| -> Result<(), Errno> {
                server.counts.get_or_insert_default()[index] = found.u32().ok_or(Errno::INVALID)?;
                Ok(())
            };
            match found.number {
                ACTIVE_CONNS => count(0)?,
                INACT_CONNS => count(1)?,
                PERSIST_CONNS => count(2)?,
                ADDR => server.address = known(found.filled())?,
                PORT => server.port = known(found.be16())?,
                FWD_METHOD => server.forward = known(found.u32())?,
                WEIGHT => server.weight = known(found.u32())?,
                U_THRESH => server.upper_threshold = known(found.u32())?,
                L_THRESH => server.lower_threshold = known(found.u32())?,
                ADDR_FAMILY => server.family = known(found.u16())?,
                TUN_TYPE => server.tunnel_kind = known(found.u8())?,
                TUN_PORT => server.tunnel_port = known(found.be16())?,
                TUN_FLAGS => server.tunnel_flags = known(found.u16())?,
                STATS => statistics::read(found.nested(), &mut server.statistics, statistics::Width::Narrow),
                STATS64 => statistics::read(found.nested(), &mut server.statistics, statistics::Width::Wide),
                _ => server.additions.take(found)?,
            }
        }
        Ok(server)
    }

    /// Writes it as attribute `number`.
    pub fn write(&self, out: &mut Writer<'_>, number: u16, side: Side) {
        out.nested_as(number, side == Side::Client, |out| {
            if side == Side::Client {
                self.write_family(out);
            }
            self.write_config(out);
            if let Some([active, inactive, persistent]) = self.counts {
                out.u32(ACTIVE_CONNS, active);
                out.u32(INACT_CONNS, inactive);
                out.u32(PERSIST_CONNS, persistent);
            }
            if side == Side::Director {
                self.write_family(out);
            }
            if let Some(statistics) = &self.statistics {
                statistics::write(out, STATS, statistics, statistics::Width::Narrow);
                statistics::write(out, STATS64, statistics, statistics::Width::Wide);
            }
            self.additions.write(out);
        });
    }

    fn write_family(&self, out: &mut Writer<'_>) {
        if let Some(family) = self.family {
            out.u16(ADDR_FAMILY, family);
        }
    }

    fn write_config(&self, out: &mut Writer<'_>) {
        if let Some(address) = self.address {
            out.bytes(ADDR, &address);
        }
        if let Some(port) = self.port {
            out.be16(PORT, port);
        }
        for (number, value) in [(FWD_METHOD, self.forward), (WEIGHT, self.weight)] {
            if let Some(value) = value {
                out.u32(number, value);
            }
        }
        if let Some(kind) = self.tunnel_kind {
            out.u8(TUN_TYPE, kind);
        }
        if let Some(port) = self.tunnel_port {
            out.be16(TUN_PORT, port);
        }
        if let Some(flags) = self.tunnel_flags {
            out.u16(TUN_FLAGS, flags);
        }
        for (number, value) in [(U_THRESH, self.upper_threshold), (L_THRESH, self.lower_threshold)] {
            if let Some(value) = value {
                out.u32(number, value);
            }
        }
    }
}

const ADDR: u16 = 1;
const PORT: u16 = 2;
const FWD_METHOD: u16 = 3;
const WEIGHT: u16 = 4;
const U_THRESH: u16 = 5;
const L_THRESH: u16 = 6;
const ACTIVE_CONNS: u16 = 7;
const INACT_CONNS: u16 = 8;
const PERSIST_CONNS: u16 = 9;
const STATS: u16 = 10;
const ADDR_FAMILY: u16 = 11;
const STATS64: u16 = 12;
const TUN_TYPE: u16 = 13;
const TUN_PORT: u16 = 14;
const TUN_FLAGS: u16 = 15;
