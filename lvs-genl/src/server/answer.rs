//! One request of a known family: whether it may be asked, what it changes, what is answered. The order of checks is the
//! kernel's.
//! Source: the recordings in `conformance/netlink/`: `raw_service`, `raw_dest`, `raw_config`, `error_kernel`.

use alloc::string::ToString;
use alloc::vec::Vec;

use lvs_core::{AddressFamily, Command, ServiceKey};

use super::dump::Dump;
use super::{Access, Refusal, Table};
use crate::ctrl::{self, Family, IPVS_ID, LVS_ID};
use crate::errno::Errno;
use crate::ipvs::{self, Body, ServerMessage, ServiceMessage, Side, TimeoutsMessage, command};
use crate::lvs;
use crate::wire::{Attributes, GenericHeader, Header, Writer};

/// What comes of a request.
pub(super) enum Outcome {
    /// Nothing to say but an acknowledgment, if one is asked for.
    Done,
    /// An answer was written; an acknowledgment follows, if one is asked for.
    Answered,
    /// A listing begins.
    Dump(Dump),
}

/// A request whose family is known.
pub(super) struct Asked<'a> {
    pub command: u8,
    pub is_dump: bool,
    pub attributes: Attributes<'a>,
    /// The header of its answers.
    pub reply: Header,
}

impl Asked<'_> {
    /// Answers in `nlctrl`.
    pub fn ctrl(self, out: &mut Vec<u8>) -> Result<Outcome, Errno> {
        let answer = ctrl::Answer::to(self.command, self.is_dump, self.attributes)?;
        if self.is_dump {
            let mut messages = Vec::new();
            answer.write(&mut messages, self.reply);
            return Ok(Outcome::Dump(Dump::ready(self.reply, messages)));
        }
        answer.write(out, self.reply);
        Ok(Outcome::Answered)
    }

    /// Whether it changes something, so that a transaction keeps it.
    pub fn is_change(&self, family: &Family) -> bool {
        match family.id {
            IPVS_ID => !IPVS_READS.contains(&self.command),
            LVS_ID => !LVS_READS.contains(&self.command),
            _ => false,
        }
    }

    /// # Errors
    /// If the family has no such command, or the program may not ask it.
    pub fn may_be_asked(&self, family: &Family, access: Access) -> Result<(), Errno> {
        match family.id {
            IPVS_ID => self.check(family, access, &IPVS_READS),
            _ => self.check(family, access, &LVS_READS),
        }
    }

    fn check(&self, family: &Family, access: Access, reads: &[u8]) -> Result<(), Errno> {
        if !family.takes(self.command, self.is_dump) {
            return Err(Errno::NOT_SUPPORTED);
        }
        let needed = if reads.contains(&self.command) { Access::Read } else { Access::Full };
        if access < needed { Err(Errno::NOT_PERMITTED) } else { Ok(()) }
    }

    /// Answers in the IPVS family.
    pub fn ipvs(
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

    /// Answers in the LVS family.
    pub fn lvs(
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
                    at: None,
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
            let before = table.service_config(&key).ok_or(Errno::NO_SUCH)?;
            let config = service.config(key.family(), Some(&before))?;
            table.apply(&Command::EditService(key, config))
        }
        command::DEL_SERVICE => table.apply(&Command::DeleteService(known(&service(body)?)?)),
        command::ZERO => table.apply(&Command::Zero(Some(known(&service(body)?)?))),
        _ => server_change(command, body, table),
    }
}

/// Of a server: whether the service is there is told before what is wrong with the server's attributes.
fn server_change(command: u8, body: &Body<'_>, table: &mut impl Table) -> Result<(), Refusal> {
    let key = known(&service(body)?)?;
    match server_command(command, &key, body, table) {
        Ok(command) => table.apply(&command),
        Err(_) if table.service_config(&key).is_none() => Err(Errno::NO_SUCH.into()),
        Err(errno) => Err(errno.into()),
    }
}

fn server_command(command: u8, key: &ServiceKey, body: &Body<'_>, table: &mut impl Table) -> Result<Command, Errno> {
    let server = ServerMessage::read(body.server.ok_or(Errno::INVALID)?)?;
    match command {
        command::NEW_SERVER => Ok(Command::AddServer(*key, server.config(key.family(), None)?)),
        command::SET_SERVER => {
            let before = table.server(key, &server.key(key.family())?);
            Ok(Command::EditServer(*key, server.config(key.family(), before.as_ref())?))
        }
        _ => Ok(Command::DeleteServer(*key, server.key(key.family())?)),
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

/// Commands that change nothing.
const IPVS_READS: [u8; 5] =
    [command::GET_SERVICE, command::GET_SERVER, command::GET_DAEMON, command::GET_CONFIG, command::GET_INFO];
const LVS_READS: [u8; 4] =
    [lvs::command::GET_SETTING, lvs::command::GET_CONNECTION, lvs::command::GET_STATISTICS, lvs::command::GET_STATE];
