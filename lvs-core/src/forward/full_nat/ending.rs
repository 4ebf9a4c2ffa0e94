//! How a connection that began with a preamble ends. A server that has forgotten a connection and has SYN cookies takes
//! the answer to its SYN|ACK for a new one, for two minutes, and then what the client says first passes for the
//! preamble. So nothing of a client passes that may meet such a server. Kept only where there is a preamble; decides
//! nothing of numbers, which are all as the server sees them.
//! RFC 4987 §3.6 (cookies); RFC 9293 §3.10.7 and RFC 5961 §3 (which RSTs are taken).

use core::time::Duration;

use crate::forward::full_nat::sequence::SegmentNumbers;
use crate::snapshot::codec::{Reader, Writer};
use crate::time::Instant;

/// What both sides have said of the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ending {
    /// The number of a RST of the client, as long as the server may have taken it.
    client_reset: Option<u32>,
    server_reset: bool,
    /// The number behind the client's FIN.
    client_end: Option<u32>,
    /// The server has acknowledged it.
    client_end_arrived: bool,
    /// When the server's FIN came.
    server_end: Option<Instant>,
    /// That is so long ago that the server may have forgotten the connection.
    may_be_forgotten: bool,
}

/// Where a connection's numbers begin: behind both SYNs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beginning {
    pub client: u32,
    pub server: u32,
}

impl Ending {
    /// For a snapshot.
    pub fn write(self, to: &mut Writer<'_>, now: Instant) {
        to.u8(u8::from(self.client_reset.is_some())
            | u8::from(self.server_reset) << 1
            | u8::from(self.client_end.is_some()) << 2
            | u8::from(self.client_end_arrived) << 3
            | u8::from(self.server_end.is_some()) << 4
            | u8::from(self.may_be_forgotten) << 5);
        for number in [self.client_reset, self.client_end].into_iter().flatten() {
            to.u32(number);
        }
        if let Some(end) = self.server_end {
            to.duration(now.duration_since(end));
        }
    }

    /// The same again; `None` if it is nothing of the kind. A time before the beginning of the director's is taken for
    /// one that is long ago.
    pub fn read(from: &mut Reader<'_>, now: Instant) -> Option<Self> {
        let flags = from.u8()?;
        let has = |bit: u8| flags >> bit & 1 == 1;
        let client_reset = if has(0) { Some(from.u32()?) } else { None };
        let client_end = if has(2) { Some(from.u32()?) } else { None };
        let age = if has(4) { Some(from.duration()?) } else { None };
        let server_end = age.map(|age| Instant::from_nanos(now.as_nanos().saturating_sub(age.as_nanos() as u64)));
        Some(Self {
            client_reset,
            server_reset: has(1),
            client_end,
            client_end_arrived: has(3),
            server_end,
            may_be_forgotten: has(5) || age.is_some_and(|age| age >= FIN_WAIT_MIN),
        })
    }

    pub fn after_client_reset(self, sequence: u32) -> Self {
        Self { client_reset: Some(sequence), ..self }
    }

    pub fn after_server_reset(self) -> Self {
        Self { server_reset: true, ..self }
    }

    /// After any other segment of the client.
    pub fn after_client_segment(self, now: Instant, segment: &SegmentNumbers) -> Self {
        let may_be_forgotten = self.server_end.is_some_and(|end| now >= end + FIN_WAIT_MIN);
        if !segment.fin {
            return Self { may_be_forgotten, ..self };
        }
        let end = segment.sequence.wrapping_add(segment.len).wrapping_add(1);
        Self {
            may_be_forgotten,
            // One that has arrived was the end, whatever is said after it.
            client_end: if self.client_end_arrived { self.client_end } else { Some(end) },
            ..self
        }
    }

    /// After any other segment of the server, the one with its SYN included.
    pub fn after_server_segment(self, now: Instant, segment: &SegmentNumbers) -> Self {
        let Some(acknowledgment) = segment.acknowledgment else { return self };
        let arrived = |end: u32| acknowledgment.wrapping_sub(end) as i32 >= 0;
        Self {
            client_reset: self.client_reset.filter(|reset| may_have_been_taken(*reset, acknowledgment)),
            client_end_arrived: self.client_end_arrived || self.client_end.is_some_and(arrived),
            server_end: if segment.fin { Some(now) } else { self.server_end },
            ..self
        }
    }

    /// Whether a segment of the client could open a connection of which nothing is known.
    pub fn refuses(&self, segment: &SegmentNumbers, has_data: bool, beginning: Beginning) -> bool {
        if self.server_reset || self.client_reset.is_some() {
            return true;
        }
        // The server may have forgotten the connection once both ends have arrived: what is empty may then open one, over
        // which nothing will come. Or some time after its own end: the client may have more to say, all but what has the
        // numbers of an answer to the SYN|ACK.
        let is_over = self.client_end_arrived && self.server_end.is_some();
        (is_over && has_data) || (self.may_be_forgotten && answers_syn(segment, beginning))
    }

    /// Whether segments of the client need looking at.
    pub const fn has_begun(&self) -> bool {
        self.server_reset || self.client_reset.is_some() || self.server_end.is_some()
    }

    /// Whether a segment of the server may change this, be it no FIN and no RST.
    pub const fn follows_server(&self) -> bool {
        self.client_reset.is_some() || (self.client_end.is_some() && !self.client_end_arrived)
    }
}

/// Whether a server that expects the number `acknowledgment` next may have been reset by a RST with the number `reset`,
/// before it sent that or after. One that has more than it, or whose window the RST lies beyond, was not.
const fn may_have_been_taken(reset: u32, acknowledgment: u32) -> bool {
    let ahead = reset.wrapping_sub(acknowledgment) as i32;
    ahead >= 0 && ahead <= WINDOW_MAX
}

/// Whether the numbers add up to a cookie: Linux's hold for any pair of numbers that have moved on alike, and for
/// sequence numbers up to three off, which stand for another segment size.
fn answers_syn(segment: &SegmentNumbers, beginning: Beginning) -> bool {
    let sent = segment.sequence.wrapping_sub(beginning.client);
    let received = segment.acknowledgment.map(|number| number.wrapping_sub(beginning.server));
    received.is_some_and(|received| (received.wrapping_sub(sent) as i32).unsigned_abs() < 4)
}

/// Servers remember for longer that they have ended, if their client has not: Linux for 60 s (`tcp_fin_timeout`).
const FIN_WAIT_MIN: Duration = Duration::from_secs(10);

/// RFC 7323 §2.3: no window is larger.
const WINDOW_MAX: i32 = 1 << 30;
