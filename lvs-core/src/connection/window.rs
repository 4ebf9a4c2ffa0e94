//! What was seen of the numbers of a TCP connection's two sides, to tell a segment of theirs from one that anybody may
//! have made up. Rough, as a connection tracker's: a segment is believed that lies where its receiver, by what it last
//! acknowledged and the largest window it offered, may take it, and that acknowledges what the other side has sent.
//! RFC 9293 §3.10.7.4, RFC 5961 §3 to §5, RFC 7323 §2.

use crate::verdict::Direction;
use crate::wire::parse::Headers;
use crate::wire::tcp::{self, TcpFlags};
use crate::wire::tcp_options::TcpOptions;
use crate::wire::{read_u16, stream};

/// A segment's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    pub flags: TcpFlags,
    pub sequence: u32,
    /// `None` without the ACK flag.
    pub acknowledgment: Option<u32>,
    /// Bytes of data.
    pub len: u32,
    pub window: u16,
    /// Of a SYN that offers to scale windows.
    pub scale: Option<u8>,
}

/// A connection whose numbers are followed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Numbers {
    client: Side,
    server: Side,
    /// The number of a SYN of the client's that the server has not answered.
    offered: Option<u32>,
}

/// One side, as it was seen.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Side {
    /// A number it has sent (its SYN's, at first), and the one behind its last.
    sent: Option<(u32, u32)>,
    /// What it expects next.
    acknowledged: Option<u32>,
    /// The largest window it has offered, in bytes.
    window: u32,
    scale: u8,
}

/// How the segments of a connection are judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rule {
    /// Replies bypass the director: nothing is known of the server but what the client acknowledges.
    pub replies_bypass: bool,
    /// A helper changes the lengths of what is said: numbers of the two sides are so far apart at most.
    pub slack: u32,
}

/// A window that everybody has, where none was seen.
const WINDOW: u32 = 65_535;
/// How far back a side's first number is remembered.
const MEMORY: u32 = 1 << 30;

impl Segment {
    /// Reads a whole TCP segment.
    pub fn read(bytes: &[u8], headers: &Headers) -> Option<Self> {
        let (sequence, acknowledgment) = stream::numbers(bytes, headers)?;
        let flags = headers.tcp_flags(bytes)?;
        let len = stream::payload(bytes, headers)?.len() as u32;
        let window = read_u16(bytes, headers.transport + WINDOW_OFFSET)?;
        let scale = if flags.syn() { scale_of(headers.payload(bytes)) } else { None };
        Some(Self { flags, sequence, acknowledgment, len, window, scale })
    }

    /// The number behind it.
    fn end(&self) -> u32 {
        let flags = u32::from(self.flags.syn()) + u32::from(self.flags.fin());
        self.sequence.wrapping_add(self.len).wrapping_add(flags)
    }
}

impl Numbers {
    /// Whether nothing was seen of the client: such a connection cannot be judged.
    pub fn is_unknown(&self) -> bool {
        self.client.sent.is_none()
    }

    /// Whether a segment is one that its side may have sent.
    pub fn believes(&self, direction: Direction, segment: &Segment, rule: Rule) -> bool {
        let (own, peer) = match direction {
            Direction::Request => (&self.client, &self.server),
            Direction::Reply => (&self.server, &self.client),
        };
        let acknowledges = |number| peer.has_sent(number, own.window, rule);
        if segment.flags.rst() {
            return match (peer.acknowledged, segment.acknowledgment) {
                (Some(_), _) => peer.expects(segment, own, rule),
                // Nothing of this side was acknowledged: it refuses a SYN.
                (None, Some(number)) if !rule.replies_bypass => acknowledges(number),
                (None, _) => rule.replies_bypass && own.is_near(segment.sequence),
            };
        }
        match (segment.flags.syn(), segment.acknowledgment) {
            // A SYN again, or one of a later connection.
            (true, None) => own.sent.is_none_or(|(first, end)| {
                segment.sequence == first || is_behind(segment.sequence, end) || segment.sequence == end
            }),
            (true, Some(number)) => {
                self.offered.is_some_and(|offered| offered.wrapping_add(1) == number) || acknowledges(number)
            }
            (false, Some(number)) => acknowledges(number) && peer.expects(segment, own, rule),
            // RFC 9293 §3.10.7.4: without ACK it is dropped.
            (false, None) => false,
        }
    }

    /// Follows a segment. `is_open`: both sides have answered.
    pub fn note(&mut self, direction: Direction, segment: &Segment, rule: Rule, is_open: bool) {
        if segment.flags.rst() || !(self.is_unknown() || self.believes(direction, segment, rule)) {
            return;
        }
        match (direction, segment.flags.syn()) {
            (Direction::Request, true) => self.note_client_syn(segment, rule, is_open),
            (Direction::Reply, true) => self.note_server_syn(segment),
            (Direction::Request, false) => self.client.note(segment),
            (Direction::Reply, false) => self.server.note(segment),
        }
    }

    fn note_client_syn(&mut self, segment: &Segment, rule: Rule, is_open: bool) {
        match self.client.sent {
            Some((first, _)) if first == segment.sequence => {}
            // The server says whether it opens the connection anew.
            Some(_) if !rule.replies_bypass => self.offered = Some(segment.sequence),
            Some(_) if is_open => {}
            _ => *self = Self { client: Side::opened(segment), ..Self::default() },
        }
    }

    fn note_server_syn(&mut self, segment: &Segment) {
        let is_offer_taken =
            self.offered.is_some_and(|offered| segment.acknowledgment == Some(offered.wrapping_add(1)));
        if let (true, Some(offered)) = (is_offer_taken, self.offered) {
            let client = Side { sent: Some((offered, offered.wrapping_add(1))), acknowledged: None, ..self.client };
            *self = Self { client, server: Side::opened(segment), offered: None };
        } else if self.client.acknowledged.is_none() {
            self.server = Side::opened(segment);
        }
    }
}

impl Side {
    /// A side that has sent this SYN.
    fn opened(segment: &Segment) -> Self {
        Self {
            sent: Some((segment.sequence, segment.end())),
            acknowledged: segment.acknowledgment,
            window: segment.window.into(),
            // RFC 7323 §2.3: at most 14.
            scale: segment.scale.unwrap_or(0).min(14),
        }
    }

    fn note(&mut self, segment: &Segment) {
        let (first, end) = self.sent.unwrap_or((segment.sequence.wrapping_sub(1), segment.sequence));
        let end = if is_behind(segment.end(), end) { segment.end() } else { end };
        let first = if end.wrapping_sub(first) > MEMORY { end.wrapping_sub(MEMORY) } else { first };
        self.sent = Some((first, end));
        let is_further = |number: &u32| self.acknowledged.is_none_or(|before| is_behind(*number, before));
        if let Some(number) = segment.acknowledgment.filter(is_further) {
            self.acknowledged = Some(number);
        }
        self.window = self.window.max(u32::from(segment.window) << self.scale);
    }

    /// Whether the other side, which offers `window` bytes, may acknowledge this number.
    fn has_sent(&self, number: u32, window: u32, rule: Rule) -> bool {
        let Some((first, end)) = self.sent else { return rule.replies_bypass };
        let end = end.wrapping_add(rule.slack);
        let back = end.wrapping_sub(number);
        // Its SYN has a number too, and nobody acknowledges what comes before that.
        back < end.wrapping_sub(first) && back <= window.max(WINDOW).saturating_add(rule.slack)
    }

    /// Whether this side may take a segment of `own`, the other one.
    fn expects(&self, segment: &Segment, own: &Self, rule: Rule) -> bool {
        let Some(next) = self.acknowledged.map(|next| next.wrapping_sub(rule.slack)) else {
            return own.is_near(segment.sequence);
        };
        let window = self.window.max(1).saturating_add(2 * rule.slack);
        let is_within = |number: u32| number.wrapping_sub(next) <= window;
        // What was sent before this side closed its window lies behind it.
        let is_last = own.sent.is_some_and(|(_, end)| end == segment.sequence);
        is_last || is_within(segment.sequence) || (!segment.flags.rst() && is_within(segment.end()))
    }

    /// Whether this side may send this number next, as far as that can be said by itself.
    fn is_near(&self, number: u32) -> bool {
        self.sent.is_some_and(|(first, end)| {
            let start = if end.wrapping_sub(first) > WINDOW { end.wrapping_sub(WINDOW) } else { first };
            let len = end.wrapping_sub(start).wrapping_add(WINDOW);
            number != first && number.wrapping_sub(start) <= len
        })
    }
}

/// Whether a number comes behind another one: within half the number space.
const fn is_behind(number: u32, other: u32) -> bool {
    (number.wrapping_sub(other) as i32) > 0
}

/// How many bits a SYN offers to shift windows by (RFC 7323 §2.2: kind 3, three bytes).
fn scale_of(segment: &[u8]) -> Option<u8> {
    let options = TcpOptions::read(segment)?;
    let mut rest = options.as_bytes();
    loop {
        rest = match *rest {
            [3, 3, scale, ..] => return Some(scale),
            [0, ..] | [] => return None,
            [1, ..] => &rest[1..],
            [_, len, ..] => rest.get(usize::from(len.max(2))..)?,
            [_] => return None,
        };
    }
}

/// RFC 9293 §3.1.
const WINDOW_OFFSET: usize = 14;
const _: () = assert!(WINDOW_OFFSET + 2 <= tcp::HEADER_LEN);
