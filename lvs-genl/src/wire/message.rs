//! Messages: reading those of a datagram, writing one.

use alloc::vec::Vec;

use super::{ATTRIBUTE_HEADER_LEN, Attributes, GENERIC_HEADER_LEN, HEADER_LEN, NESTED, aligned};

/// A message's header.
///
/// ```text
///  0       4    6     8         12      16
///  ├ length ┼ type ┼ flags ┼ sequence ┼ port ┤
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Length of the whole message in bytes, as it claims.
    pub length: u32,
    /// The message's type: [`super::ERROR`], [`super::DONE`], or a family's number.
    pub kind: u16,
    /// [`super::REQUEST`] and its neighbours.
    pub flags: u16,
    /// Number of the request; its answers repeat it.
    pub sequence: u32,
    /// Port id of the socket that asked.
    pub port: u32,
}

impl Header {
    fn read(bytes: &[u8; HEADER_LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
        Self {
            length: u32::from_ne_bytes([a, b, c, d]),
            kind: u16::from_ne_bytes([e, f]),
            flags: u16::from_ne_bytes([g, h]),
            sequence: u32::from_ne_bytes([i, j, k, l]),
            port: u32::from_ne_bytes([m, n, o, p]),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.length.to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&self.flags.to_ne_bytes());
        out.extend_from_slice(&self.sequence.to_ne_bytes());
        out.extend_from_slice(&self.port.to_ne_bytes());
    }
}

/// The generic header: what the family is asked to do, or answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GenericHeader {
    /// The family's command.
    pub command: u8,
    /// Version of the family's messages; nobody reads it.
    pub version: u8,
}

/// One message of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// Its header.
    pub header: Header,
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// The whole message, header included.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What follows the header.
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }

    /// The generic header and the attributes behind it; `None` if the message is too short for one.
    pub fn generic(&self) -> Option<(GenericHeader, Attributes<'a>)> {
        let ([command, version, _, _], attributes) = self.payload().split_first_chunk::<GENERIC_HEADER_LEN>()?;
        Some((GenericHeader { command: *command, version: *version }, Attributes::new(attributes)))
    }

    /// Of an error or acknowledgment: the error, 0 or a negative `errno`; `None` if the message is too short.
    pub fn error(&self) -> Option<i32> {
        Some(i32::from_ne_bytes(*self.payload().first_chunk()?))
    }
}

/// The messages of a datagram, in order. Ends at the first one whose length is less than a header's or reaches beyond
/// the datagram, as Linux does.
///
/// ```
/// use lvs_genl::wire::{Header, Messages, Writer};
///
/// let mut datagram = Vec::new();
/// Writer::new(&mut datagram, Header { length: 0, kind: 32, flags: 5, sequence: 1, port: 7 }).finish();
/// datagram.extend_from_slice(&[200, 0, 0, 0, 32, 0, 5, 0, 2, 0, 0, 0, 7, 0, 0, 0]); // claims 200 bytes
/// let sequences: Vec<u32> = Messages::new(&datagram).map(|message| message.header.sequence).collect();
/// assert_eq!(sequences, [1]);
/// ```
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// The messages of `datagram`.
    pub const fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl Messages<'_> {
    /// How many bytes of the datagram were not looked at yet.
    pub(crate) const fn rest_len(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = Header::read(self.rest.first_chunk()?);
        let len = usize::try_from(header.length).ok()?;
        if len < HEADER_LEN {
            return None;
        }
        let bytes = self.rest.get(..len)?;
        self.rest = self.rest.get(aligned(len)..).unwrap_or_default();
        Some(Message { header, bytes })
    }
}

/// Writes one message to the end of a buffer. Without [`Writer::finish`] the buffer holds half a message.
///
/// ```
/// use lvs_genl::wire::{GenericHeader, Header, Messages, Writer};
///
/// let mut datagram = Vec::new();
/// let header = Header { length: 0, kind: 32, flags: 5, sequence: 1, port: 7 };
/// let mut message = Writer::generic(&mut datagram, header, GenericHeader { command: 12, version: 1 });
/// message.u32(4, 900);
/// message.finish();
/// assert_eq!(datagram.len(), 28);
/// let message = Messages::new(&datagram).next().unwrap();
/// assert_eq!(message.generic().unwrap().1.next().unwrap().u32(), Some(900));
/// ```
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Writer<'a> {
    /// Begins a message with this header; its length is filled in at the end.
    pub fn new(out: &'a mut Vec<u8>, header: Header) -> Self {
        let start = out.len();
        header.write(out);
        Self { out, start }
    }

    /// Begins a message of a generic family.
    pub fn generic(out: &'a mut Vec<u8>, header: Header, generic: GenericHeader) -> Self {
        let writer = Self::new(out, header);
        writer.out.extend_from_slice(&[generic.command, generic.version, 0, 0]);
        writer
    }

    /// Bytes that are no attribute, padded to four.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.pad();
    }

    /// An attribute. What is longer than an attribute can be (65,531 bytes) is cut.
    pub fn bytes(&mut self, number: u16, value: &[u8]) {
        let len = value.len().min(VALUE_MAX);
        self.attribute_header(number, len);
        self.out.extend_from_slice(&value[..len]);
        self.pad();
    }

    /// A text with its end mark.
    pub fn text(&mut self, number: u16, text: &str) {
        let len = text.len().min(VALUE_MAX - 1);
        self.attribute_header(number, len + 1);
        self.out.extend_from_slice(&text.as_bytes()[..len]);
        self.out.push(0);
        self.pad();
    }

    /// An attribute without content, which says something by being there.
    pub fn flag(&mut self, number: u16) {
        self.bytes(number, &[]);
    }

    /// A number.
    pub fn u8(&mut self, number: u16, value: u8) {
        self.bytes(number, &[value]);
    }

    /// A number in host order.
    pub fn u16(&mut self, number: u16, value: u16) {
        self.bytes(number, &value.to_ne_bytes());
    }

    /// A number in network order: ports.
    pub fn be16(&mut self, number: u16, value: u16) {
        self.bytes(number, &value.to_be_bytes());
    }

    /// A number in host order.
    pub fn u32(&mut self, number: u16, value: u32) {
        self.bytes(number, &value.to_ne_bytes());
    }

    /// A number in host order.
    pub fn u64(&mut self, number: u16, value: u64) {
        self.bytes(number, &value.to_ne_bytes());
    }

    /// An attribute that holds what `content` writes. Linux's answers leave the mark of nested attributes out, its
    /// clients' requests have it: `number | NESTED`.
    pub fn nested(&mut self, number: u16, content: impl FnOnce(&mut Self)) {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; ATTRIBUTE_HEADER_LEN]);
        content(self);
        if self.out.len() - start > usize::from(u16::MAX) {
            // No attribute is that long, so nothing true can be said: it is left empty.
            self.out.truncate(start + ATTRIBUTE_HEADER_LEN);
        }
        let len = (self.out.len() - start) as u16;
        self.out[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.out[start + 2..start + 4].copy_from_slice(&number.to_ne_bytes());
    }

    /// [`Writer::nested`] with or without the mark.
    pub(crate) fn nested_as(&mut self, number: u16, is_marked: bool, content: impl FnOnce(&mut Self)) {
        self.nested(if is_marked { number | NESTED } else { number }, content);
    }

    /// Fills the message's length in.
    pub fn finish(self) {
        let len = (self.out.len() - self.start) as u32;
        self.out[self.start..self.start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Leaves the message with the length that its header says.
    pub(crate) fn abandon(self) {}

    fn attribute_header(&mut self, number: u16, value_len: usize) {
        let len = (ATTRIBUTE_HEADER_LEN + value_len) as u16;
        self.out.extend_from_slice(&len.to_ne_bytes());
        self.out.extend_from_slice(&number.to_ne_bytes());
    }

    fn pad(&mut self) {
        let len = self.out.len() - self.start;
        self.out.resize(self.start + aligned(len), 0);
    }
}

/// An attribute's length is a 16-bit number, its header included.
const VALUE_MAX: usize = u16::MAX as usize - ATTRIBUTE_HEADER_LEN;
