//! The `LVS` family: what IPVS never had. Drains, settings, local addresses, load factors, connections, counters of the
//! whole director, and whether it is ready. It lives on the same socket as IPVS and is found by its name.
//!
//! Services and servers are written as in the IPVS family. A refusal carries the reason as a text
//! ([`crate::server::Refusal`]).

mod connection;
mod state;

use alloc::string::String;
use core::net::IpAddr;
use core::time::Duration;

use lvs_core::{AfterDrain, Command};

use crate::additions::{duration, listed, nanoseconds, number_of, read_address, valid, write_address};
use crate::errno::Errno;
use crate::ipvs::{ServerMessage, ServiceMessage, Side};
use crate::wire::{Attributes, Writer};
pub use connection::{read_connection, write_connection};
pub use state::State;

/// The family's name.
pub const NAME: &str = "LVS";
/// The version its messages carry. Later ones only add commands and attributes.
pub const VERSION: u8 = 1;

/// The family's commands.
pub mod command {
    /// Takes a server out of service with an end: [`lvs_core::Command::Drain`].
    pub const DRAIN: u8 = 1;
    /// Asks for a setting by name, or as a dump for all.
    pub const GET_SETTING: u8 = 2;
    /// Sets a setting by name; also the answer to [`GET_SETTING`].
    pub const SET_SETTING: u8 = 3;
    /// Adds a local address: [`lvs_core::Command::AddLocalAddress`].
    pub const NEW_LOCAL_ADDRESS: u8 = 4;
    /// Deletes a local address: [`lvs_core::Command::DeleteLocalAddress`].
    pub const DEL_LOCAL_ADDRESS: u8 = 5;
    /// Sets a server's load factor: [`lvs_core::Command::SetServerFactor`].
    pub const SET_FACTOR: u8 = 6;
    /// Asks for the connections, as a dump only.
    pub const GET_CONNECTION: u8 = 7;
    /// The answer to [`GET_CONNECTION`]; never a request.
    pub const CONNECTION: u8 = 8;
    /// Asks for the counters of the whole director.
    pub const GET_STATISTICS: u8 = 9;
    /// The answer to [`GET_STATISTICS`]; never a request.
    pub const STATISTICS: u8 = 10;
    /// Asks whether the director is ready, and how full its tables are.
    pub const GET_STATE: u8 = 11;
    /// The answer to [`GET_STATE`]; never a request.
    pub const STATE: u8 = 12;
    /// Kept for a list of commands that is shown before it is carried out, all or nothing.
    pub const PLAN: u8 = 13;
    /// Carries out what was asked since [`BEGIN`], all of it or nothing. A refusal says which of the requests it is for
    /// ([`crate::server::Refusal::at`]), and ends the transaction.
    pub const COMMIT: u8 = 14;
    /// Begins a transaction: what this connection asks from now on that changes something is acknowledged and kept until
    /// [`COMMIT`]. Questions are answered meanwhile, from the tables as they are.
    pub const BEGIN: u8 = 15;
    /// Forgets what was asked since [`BEGIN`].
    pub const ABORT: u8 = 16;
}

/// Attributes of the family's messages.
pub mod attribute {
    /// A service, as in the IPVS family.
    pub const SERVICE: u16 = 1;
    /// A server, as in the IPVS family.
    pub const SERVER: u16 = 2;
    /// A setting's name.
    pub const NAME: u16 = 3;
    /// A setting's value, as a text.
    pub const VALUE: u16 = 4;
    /// A duration in nanoseconds: how long connections of a drained server may go on.
    pub const DEADLINE: u16 = 5;
    /// What happens then: 0 reset, 1 silence.
    pub const AFTER: u16 = 6;
    /// An address: 4 or 16 bytes.
    pub const ADDRESS: u16 = 7;
    /// A load factor in 1/1024ths.
    pub const FACTOR: u16 = 8;
    /// A connection: [`super::read_connection`].
    pub const CONNECTION: u16 = 9;
    /// Counters and rates, as STATS64 of the IPVS family.
    pub const STATISTICS: u16 = 10;
    /// The director's state: [`super::State`].
    pub const STATE: u16 = 11;
    /// Highest number of the above.
    pub const LAST: u16 = 11;
}

/// The family's commands and how each may be asked, as `nlctrl` tells.
pub(crate) const OPERATIONS: &[(u8, u32)] = &[
    (command::DRAIN, 0x0b),
    (command::GET_SETTING, 0x0f),
    (command::SET_SETTING, 0x0b),
    (command::NEW_LOCAL_ADDRESS, 0x0b),
    (command::DEL_LOCAL_ADDRESS, 0x0b),
    (command::SET_FACTOR, 0x0b),
    (command::GET_CONNECTION, 0x0d),
    (command::GET_STATISTICS, 0x0b),
    (command::GET_STATE, 0x0b),
    (command::COMMIT, 0x0b),
    (command::BEGIN, 0x0b),
    (command::ABORT, 0x0b),
];

/// A request of the family, as its attributes say.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Request {
    /// One of [`command`].
    pub command: u8,
    /// Whether every object is asked for.
    pub is_dump: bool,
    /// The service.
    pub service: Option<ServiceMessage>,
    /// The server.
    pub server: Option<ServerMessage>,
    /// The setting's name.
    pub name: Option<String>,
    /// The setting's value.
    pub value: Option<String>,
    /// The deadline.
    pub deadline: Option<Duration>,
    /// What happens then.
    pub after: Option<AfterDrain>,
    /// The address.
    pub address: Option<IpAddr>,
    /// The load factor.
    pub factor: Option<u32>,
    /// Identifier of a request that may be sent again.
    pub request_id: Option<[u8; 16]>,
}

impl Request {
    /// A request without attributes.
    pub fn new(command: u8) -> Self {
        Self { command, ..Self::default() }
    }

    /// A request for every object.
    pub fn dump(command: u8) -> Self {
        Self { is_dump: true, ..Self::new(command) }
    }

    /// The request for a command that IPVS never had; `None` for the others, which go to the IPVS family, and for
    /// [`Command::SetSettings`], which goes setting by setting.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lvs_core::{AfterDrain, Command, Endpoint, Protocol, ServiceKey};
    ///
    /// let service = ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse().unwrap());
    /// let server = Endpoint::new("10.0.0.2".parse().unwrap(), 8080);
    /// let drain = Command::Drain { service, server, deadline: Duration::from_secs(60), then: AfterDrain::Reset };
    /// let request = lvs_genl::lvs::Request::of_command(&drain).unwrap();
    /// assert_eq!(request.to_command(), Ok(drain));
    /// ```
    pub fn of_command(command: &Command) -> Option<Self> {
        let request = match command {
            Command::Drain { service, server, deadline, then } => Self {
                service: Some(ServiceMessage::of_key(service)),
                server: Some(ServerMessage::of_key(server)),
                deadline: Some(*deadline),
                after: Some(*then),
                ..Self::new(command::DRAIN)
            },
            Command::SetServerFactor { service, server, factor } => Self {
                service: Some(ServiceMessage::of_key(service)),
                server: Some(ServerMessage::of_key(server)),
                factor: Some(*factor),
                ..Self::new(command::SET_FACTOR)
            },
            Command::AddLocalAddress(service, address) | Command::DeleteLocalAddress(service, address) => Self {
                service: Some(ServiceMessage::of_key(service)),
                address: Some(*address),
                ..Self::new(match command {
                    Command::AddLocalAddress(..) => command::NEW_LOCAL_ADDRESS,
                    _ => command::DEL_LOCAL_ADDRESS,
                })
            },
            _ => return None,
        };
        Some(request)
    }

    /// The director's command it asks for.
    ///
    /// # Errors
    /// [`Errno::INVALID`] if something is missing or it asks for no command, [`Errno::NO_SUCH`] for a service with a
    /// protocol that no service has, [`Errno::FAMILY`] for an address that is neither IPv4 nor IPv6.
    pub fn to_command(&self) -> Result<Command, Errno> {
        let key = self.service.as_ref().ok_or(Errno::INVALID)?.key()?.ok_or(Errno::NO_SUCH)?;
        let server = || self.server.as_ref().ok_or(Errno::INVALID)?.key(key.family());
        match self.command {
            command::DRAIN => Ok(Command::Drain {
                service: key,
                server: server()?,
                deadline: valid(self.deadline)?,
                then: self.after.unwrap_or(AfterDrain::Reset),
            }),
            command::SET_FACTOR => {
                Ok(Command::SetServerFactor { service: key, server: server()?, factor: valid(self.factor)? })
            }
            command::NEW_LOCAL_ADDRESS => Ok(Command::AddLocalAddress(key, valid(self.address)?)),
            command::DEL_LOCAL_ADDRESS => Ok(Command::DeleteLocalAddress(key, valid(self.address)?)),
            _ => Err(Errno::INVALID),
        }
    }

    /// Reads a request; unknown attributes are skipped.
    ///
    /// # Errors
    /// [`Errno::INVALID`] for a value that is too short or means nothing.
    pub fn read(command: u8, is_dump: bool, attributes: Attributes<'_>) -> Result<Self, Errno> {
        let mut request = Self { is_dump, ..Self::new(command) };
        for found in attributes {
            match found.number {
                attribute::SERVICE => request.service = Some(ServiceMessage::read(found.value)?),
                attribute::SERVER => request.server = Some(ServerMessage::read(found.value)?),
                attribute::NAME => request.name = Some(valid(found.text())?.into()),
                attribute::VALUE => request.value = Some(valid(found.text())?.into()),
                attribute::DEADLINE => request.deadline = Some(duration(found)?),
                attribute::AFTER => request.after = Some(listed(&AFTERS, found)?),
                attribute::ADDRESS => request.address = Some(valid(read_address(found))?),
                attribute::FACTOR => request.factor = Some(valid(found.u32())?),
                crate::additions::REQUEST_ID => request.request_id = found.filled(),
                _ => {}
            }
        }
        Ok(request)
    }

    /// Writes its attributes.
    pub fn write(&self, out: &mut Writer<'_>) {
        if let Some(service) = &self.service {
            service.write(out, attribute::SERVICE, Side::Client);
        }
        if let Some(server) = &self.server {
            server.write(out, attribute::SERVER, Side::Client);
        }
        for (number, text) in [(attribute::NAME, &self.name), (attribute::VALUE, &self.value)] {
            if let Some(text) = text {
                out.text(number, text);
            }
        }
        if let Some(deadline) = self.deadline {
            out.u64(attribute::DEADLINE, nanoseconds(deadline));
        }
        if let Some(number) = self.after.and_then(|after| number_of(&AFTERS, after)) {
            out.u8(attribute::AFTER, number);
        }
        if let Some(address) = self.address {
            write_address(out, attribute::ADDRESS, address);
        }
        if let Some(factor) = self.factor {
            out.u32(attribute::FACTOR, factor);
        }
        if let Some(id) = self.request_id {
            out.bytes(crate::additions::REQUEST_ID, &id);
        }
    }
}

/// A value's place is its number.
const AFTERS: [AfterDrain; 2] = [AfterDrain::Reset, AfterDrain::Silence];
