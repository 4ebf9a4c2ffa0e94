//! One conversation: a datagram with requests goes in, datagrams with answers are pulled out, one at a time. A request
//! is carried out when its first answer is pulled, so nothing is kept but the datagram that came in and, of a listing,
//! one piece.
//! Source: the recordings in `conformance/netlink/`, above all `raw_header`.

use alloc::string::ToString;
use alloc::vec::Vec;

use lvs_core::{AddressFamily, Command, ServiceKey};

use super::dump::Dump;
use super::{Refusal, Table};
use crate::ctrl::{self, Family, IPVS_ID, LVS_ID};
use crate::errno::Errno;
use crate::ipvs::{self, Body, ServerMessage, ServiceMessage, Side, TimeoutsMessage, command};
use crate::lvs;
use crate::wire::{
    ACK, Attributes, CAPPED, DUMP, ERROR, FIRST_FAMILY, GenericHeader, HEADER_LEN, Header, Message, Messages, REQUEST,
    Writer,
};

/// The longest datagram of answers, except an error that quotes a longer request: what stock programs make room for.
pub const DATAGRAM_MAX: usize = 16_384;
/// The longest datagram of requests.
const REQUESTS_MAX: usize = 1 << 20;

/// What a program may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Access {
    /// Look families up, and nothing else: an ordinary user. The first real request is answered EPERM, as Linux does.
    None,
    /// Read.
    Read,
    /// Everything.
    Full,
}

/// A datagram of requests that is longer than any program sends: 1 MiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong;

/// One program's conversation with a director.
///
/// ```
/// use lvs_core::{Director, DirectorConfig, Instant, Seed};
/// use lvs_genl::client::{Client, Reply};
/// use lvs_genl::convert::Request;
/// use lvs_genl::ipvs::command;
/// use lvs_genl::server::{Access, Master, Session, SyncDaemons};
///
/// let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
/// let mut daemons = SyncDaemons::default();
/// let mut table = Master::new(&mut director, &mut daemons, Instant::ZERO);
///
/// let mut client = Client::new(1);
/// let mut session = Session::new(Access::Full);
/// session.receive(&client.request(&Request::new(command::GET_INFO))).unwrap();
/// let mut answer = Vec::new();
/// assert!(session.next_datagram(&mut table, &mut answer));
/// assert_eq!(client.replies(&answer).next(), Some(Ok(Reply::Info { version: 0x10201, table_size: 4096 })));
/// assert!(session.next_datagram(&mut table, &mut answer)); // the acknowledgment
/// assert!(!session.next_datagram(&mut table, &mut answer));
/// ```
#[derive(Debug)]
pub struct Session {
    access: Access,
    /// The port id answers carry; without one, that of each request.
    port: Option<u32>,
    caps_errors: bool,
    requests: Vec<u8>,
    /// Where the next request begins.
    next: usize,
    pending: Pending,
}

/// What is still to be sent for the request that was carried out last.
#[derive(Debug)]
enum Pending {
    Nothing,
    Ack(Header),
    Dump(Dump),
}

/// What comes of a request.
enum Outcome {
    /// Nothing to say but an acknowledgment, if one is asked for.
    Done,
    /// An answer was written; an acknowledgment follows, if one is asked for.
    Answered,
    /// A listing begins.
    Dump(Dump),
}

impl Session {
    /// A conversation with a program that may do this much.
    pub fn new(access: Access) -> Self {
        Self { access, port: None, caps_errors: false, requests: Vec::new(), next: 0, pending: Pending::Nothing }
    }

    /// Answers carry this port id instead of the one each request says.
    #[must_use]
    pub fn port(mut self, port: u32) -> Self {
        self.port = Some(port);
        self
    }

    /// Errors quote the request's header alone, as a program asks for by the socket option `NETLINK_CAP_ACK`.
    pub fn cap_errors(&mut self, caps: bool) {
        self.caps_errors = caps;
    }

    /// Whether every request was answered: then the next datagram can be taken.
    pub fn is_idle(&self) -> bool {
        matches!(self.pending, Pending::Nothing) && self.next >= self.requests.len()
    }

    /// Takes a datagram of requests. What was asked before and not answered yet is given up, so wait until the session
    /// [`is_idle`](Self::is_idle).
    ///
    /// # Errors
    /// [`TooLong`], and nothing is taken.
    pub fn receive(&mut self, datagram: &[u8]) -> Result<(), TooLong> {
        if datagram.len() > REQUESTS_MAX {
            return Err(TooLong);
        }
        self.pending = Pending::Nothing;
        self.requests.clear();
        self.requests.extend_from_slice(datagram);
        self.next = 0;
        Ok(())
    }

    /// Writes the next datagram of answers over `out`; `false` if there is none until more is received.
    pub fn next_datagram(&mut self, table: &mut impl Table, out: &mut Vec<u8>) -> bool {
        out.clear();
        loop {
            match core::mem::replace(&mut self.pending, Pending::Nothing) {
                Pending::Ack(header) => {
                    write_ack(out, header, self.port);
                    return true;
                }
                Pending::Dump(mut dump) => {
                    if dump.write(table, out, DATAGRAM_MAX) {
                        self.pending = Pending::Dump(dump);
                    }
                    return true;
                }
                Pending::Nothing => {}
            }
            let mut messages = Messages::new(self.requests.get(self.next..).unwrap_or_default());
            let Some(message) = messages.next() else {
                self.next = self.requests.len();
                return false;
            };
            let start = self.next;
            self.next = self.requests.len() - messages.rest_len();
            let quoted = start..(start + message.bytes().len());
            let header = message.header;
            let pending = self.answer(message, table, out);
            self.pending = match pending {
                Ok(pending) => pending,
                Err((refusal, tells_why)) => {
                    let quoted = &self.requests[quoted];
                    let text = refusal.text.as_deref().filter(|_| tells_why);
                    out.clear();
                    write_error(
                        out,
                        Quote { header, port: self.port, quoted, caps: self.caps_errors },
                        refusal.errno,
                        text,
                    );
                    Pending::Nothing
                }
            };
            if !out.is_empty() {
                return true;
            }
        }
    }

    /// Carries one request out. A refusal comes with whether its sentence may be told.
    fn answer(
        &self,
        message: Message<'_>,
        table: &mut impl Table,
        out: &mut Vec<u8>,
    ) -> Result<Pending, (Refusal, bool)> {
        let header = message.header;
        let ack = || if header.flags & ACK == 0 { Pending::Nothing } else { Pending::Ack(header) };
        if header.flags & REQUEST == 0 || header.kind < FIRST_FAMILY {
            return Ok(ack());
        }
        let plain = |errno: Errno| (Refusal::from(errno), false);
        let family = Family::by_id(header.kind).ok_or(plain(Errno::NO_ENTRY))?;
        let (generic, attributes) = message.generic().ok_or(plain(Errno::INVALID))?;
        let is_dump = header.flags & DUMP == DUMP;
        let reply = Header { flags: 0, port: self.port.unwrap_or(header.port), ..header };
        let asked = Asked { command: generic.command, is_dump, attributes, reply };
        let outcome = match family.id {
            ctrl::ID => asked.ctrl(out).map_err(plain),
            IPVS_ID => asked.ipvs(family, self.access, table, out).map_err(|refusal| (refusal, false)),
            LVS_ID => asked.lvs(family, self.access, table, out).map_err(|refusal| (refusal, true)),
            _ => Err(plain(Errno::NO_ENTRY)),
        };
        match outcome? {
            Outcome::Done | Outcome::Answered => Ok(ack()),
            Outcome::Dump(dump) => Ok(Pending::Dump(dump)),
        }
    }
}

/// A request whose family is known.
struct Asked<'a> {
    command: u8,
    is_dump: bool,
    attributes: Attributes<'a>,
    /// The header of its answers.
    reply: Header,
}

impl Asked<'_> {
    fn ctrl(self, out: &mut Vec<u8>) -> Result<Outcome, Errno> {
        let answer = ctrl::Answer::to(self.command, self.is_dump, self.attributes)?;
        if self.is_dump {
            let mut messages = Vec::new();
            answer.write(&mut messages, self.reply);
            return Ok(Outcome::Dump(Dump::ready(self.reply, messages)));
        }
        answer.write(out, self.reply);
        Ok(Outcome::Answered)
    }

    /// # Errors
    /// If the family has no such command, or the program may not ask it.
    fn check(&self, family: &Family, access: Access, reads: &[u8]) -> Result<(), Errno> {
        if !family.takes(self.command, self.is_dump) {
            return Err(Errno::NOT_SUPPORTED);
        }
        let needed = if reads.contains(&self.command) { Access::Read } else { Access::Full };
        if access < needed { Err(Errno::NOT_PERMITTED) } else { Ok(()) }
    }

    fn ipvs(
        self,
        family: &Family,
        access: Access,
        table: &mut impl Table,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, Refusal> {
        self.check(family, access, &IPVS_READS)?;
        let body = Body::read(self.attributes.clone())?;
        match self.command {
            command::GET_SERVICE if self.is_dump => Ok(Outcome::Dump(Dump::services(self.reply))),
            command::GET_SERVER => {
                let key = body.service.and_then(|bytes| ServiceMessage::read(bytes).ok()?.key().ok()?);
                Ok(Outcome::Dump(Dump::servers(self.reply, key)))
            }
            command::GET_DAEMON => Ok(Outcome::Dump(Dump::daemons(self.reply, table))),
            command::GET_SERVICE => {
                let view = known(&service(&body)?).and_then(|key| table.service(&key).ok_or(Errno::NO_SUCH))?;
                let mut message = self.begin(out, command::NEW_SERVICE);
                ServiceMessage::of_view(&view).write(&mut message, ipvs::attribute::SERVICE, Side::Director);
                message.finish();
                Ok(Outcome::Answered)
            }
            command::GET_CONFIG => {
                let mut message = self.begin(out, command::SET_CONFIG);
                TimeoutsMessage::of_view(&table.timeouts()).write(&mut message);
                message.finish();
                Ok(Outcome::Answered)
            }
            command::GET_INFO => {
                let mut message = self.begin(out, command::SET_INFO);
                message.u32(ipvs::attribute::INFO_VERSION, ipvs::IPVS_VERSION);
                message.u32(ipvs::attribute::INFO_TABLE_SIZE, ipvs::TABLE_SIZE);
                message.finish();
                Ok(Outcome::Answered)
            }
            _ => {
                let change = |table: &mut _| ipvs_change(self.command, &body, table);
                once(table, body.request_id.as_ref(), change)?;
                Ok(Outcome::Done)
            }
        }
    }

    fn lvs(
        self,
        family: &Family,
        access: Access,
        table: &mut impl Table,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, Refusal> {
        self.check(family, access, &LVS_READS)?;
        let request = lvs::Request::read(self.command, self.is_dump, self.attributes.clone())?;
        let mut message = |command: u8, write: &mut dyn FnMut(&mut Writer<'_>)| {
            let generic = GenericHeader { command, version: lvs::VERSION };
            let mut message = Writer::generic(out, self.reply, generic);
            write(&mut message);
            message.finish();
            Ok(Outcome::Answered)
        };
        match self.command {
            lvs::command::GET_CONNECTION => Ok(Outcome::Dump(Dump::connections(self.reply))),
            lvs::command::GET_SETTING if self.is_dump => Ok(Outcome::Dump(Dump::settings(self.reply, table))),
            lvs::command::GET_SETTING => {
                let name = request.name.as_deref().ok_or(Errno::INVALID)?;
                let found = table.settings().into_iter().find(|(known, _)| known == name);
                let (name, value) = found.ok_or_else(|| Refusal {
                    errno: Errno::NO_ENTRY,
                    text: Some("there is no setting ".to_string() + name),
                })?;
                message(lvs::command::SET_SETTING, &mut |out| {
                    out.text(lvs::attribute::NAME, &name);
                    out.text(lvs::attribute::VALUE, &value);
                })
            }
            lvs::command::GET_STATISTICS => {
                let statistics = table.statistics();
                message(lvs::command::STATISTICS, &mut |out| {
                    ipvs::write_statistics(out, lvs::attribute::STATISTICS, &statistics);
                })
            }
            lvs::command::GET_STATE => {
                let state = table.state();
                message(lvs::command::STATE, &mut |out| state.write(out))
            }
            _ => {
                once(table, request.request_id.as_ref(), |table| match self.command {
                    lvs::command::SET_SETTING => {
                        let (Some(name), Some(value)) = (&request.name, &request.value) else {
                            return Err(Errno::INVALID.into());
                        };
                        table.set_setting(name, value)
                    }
                    _ => table.apply(&request.to_command()?),
                })?;
                Ok(Outcome::Done)
            }
        }
    }

    /// Begins an answer of the IPVS family.
    fn begin<'a>(&self, out: &'a mut Vec<u8>, command: u8) -> Writer<'a> {
        Writer::generic(out, self.reply, GenericHeader { command, version: ipvs::VERSION })
    }
}

/// Carries a change out, unless it was carried out before under the same identifier.
fn once<T: Table>(
    table: &mut T,
    request_id: Option<&[u8; 16]>,
    change: impl FnOnce(&mut T) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let Some(id) = request_id else { return change(table) };
    if let Some(answer) = table.first_answer(id) {
        return answer;
    }
    let answer = change(table);
    table.remember(id, &answer);
    answer
}

/// Everything of the IPVS family that changes something, in the kernel's order of checks: the service's attributes,
/// whether it is there, the server's attributes.
fn ipvs_change(command: u8, body: &Body<'_>, table: &mut impl Table) -> Result<(), Refusal> {
    match command {
        command::FLUSH => table.apply(&Command::Flush),
        command::ZERO if body.service.is_none() => table.apply(&Command::Zero(None)),
        command::SET_CONFIG => set_timeouts(body.timeouts, table),
        command::NEW_DAEMON => table.start_daemon(&daemon(body)?),
        command::DEL_DAEMON => table.stop_daemon(daemon(body)?.role()?),
        command::NEW_SERVICE => {
            let service = service(body)?;
            let key = service.key()?;
            let config = service.config(family_of(&service)?, None)?;
            table.apply(&Command::AddService(key.ok_or(Errno::PROTOCOL)?, config))
        }
        command::SET_SERVICE => {
            let service = service(body)?;
            // What is missing is told before whether the service is there.
            service.config(family_of(&service)?, None)?;
            let key = known(&service)?;
            let before = table.service(&key).ok_or(Errno::NO_SUCH)?;
            let config = service.config(key.family(), Some(&before.config))?;
            table.apply(&Command::EditService(key, config))
        }
        command::DEL_SERVICE => table.apply(&Command::DeleteService(known(&service(body)?)?)),
        command::ZERO => table.apply(&Command::Zero(Some(known(&service(body)?)?))),
        _ => server_change(command, body, table),
    }
}

fn server_change(command: u8, body: &Body<'_>, table: &mut impl Table) -> Result<(), Refusal> {
    let key = known(&service(body)?)?;
    table.service(&key).ok_or(Errno::NO_SUCH)?;
    let server = ServerMessage::read(body.server.ok_or(Errno::INVALID)?)?;
    match command {
        command::NEW_SERVER => table.apply(&Command::AddServer(key, server.config(key.family(), None)?)),
        command::SET_SERVER => {
            let before = table.server(&key, &server.key(key.family())?);
            let config = server.config(key.family(), before.as_ref())?;
            table.apply(&Command::EditServer(key, config))
        }
        _ => table.apply(&Command::DeleteServer(key, server.key(key.family())?)),
    }
}

/// 0 and nothing leave a timeout as it is; what is negative as a signed number is refused.
fn set_timeouts(timeouts: TimeoutsMessage, table: &mut impl Table) -> Result<(), Refusal> {
    let TimeoutsMessage { tcp, tcp_fin, udp } = timeouts;
    if [tcp, tcp_fin, udp].into_iter().flatten().any(|seconds| seconds > i32::MAX as u32) {
        return Err(Errno::INVALID.into());
    }
    let wanted = |seconds: Option<u32>| {
        seconds.filter(|seconds| *seconds != 0).map(|seconds| core::time::Duration::from_secs(seconds.into()))
    };
    table.apply(&Command::SetTimeouts { tcp: wanted(tcp), tcp_fin: wanted(tcp_fin), udp: wanted(udp) })
}

fn service(body: &Body<'_>) -> Result<ServiceMessage, Errno> {
    ServiceMessage::read(body.service.ok_or(Errno::INVALID)?)
}

fn daemon(body: &Body<'_>) -> Result<ipvs::DaemonMessage, Errno> {
    ipvs::DaemonMessage::read(body.daemon.ok_or(Errno::INVALID)?)
}

/// A service that may be there.
fn known(service: &ServiceMessage) -> Result<ServiceKey, Errno> {
    service.key()?.ok_or(Errno::NO_SUCH)
}

/// The service's family, also where its protocol is one that no service has.
fn family_of(service: &ServiceMessage) -> Result<AddressFamily, Errno> {
    match service.family {
        Some(ipvs::AF_INET) => Ok(AddressFamily::Ipv4),
        Some(ipvs::AF_INET6) => Ok(AddressFamily::Ipv6),
        _ => Err(Errno::FAMILY),
    }
}

/// What an error quotes, and how.
struct Quote<'a> {
    header: Header,
    port: Option<u32>,
    quoted: &'a [u8],
    caps: bool,
}

fn write_ack(out: &mut Vec<u8>, request: Header, port: Option<u32>) {
    let mut quoted = Vec::with_capacity(HEADER_LEN);
    Writer::new(&mut quoted, request).abandon();
    let header = answer_to(request, port, CAPPED);
    let mut message = Writer::new(out, header);
    message.raw(&0_i32.to_ne_bytes());
    message.raw(&quoted);
    message.finish();
}

fn write_error(out: &mut Vec<u8>, quote: Quote<'_>, errno: Errno, text: Option<&str>) {
    let capped = if quote.caps { CAPPED } else { 0 };
    let told = if text.is_some() { HAS_TEXT } else { 0 };
    let mut message = Writer::new(out, answer_to(quote.header, quote.port, capped | told));
    message.raw(&(-errno.0).to_ne_bytes());
    message.raw(if quote.caps { &quote.quoted[..HEADER_LEN] } else { quote.quoted });
    if let Some(text) = text {
        message.text(TEXT, text);
    }
    message.finish();
}

fn answer_to(request: Header, port: Option<u32>, flags: u16) -> Header {
    Header { kind: ERROR, flags, port: port.unwrap_or(request.port), ..request }
}

/// Flag of an error that has attributes behind what it quotes, and the number of the text there.
pub(crate) const HAS_TEXT: u16 = 0x200;
pub(crate) const TEXT: u16 = 1;

/// Commands that change nothing.
const IPVS_READS: [u8; 5] =
    [command::GET_SERVICE, command::GET_SERVER, command::GET_DAEMON, command::GET_CONFIG, command::GET_INFO];
const LVS_READS: [u8; 4] =
    [lvs::command::GET_SETTING, lvs::command::GET_CONNECTION, lvs::command::GET_STATISTICS, lvs::command::GET_STATE];
