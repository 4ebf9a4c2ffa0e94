//! Netlink's framing: messages in a datagram, the generic header, attributes. Knows no family.
//! Readers never panic and never read beyond what they were given, whatever lengths claim; writers keep each message
//! in one buffer and fill its length in at the end.
//! Source: RFC 3549 §2.2 and §2.3, and the recordings in `conformance/netlink/`. Numbers are in host order.

mod attribute;
mod message;

pub use attribute::{Attribute, Attributes};
pub use message::{GenericHeader, Header, Message, Messages, Writer};

/// Length of a message's header.
pub const HEADER_LEN: usize = 16;
/// Length of the generic header behind it.
pub const GENERIC_HEADER_LEN: usize = 4;
/// Length of an attribute's header.
pub const ATTRIBUTE_HEADER_LEN: usize = 4;
/// Message type: a remark without content.
pub const NOOP: u16 = 1;
/// Message type: an error, or with error 0 an acknowledgment.
pub const ERROR: u16 = 2;
/// Message type: the end of a dump.
pub const DONE: u16 = 3;
/// The first message type that names a family; those below are netlink's own.
pub const FIRST_FAMILY: u16 = 16;

/// Flag: this is a request.
pub const REQUEST: u16 = 0x001;
/// Flag: more messages of this answer follow, the last one of type [`DONE`].
pub const MULTI: u16 = 0x002;
/// Flag: an acknowledgment is asked for.
pub const ACK: u16 = 0x004;
/// Flags of a request for every object: both of them make a dump.
pub const DUMP: u16 = 0x300;
/// Flag of an error or acknowledgment that quotes the request's header alone.
pub const CAPPED: u16 = 0x100;

/// Marks an attribute that holds attributes.
pub const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are its number.
const NUMBER_MASK: u16 = 0x3fff;

/// Messages and attributes begin at multiples of four bytes.
const fn aligned(len: usize) -> usize {
    len.saturating_add(3) & !3
}
