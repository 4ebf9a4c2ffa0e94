//! The family of families, `nlctrl`: how a program learns a family's number and what it takes. Every conversation of
//! stock programs begins here.
//! Source: the recordings in `conformance/netlink/` (`raw_family`).

use alloc::vec::Vec;

use crate::errno::Errno;
use crate::ipvs::command as ipvs;
use crate::lvs;
use crate::wire::{Attributes, GenericHeader, Header, MULTI, Writer};

/// Number of this family, the same everywhere.
pub const ID: u16 = 16;
/// Number of the IPVS family here. Linux gives numbers out as modules are loaded: ask for it by name.
pub const IPVS_ID: u16 = 32;
/// Number of the [`crate::lvs`] family here: ask for it by name too.
pub const LVS_ID: u16 = 33;

/// Asks for a family.
pub const GET_FAMILY: u8 = 3;
/// The answer to [`GET_FAMILY`].
pub const NEW_FAMILY: u8 = 1;
/// Asks for what a family's attributes look like.
const GET_POLICY: u8 = 10;
/// The version of the answers.
const VERSION: u8 = 2;

/// What there is to know of a family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Family {
    /// The type of its messages.
    pub id: u16,
    /// Its name.
    pub name: &'static str,
    version: u32,
    attribute_max: u32,
    /// Its commands and how each may be asked.
    operations: &'static [(u8, u32)],
    /// Its multicast group: name and number.
    group: Option<(&'static str, u32)>,
}

impl Family {
    /// The family with this type.
    pub fn by_id(id: u16) -> Option<&'static Self> {
        FAMILIES.iter().find(|family| family.id == id)
    }

    /// The family with this name; case matters.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        FAMILIES.iter().find(|family| family.name == name)
    }

    /// How `command` may be asked.
    fn flags(&self, command: u8) -> Option<u32> {
        self.operations.iter().find(|(known, _)| *known == command).map(|(_, flags)| *flags)
    }

    /// Whether `command` may be asked, for one thing or as a dump.
    pub(crate) fn takes(&self, command: u8, is_dump: bool) -> bool {
        let wanted = if is_dump { DUMP } else { DO };
        self.flags(command).is_some_and(|flags| flags & wanted != 0)
    }

    fn write(&self, out: &mut Vec<u8>, header: Header) {
        let generic = GenericHeader { command: NEW_FAMILY, version: VERSION };
        let mut message = Writer::generic(out, header, generic);
        message.text(FAMILY_NAME, self.name);
        message.u16(FAMILY_ID, self.id);
        message.u32(FAMILY_VERSION, self.version);
        message.u32(HEADER_SIZE, 0);
        message.u32(ATTRIBUTE_MAX, self.attribute_max);
        message.nested(OPERATIONS, |list| {
            for (place, &(command, flags)) in (1..).zip(self.operations) {
                list.nested(place, |operation| {
                    operation.u32(1, command.into());
                    operation.u32(2, flags);
                });
            }
        });
        if let Some((name, number)) = self.group {
            message.nested(GROUPS, |list| {
                list.nested(1, |group| {
                    group.u32(2, number);
                    group.text(1, name);
                });
            });
        }
        message.finish();
    }
}

/// What to answer to a request of this family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// About one family.
    Family(&'static Family),
    /// About every family.
    Families,
    /// What the IPVS family's attributes look like, for one command or for all.
    Policy(Option<u8>),
}

impl Answer {
    /// # Errors
    /// [`Errno::NOT_SUPPORTED`] for other commands, [`Errno::INVALID`] without a family or with a name that has no end
    /// or is longer than 15 bytes, [`Errno::NO_ENTRY`] for a family that is not there.
    pub fn to(command: u8, is_dump: bool, attributes: Attributes<'_>) -> Result<Self, Errno> {
        match (command, is_dump) {
            (GET_FAMILY, true) => Ok(Self::Families),
            (GET_FAMILY, false) => Asked::read(attributes)?.family().map(Self::Family),
            (GET_POLICY, true) => {
                let asked = Asked::read(attributes)?;
                match asked.family()?.id {
                    IPVS_ID => Ok(Self::Policy(asked.operation)),
                    _ => Err(Errno::NO_ENTRY),
                }
            }
            _ => Err(Errno::NOT_SUPPORTED),
        }
    }

    /// Writes the messages.
    pub fn write(self, out: &mut Vec<u8>, header: Header) {
        let many = Header { flags: header.flags | MULTI, ..header };
        match self {
            Self::Family(family) => family.write(out, header),
            Self::Families => FAMILIES.iter().for_each(|family| family.write(out, many)),
            Self::Policy(operation) => write_policy(out, many, operation),
        }
    }
}

/// What a request says.
#[derive(Default)]
struct Asked<'a> {
    name: Option<&'a str>,
    id: Option<u16>,
    operation: Option<u8>,
}

impl<'a> Asked<'a> {
    fn read(attributes: Attributes<'a>) -> Result<Self, Errno> {
        let mut asked = Self::default();
        for found in attributes {
            match found.number {
                FAMILY_NAME => {
                    let name = found.text().filter(|name| name.len() < NAME_LEN);
                    asked.name = Some(name.ok_or(Errno::INVALID)?);
                }
                FAMILY_ID => asked.id = Some(found.u16().ok_or(Errno::RANGE)?),
                OPERATION => {
                    let number = found.u32().ok_or(Errno::RANGE)?;
                    asked.operation = Some(u8::try_from(number).map_err(|_| Errno::INVALID)?);
                }
                _ => {}
            }
        }
        Ok(asked)
    }

    /// The name wins.
    fn family(&self) -> Result<&'static Family, Errno> {
        let found = match (self.name, self.id) {
            (Some(name), _) => Family::by_name(name),
            (None, Some(id)) => Family::by_id(id),
            (None, None) => return Err(Errno::INVALID),
        };
        found.ok_or(Errno::NO_ENTRY)
    }
}

/// First each command with the number of its policy, then the one policy, an attribute a message.
fn write_policy(out: &mut Vec<u8>, header: Header, operation: Option<u8>) {
    let mut message = |number: u16, content: &dyn Fn(&mut Writer<'_>)| {
        let generic = GenericHeader { command: GET_POLICY, version: VERSION };
        let mut message = Writer::generic(out, header, generic);
        message.u16(FAMILY_ID, IPVS_ID);
        message.nested_as(number, true, content);
        message.finish();
    };
    let wanted = IPVS.operations.iter().filter(|(command, _)| operation.is_none_or(|only| only == *command));
    // Linux leaves the two that are dumps only out.
    for (command, _) in wanted.filter(|(_, flags)| flags & DO != 0) {
        message(OPERATION_POLICY, &|list| list.nested_as((*command).into(), true, |policy| policy.u32(1, 0)));
    }
    for attribute in 1..=crate::ipvs::attribute::LAST {
        message(POLICY, &|list| {
            list.nested_as(0, true, |policy| {
                policy.nested_as(attribute, true, |attribute_policy| {
                    if attribute <= crate::ipvs::attribute::DAEMON {
                        attribute_policy.u32(1, TYPE_NESTED);
                    } else {
                        attribute_policy.u64(4, 0);
                        attribute_policy.u64(5, u32::MAX.into());
                        attribute_policy.u32(1, TYPE_U32);
                    }
                });
            });
        });
    }
}

const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const FAMILY_VERSION: u16 = 3;
const HEADER_SIZE: u16 = 4;
const ATTRIBUTE_MAX: u16 = 5;
const OPERATIONS: u16 = 6;
const GROUPS: u16 = 7;
const POLICY: u16 = 8;
const OPERATION_POLICY: u16 = 9;
const OPERATION: u16 = 10;
/// Longest name of a family, its end mark included.
const NAME_LEN: usize = 16;
/// Kinds of attributes, as policies name them.
const TYPE_U32: u32 = 4;
const TYPE_NESTED: u32 = 13;

/// How a command may be asked: by the administrator only, for one thing, as a dump; its attributes have a policy.
const ADMIN: u32 = 1;
const DO: u32 = 2;
const DUMP: u32 = 4;
const CHECKED: u32 = 8;

static FAMILIES: [Family; 3] = [
    Family {
        id: ID,
        name: "nlctrl",
        version: 2,
        attribute_max: 0,
        operations: &[(GET_FAMILY, CHECKED | DUMP | DO), (GET_POLICY, CHECKED | DUMP)],
        group: Some(("notify", 16)),
    },
    IPVS,
    Family {
        id: LVS_ID,
        name: lvs::NAME,
        version: lvs::VERSION as u32,
        attribute_max: lvs::attribute::LAST as u32,
        operations: lvs::OPERATIONS,
        group: None,
    },
];

const IPVS: Family = Family {
    id: IPVS_ID,
    name: crate::ipvs::NAME,
    version: crate::ipvs::VERSION as u32,
    attribute_max: crate::ipvs::attribute::LAST as u32,
    operations: &[
        (ipvs::NEW_SERVICE, CHECKED | DO | ADMIN),
        (ipvs::SET_SERVICE, CHECKED | DO | ADMIN),
        (ipvs::DEL_SERVICE, CHECKED | DO | ADMIN),
        (ipvs::GET_SERVICE, CHECKED | DUMP | DO | ADMIN),
        (ipvs::NEW_SERVER, CHECKED | DO | ADMIN),
        (ipvs::SET_SERVER, CHECKED | DO | ADMIN),
        (ipvs::DEL_SERVER, CHECKED | DO | ADMIN),
        (ipvs::GET_SERVER, CHECKED | DUMP | ADMIN),
        (ipvs::NEW_DAEMON, CHECKED | DO | ADMIN),
        (ipvs::DEL_DAEMON, CHECKED | DO | ADMIN),
        (ipvs::GET_DAEMON, CHECKED | DUMP | ADMIN),
        (ipvs::SET_CONFIG, CHECKED | DO | ADMIN),
        (ipvs::GET_CONFIG, CHECKED | DO | ADMIN),
        (ipvs::GET_INFO, CHECKED | DO | ADMIN),
        (ipvs::ZERO, CHECKED | DO | ADMIN),
        (ipvs::FLUSH, CHECKED | DO | ADMIN),
    ],
    group: None,
};
