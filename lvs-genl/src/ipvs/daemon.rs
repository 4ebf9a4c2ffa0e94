//! A synchronisation daemon in the family's attributes.

use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Side, known, name};
use crate::errno::Errno;
use crate::wire::{Attributes, Writer};

/// Sender or receiver of connection synchronisation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DaemonRole {
    /// Sends.
    Master,
    /// Receives.
    Backup,
}

/// A synchronisation daemon, as its attributes say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DaemonMessage {
    /// 1 sends, 2 receives.
    pub state: Option<u32>,
    /// Interface.
    pub interface: Option<String>,
    /// Identifier of the group of directors.
    pub sync_id: Option<u32>,
    /// Longest message in bytes; 0 follows from the interface's MTU.
    pub max_len: Option<u16>,
    /// UDP port; 0 is the default.
    pub port: Option<u16>,
    /// TTL of the datagrams; 0 is the default.
    pub ttl: Option<u8>,
    /// IPv4 multicast group.
    pub group: Option<Ipv4Addr>,
    /// IPv6 multicast group.
    pub group6: Option<Ipv6Addr>,
}

impl DaemonMessage {
    /// Which daemon it is about.
    ///
    /// # Errors
    /// [`Errno::INVALID`] if the state is missing or neither 1 nor 2.
    pub fn role(&self) -> Result<DaemonRole, Errno> {
        match self.state {
            Some(1) => Ok(DaemonRole::Master),
            Some(2) => Ok(DaemonRole::Backup),
            _ => Err(Errno::INVALID),
        }
    }

    /// The multicast group, if one is given; IPv4 wins.
    pub fn any_group(&self) -> Option<IpAddr> {
        self.group.map(IpAddr::V4).or(self.group6.map(IpAddr::V6))
    }

    /// Reads the inside of a daemon attribute; unknown attributes are skipped, of a repeated one the last counts.
    ///
    /// # Errors
    /// [`Errno::INVALID`] if a value is too short, or the interface's name longer than 15 bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, Errno> {
        let mut daemon = Self::default();
        for found in Attributes::new(bytes) {
            match found.number {
                STATE => daemon.state = known(found.u32())?,
                MCAST_IFN => daemon.interface = name(found, super::INTERFACE_LEN)?,
                SYNC_ID => daemon.sync_id = known(found.u32())?,
                SYNC_MAXLEN => daemon.max_len = known(found.u16())?,
                MCAST_GROUP => {
                    daemon.group = known(found.value.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets)))?;
                }
                MCAST_GROUP6 => {
                    daemon.group6 = known(found.value.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets)))?;
                }
                MCAST_PORT => daemon.port = known(found.u16())?,
                MCAST_TTL => daemon.ttl = known(found.u8())?,
                _ => {}
            }
        }
        Ok(daemon)
    }

    /// Writes it as attribute `number`. Its port is in host order, unlike every other.
    pub fn write(&self, out: &mut Writer<'_>, number: u16, side: Side) {
        out.nested_as(number, side == Side::Client, |out| {
            if let Some(state) = self.state {
                out.u32(STATE, state);
            }
            if let Some(interface) = &self.interface {
                out.text(MCAST_IFN, interface);
            }
            if let Some(sync_id) = self.sync_id {
                out.u32(SYNC_ID, sync_id);
            }
            if let Some(max_len) = self.max_len {
                out.u16(SYNC_MAXLEN, max_len);
            }
            if let Some(port) = self.port {
                out.u16(MCAST_PORT, port);
            }
            if let Some(ttl) = self.ttl {
                out.u8(MCAST_TTL, ttl);
            }
            if let Some(group) = self.group {
                out.bytes(MCAST_GROUP, &group.octets());
            }
            if let Some(group) = self.group6 {
                out.bytes(MCAST_GROUP6, &group.octets());
            }
        });
    }
}

const STATE: u16 = 1;
const MCAST_IFN: u16 = 2;
const SYNC_ID: u16 = 3;
const SYNC_MAXLEN: u16 = 4;
const MCAST_GROUP: u16 = 5;
const MCAST_GROUP6: u16 = 6;
const MCAST_PORT: u16 = 7;
const MCAST_TTL: u16 = 8;
