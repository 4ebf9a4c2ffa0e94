//! The few bytes of netlink that this library reads or makes up (RFC 3549 §2.3.2; shapes as recorded from Linux).

/// A message's header.
pub const HEADER: usize = 16;

/// Message types and flags.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const MULTI: u16 = 2;

/// What the first message of a datagram means for whoever waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The last one: an acknowledgment, an error or the end of a dump.
    Last,
    /// A part of a dump: more will come.
    Part,
    /// An answer of one datagram. An acknowledgment may follow.
    Whole,
}

/// Reads it from the start of a datagram; a datagram too short for a header is an answer all the same.
pub fn answer(start: &[u8]) -> Answer {
    match (half(start, 4), half(start, 6)) {
        (Some(ERROR | DONE), _) => Answer::Last,
        (_, Some(flags)) if flags & MULTI != 0 => Answer::Part,
        _ => Answer::Whole,
    }
}

/// Has the sender asked for an acknowledgment?
pub fn wants_ack(request: &[u8]) -> bool {
    half(request, 6).is_some_and(|flags| flags & 4 != 0)
}

/// The error that the kernel would answer `request` with: the negative number, then the whole request.
pub fn error(request: &[u8], errno: i32) -> Vec<u8> {
    let len = HEADER + 4 + request.len();
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend_from_slice(&ERROR.to_ne_bytes());
    bytes.extend_from_slice(&0_u16.to_ne_bytes());
    // Sequence number and port are the request's.
    bytes.extend_from_slice(request.get(8..HEADER).unwrap_or(&[0; 8]));
    bytes.extend_from_slice(&(-errno).to_ne_bytes());
    bytes.extend_from_slice(request);
    bytes
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}
