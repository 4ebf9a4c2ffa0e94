//! The asking end of a conversation: requests as stock ipvsadm sends them, answers read into what a director shows.
//! No sockets: datagrams come out and go in.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use lvs_core::AddressFamily;
use lvs_core::service::stats::Statistics;
use lvs_core::view::{ConnectionView, ServerView, ServiceView};

use crate::convert::Request;
use crate::errno::Errno;
use crate::ipvs::{self, Body, DaemonMessage, ServerMessage, ServiceMessage, Side, TimeoutsMessage, command};
use crate::lvs::{self, State};
use crate::server::Refusal;
use crate::wire::{ACK, Attributes, DONE, DUMP, ERROR, GenericHeader, HEADER_LEN, Header, Messages, REQUEST, Writer};
use crate::{additions, ctrl};

/// One program's end of a conversation: numbers its requests and knows the families' numbers.
///
/// ```
/// use lvs_core::{Command, Protocol, ServiceConfig, ServiceKey};
/// use lvs_genl::client::Client;
/// use lvs_genl::convert::Request;
///
/// let web = ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse().unwrap());
/// let add = Command::AddService(web, ServiceConfig::new("rr"));
/// let datagram = Client::new(4711).request(&Request::of_command(&add).unwrap());
/// assert_eq!(datagram.len(), 104);
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    port: u32,
    sequence: u32,
    ipvs: u16,
    lvs: u16,
}

impl Client {
    /// A program with this port id, which answers repeat.
    pub const fn new(port: u32) -> Self {
        Self { port, sequence: 0, ipvs: ctrl::IPVS_ID, lvs: ctrl::LVS_ID }
    }

    /// The number of the next request; each one after it counts up.
    #[must_use]
    pub fn sequence(mut self, next: u32) -> Self {
        self.sequence = next;
        self
    }

    /// Asks for a family: the first thing to do, as Linux numbers its families as they come.
    pub fn look_up(&mut self, name: &str) -> Vec<u8> {
        let generic = GenericHeader { command: ctrl::GET_FAMILY, version: 1 };
        self.write(ctrl::ID, generic, false, |out| out.text(FAMILY_NAME, name))
    }

    /// Takes a family's number from the answer to [`Client::look_up`]; other answers change nothing.
    pub fn learn(&mut self, reply: &Reply) {
        match reply {
            Reply::Family { name, id } if name == ipvs::NAME => self.ipvs = *id,
            Reply::Family { name, id } if name == lvs::NAME => self.lvs = *id,
            _ => {}
        }
    }

    /// A request of the IPVS family. An acknowledgment is asked for, as ipvsadm always does.
    pub fn request(&mut self, request: &Request) -> Vec<u8> {
        let generic = GenericHeader { command: request.command, version: ipvs::VERSION };
        self.write(self.ipvs, generic, request.is_dump, |out| {
            if let Some(service) = &request.service {
                service.write(out, ipvs::attribute::SERVICE, Side::Client);
            }
            if let Some(server) = &request.server {
                server.write(out, ipvs::attribute::SERVER, Side::Client);
            }
            if let Some(daemon) = &request.daemon {
                daemon.write(out, ipvs::attribute::DAEMON, Side::Client);
            }
            request.timeouts.write(out);
            if let Some(id) = &request.request_id {
                out.bytes(additions::REQUEST_ID, id);
            }
        })
    }

    /// A request of the LVS family.
    pub fn lvs_request(&mut self, request: &lvs::Request) -> Vec<u8> {
        let generic = GenericHeader { command: request.command, version: lvs::VERSION };
        self.write(self.lvs, generic, request.is_dump, |out| request.write(out))
    }

    fn write(
        &mut self,
        kind: u16,
        generic: GenericHeader,
        is_dump: bool,
        attributes: impl FnOnce(&mut Writer<'_>),
    ) -> Vec<u8> {
        let flags = REQUEST | ACK | if is_dump { DUMP } else { 0 };
        let header = Header { length: 0, kind, flags, sequence: self.sequence, port: self.port };
        self.sequence = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        let mut message = Writer::generic(&mut datagram, header, generic);
        attributes(&mut message);
        message.finish();
        datagram
    }

    /// The answers in a datagram, in order. A listing ends with [`Reply::Done`]; everything else asked by a [`Client`]
    /// ends with [`Reply::Ack`] or [`Reply::Refused`].
    pub fn replies<'a>(&self, datagram: &'a [u8]) -> Replies<'a> {
        Replies { messages: Messages::new(datagram), ipvs: self.ipvs, lvs: self.lvs }
    }
}

/// One answer.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Reply {
    /// A family's number.
    Family {
        /// Its name.
        name: String,
        /// The type of its messages.
        id: u16,
    },
    /// IPVS's version and the size of its connection table.
    Info {
        /// As [`ipvs::IPVS_VERSION`].
        version: u32,
        /// As [`ipvs::TABLE_SIZE`].
        table_size: u32,
    },
    /// A service, without its servers.
    Service(ServiceView),
    /// A server.
    Server(ServerView),
    /// A synchronisation daemon.
    Daemon(DaemonMessage),
    /// The timeouts.
    Timeouts(TimeoutsMessage),
    /// A setting.
    Setting {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// A connection or persistence template.
    Connection(ConnectionView),
    /// The counters of the whole director.
    Statistics(Statistics),
    /// Whether the director is ready, and how full it is.
    State(State),
    /// The request was carried out.
    Ack,
    /// The listing is complete.
    Done,
    /// The request was refused, and changed nothing.
    Refused(Refusal),
    /// A message of a kind that is not known here.
    Unknown,
}

/// An answer that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the director's answer cannot be read")
    }
}

impl core::error::Error for Malformed {}

impl From<Errno> for Malformed {
    fn from(_: Errno) -> Self {
        Self
    }
}

/// The answers in a datagram: see [`Client::replies`].
#[derive(Clone, Debug)]
pub struct Replies<'a> {
    messages: Messages<'a>,
    ipvs: u16,
    lvs: u16,
}

impl Iterator for Replies<'_> {
    type Item = Result<Reply, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let message = self.messages.next()?;
        let generic = message.generic();
        Some(match (message.header.kind, generic) {
            (DONE, _) => Ok(Reply::Done),
            (ERROR, _) => match message.error() {
                Some(0) => Ok(Reply::Ack),
                Some(error) => {
                    let (text, at) = refusal_told(message.header.flags, message.payload()).unwrap_or_default();
                    Ok(Reply::Refused(Refusal { errno: Errno(error.saturating_neg()), text, at }))
                }
                None => Err(Malformed),
            },
            (_, None) => Err(Malformed),
            (ctrl::ID, Some((generic, attributes))) if generic.command == ctrl::NEW_FAMILY => family(attributes),
            (kind, Some((generic, attributes))) if kind == self.ipvs => ipvs_reply(generic.command, attributes),
            (kind, Some((generic, attributes))) if kind == self.lvs => lvs_reply(generic.command, attributes),
            _ => Ok(Reply::Unknown),
        })
    }
}

fn family(attributes: Attributes<'_>) -> Result<Reply, Malformed> {
    let (mut name, mut id) = (None, None);
    for found in attributes {
        match found.number {
            FAMILY_ID => id = found.u16(),
            FAMILY_NAME => name = found.text(),
            _ => {}
        }
    }
    Ok(Reply::Family { name: name.ok_or(Malformed)?.to_string(), id: id.ok_or(Malformed)? })
}

fn ipvs_reply(command: u8, attributes: Attributes<'_>) -> Result<Reply, Malformed> {
    if command == command::SET_INFO {
        let (mut version, mut table_size) = (None, None);
        for found in attributes {
            match found.number {
                ipvs::attribute::INFO_VERSION => version = found.u32(),
                ipvs::attribute::INFO_TABLE_SIZE => table_size = found.u32(),
                _ => {}
            }
        }
        return Ok(Reply::Info { version: version.ok_or(Malformed)?, table_size: table_size.ok_or(Malformed)? });
    }
    let body = Body::read(attributes)?;
    Ok(match command {
        command::NEW_SERVICE => Reply::Service(ServiceMessage::read(body.service.ok_or(Malformed)?)?.view()?),
        command::NEW_SERVER => {
            // Answers say the family themselves.
            let server = ServerMessage::read(body.server.ok_or(Malformed)?)?;
            Reply::Server(server.view(AddressFamily::Ipv4)?)
        }
        command::NEW_DAEMON => Reply::Daemon(DaemonMessage::read(body.daemon.ok_or(Malformed)?)?),
        command::SET_CONFIG => Reply::Timeouts(body.timeouts),
        _ => Reply::Unknown,
    })
}

fn lvs_reply(command: u8, mut attributes: Attributes<'_>) -> Result<Reply, Malformed> {
    let mut inside =
        |number: u16| attributes.find(|found| found.number == number).map(|found| found.value).ok_or(Malformed);
    Ok(match command {
        lvs::command::SET_SETTING => {
            let request = lvs::Request::read(command, false, attributes)?;
            Reply::Setting { name: request.name.ok_or(Malformed)?, value: request.value.ok_or(Malformed)? }
        }
        lvs::command::CONNECTION => Reply::Connection(lvs::read_connection(inside(lvs::attribute::CONNECTION)?)?),
        lvs::command::STATISTICS => Reply::Statistics(ipvs::read_statistics(inside(lvs::attribute::STATISTICS)?)),
        lvs::command::STATE => Reply::State(State::read(inside(lvs::attribute::STATE)?)?),
        _ => Reply::Unknown,
    })
}

/// What a refusal tells beside its number: attributes behind the request that is quoted.
fn refusal_told(flags: u16, payload: &[u8]) -> Option<(Option<String>, Option<u32>)> {
    if flags & crate::server::HAS_TEXT == 0 {
        return None;
    }
    let quoted = payload.get(4..)?;
    let len = match flags & crate::wire::CAPPED {
        0 => usize::try_from(u32::from_ne_bytes(*quoted.first_chunk()?)).ok()?,
        _ => HEADER_LEN,
    };
    let (mut text, mut at) = (None, None);
    for found in Attributes::new(quoted.get(len.checked_next_multiple_of(4)?..)?) {
        match found.number {
            crate::server::TEXT => text = found.text().map(ToString::to_string),
            crate::server::AT => at = found.u32(),
            _ => {}
        }
    }
    Some((text, at))
}

const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
