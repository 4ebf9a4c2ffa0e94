//! The IPVS family's messages, attribute by attribute, both ways. A field is `None` where the attribute is missing:
//! what must be there, and what it means, is for `convert` and `server` to say.
//! Source: the recordings in `conformance/netlink/`, and the man pages of ipvsadm for what the values mean.

mod daemon;
mod server;
mod service;
mod statistics;

use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::errno::Errno;
use crate::wire::{Attribute, Attributes, Writer};
pub use daemon::{DaemonMessage, DaemonRole};
pub use server::ServerMessage;
pub use service::{ServiceFlags, ServiceMessage};
pub use statistics::{read_statistics, write_statistics};

/// The family's name.
pub const NAME: &str = "IPVS";
/// The version its messages carry.
pub const VERSION: u8 = 1;
/// The version of IPVS itself that GET_INFO answers: 1.2.1.
pub const IPVS_VERSION: u32 = 0x01_02_01;
/// The size of the connection table that GET_INFO answers; scripts expect that of Linux's default table.
pub const TABLE_SIZE: u32 = 4096;

/// The family's commands.
pub mod command {
    /// Adds a service; also the answer to [`GET_SERVICE`]. ipvsadm: `-A`.
    pub const NEW_SERVICE: u8 = 1;
    /// Edits a service. ipvsadm: `-E`.
    pub const SET_SERVICE: u8 = 2;
    /// Deletes a service. ipvsadm: `-D`.
    pub const DEL_SERVICE: u8 = 3;
    /// Asks for one service, or as a dump for all.
    pub const GET_SERVICE: u8 = 4;
    /// Adds a server; also the answer to [`GET_SERVER`]. ipvsadm: `-a`.
    pub const NEW_SERVER: u8 = 5;
    /// Edits a server. ipvsadm: `-e`.
    pub const SET_SERVER: u8 = 6;
    /// Deletes a server. ipvsadm: `-d`.
    pub const DEL_SERVER: u8 = 7;
    /// Asks for the servers of a service, as a dump only.
    pub const GET_SERVER: u8 = 8;
    /// Starts a synchronisation daemon; also the answer to [`GET_DAEMON`]. ipvsadm: `--start-daemon`.
    pub const NEW_DAEMON: u8 = 9;
    /// Stops a synchronisation daemon. ipvsadm: `--stop-daemon`.
    pub const DEL_DAEMON: u8 = 10;
    /// Asks for the synchronisation daemons, as a dump only.
    pub const GET_DAEMON: u8 = 11;
    /// Sets timeouts; also the answer to [`GET_CONFIG`]. ipvsadm: `--set`.
    pub const SET_CONFIG: u8 = 12;
    /// Asks for the timeouts.
    pub const GET_CONFIG: u8 = 13;
    /// The answer to [`GET_INFO`]; never a request.
    pub const SET_INFO: u8 = 14;
    /// Asks for IPVS's version: the first thing both programs ask.
    pub const GET_INFO: u8 = 15;
    /// Zeroes counters. ipvsadm: `-Z`.
    pub const ZERO: u8 = 16;
    /// Deletes every service. ipvsadm: `-C`.
    pub const FLUSH: u8 = 17;
}

/// Attributes of the family's messages themselves. Numbers from [`crate::additions::FIRST`] on are ours.
pub mod attribute {
    /// A service: [`super::ServiceMessage`].
    pub const SERVICE: u16 = 1;
    /// A server: [`super::ServerMessage`].
    pub const SERVER: u16 = 2;
    /// A synchronisation daemon: [`super::DaemonMessage`].
    pub const DAEMON: u16 = 3;
    /// Timeout of TCP connections, in seconds.
    pub const TIMEOUT_TCP: u16 = 4;
    /// Timeout of TCP connections after a FIN, in seconds.
    pub const TIMEOUT_TCP_FIN: u16 = 5;
    /// Timeout of UDP flows, in seconds.
    pub const TIMEOUT_UDP: u16 = 6;
    /// Highest number of the above.
    pub const LAST: u16 = 6;
    /// Of the answer to GET_INFO: [`super::IPVS_VERSION`].
    pub const INFO_VERSION: u16 = 1;
    /// Of the answer to GET_INFO: [`super::TABLE_SIZE`].
    pub const INFO_TABLE_SIZE: u16 = 2;
}

/// Who writes a message: both sides use the same attributes, in an order and with marks of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// A program that asks: nested attributes are marked, a server's address family comes first.
    Client,
    /// The director that answers: no marks, a server's address family comes after its counts.
    Director,
}

/// Timeouts in seconds: what SET_CONFIG sets, where 0 or nothing leaves one as it is, and GET_CONFIG answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimeoutsMessage {
    /// TCP ESTABLISHED.
    pub tcp: Option<u32>,
    /// TCP FIN_WAIT.
    pub tcp_fin: Option<u32>,
    /// UDP.
    pub udp: Option<u32>,
}

impl TimeoutsMessage {
    /// Writes those that are there.
    pub fn write(&self, out: &mut Writer<'_>) {
        for (number, seconds) in [
            (attribute::TIMEOUT_TCP, self.tcp),
            (attribute::TIMEOUT_TCP_FIN, self.tcp_fin),
            (attribute::TIMEOUT_UDP, self.udp),
        ] {
            if let Some(seconds) = seconds {
                out.u32(number, seconds);
            }
        }
    }
}

/// The attributes of a message of the family, told apart but not looked into.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Body<'a> {
    /// The inside of a service.
    pub service: Option<&'a [u8]>,
    /// The inside of a server.
    pub server: Option<&'a [u8]>,
    /// The inside of a synchronisation daemon.
    pub daemon: Option<&'a [u8]>,
    /// Timeouts.
    pub timeouts: TimeoutsMessage,
    /// Identifier of a request that may be sent again ([`crate::additions::REQUEST_ID`]).
    pub request_id: Option<[u8; 16]>,
}

impl<'a> Body<'a> {
    /// Tells the attributes apart; of one that is repeated the last counts, unknown ones are skipped.
    ///
    /// # Errors
    /// [`Errno::RANGE`] if one is too short for what it should hold: four bytes, also for what holds attributes.
    pub fn read(attributes: Attributes<'a>) -> Result<Self, Errno> {
        let mut body = Self::default();
        for found in attributes {
            let nested = |found: Attribute<'a>| {
                let is_readable = found.value.is_empty() || found.value.len() >= crate::wire::ATTRIBUTE_HEADER_LEN;
                if is_readable { Ok(Some(found.value)) } else { Err(Errno::RANGE) }
            };
            let seconds = |found: Attribute<'_>| found.u32().map(Some).ok_or(Errno::RANGE);
            match found.number {
                attribute::SERVICE => body.service = nested(found)?,
                attribute::SERVER => body.server = nested(found)?,
                attribute::DAEMON => body.daemon = nested(found)?,
                attribute::TIMEOUT_TCP => body.timeouts.tcp = seconds(found)?,
                attribute::TIMEOUT_TCP_FIN => body.timeouts.tcp_fin = seconds(found)?,
                attribute::TIMEOUT_UDP => body.timeouts.udp = seconds(found)?,
                crate::additions::REQUEST_ID => body.request_id = found.filled(),
                _ => {}
            }
        }
        Ok(body)
    }
}

/// Linux's numbers of the address families, in host order.
pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;

/// The address in 16 bytes: IPv4 in the first four.
fn address_of(family: u16, bytes: [u8; 16]) -> Option<IpAddr> {
    match family {
        AF_INET => {
            let [a, b, c, d, ..] = bytes;
            Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(bytes))),
        _ => None,
    }
}

/// The other way round.
fn bytes_of(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// Linux's number of an address's family.
const fn family_of(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

/// A name that ends within `most` bytes, its end mark included.
fn name(found: Attribute<'_>, most: usize) -> Result<Option<String>, Errno> {
    let is_ended = found.value.iter().take(most).any(|byte| *byte == 0);
    if !is_ended {
        return Err(Errno::INVALID);
    }
    found.text().map(|text| Some(text.into())).ok_or(Errno::INVALID)
}

/// Longest names, their end mark included.
pub(crate) const SCHEDULER_LEN: usize = 16;
pub(crate) const ENGINE_LEN: usize = 17;
const INTERFACE_LEN: usize = 16;

/// A number that is long enough, or EINVAL.
fn known<T>(value: Option<T>) -> Result<Option<T>, Errno> {
    value.map(Some).ok_or(Errno::INVALID)
}
