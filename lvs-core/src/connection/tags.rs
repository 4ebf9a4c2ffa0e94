//! What was seen of the verification tags of an SCTP association's two ends, to tell a packet of theirs from one that
//! anybody may have made up. Each end says at the handshake which tag it wants to be sent; whoever was not on the path
//! then does not know it. RFC 9260 §5.1, §5.2, §8.5.

use crate::verdict::Direction;
use crate::wire::parse::Headers;
use crate::wire::sctp::{self, Chunks};

/// What a packet says of tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tagged {
    /// Type of the chunk that decides what the packet is.
    pub chunk: u8,
    /// The tag in the common header: the one that its receiver wants.
    pub tag: u32,
    /// Of INIT and INIT ACK: the tag that its sender wants.
    pub wanted: Option<u32>,
    /// The T bit: the tag is the sender's own, sent back to it by who knows of no association.
    pub is_reflected: bool,
}

/// An association whose tags are followed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Tags {
    /// The tag that packets to the client have.
    client: Option<u32>,
    /// The tag that packets to the server have.
    server: Option<u32>,
    /// The handshake by which it began.
    first: Option<Handshake>,
    /// One that was begun since: it counts from the cookie on.
    again: Option<Handshake>,
}

/// An INIT, and the answers to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Handshake {
    by: Direction,
    wanted: u32,
    /// The tags of the last two INIT ACKs: one that is repeated has a new tag, and the sender of the INIT takes the first
    /// that it gets.
    answers: [Option<u32>; 2],
}

impl Tagged {
    /// Reads a whole SCTP packet.
    pub fn read(bytes: &[u8], headers: &Headers) -> Option<Self> {
        let packet = headers.payload(bytes);
        let tag = word(packet, TAG)?;
        let chunks = Chunks::read(packet)?;
        let mut at = sctp::HEADER_LEN;
        let mut chunk = chunks.first;
        if chunks.second == Some(sctp::ABORT) {
            let len = usize::from(u16::from_be_bytes([*packet.get(at + 2)?, *packet.get(at + 3)?]));
            (at, chunk) = (at + len.next_multiple_of(4), sctp::ABORT);
        }
        let flags = *packet.get(at + 1)?;
        let wanted = matches!(chunk, sctp::INIT | sctp::INIT_ACK).then(|| word(packet, at + 4)).flatten();
        let is_reflected = matches!(chunk, sctp::ABORT | sctp::SHUTDOWN_COMPLETE) && flags & T_BIT != 0;
        Some(Self { chunk, tag, wanted, is_reflected })
    }
}

impl Tags {
    /// Whether nothing was seen of it: such an association cannot be judged.
    pub fn is_unknown(&self) -> bool {
        self.client.is_none() && self.server.is_none()
    }

    /// Whether a packet is one that its side may have sent. `replies_bypass`: the server's packets are never seen.
    pub fn believes(&self, direction: Direction, packet: &Tagged, replies_bypass: bool) -> bool {
        let is = |wanted: Option<u32>| match wanted {
            Some(wanted) => wanted == packet.tag,
            // Seen from its beginning, it would be known. Else it cannot be judged.
            None => self.first.is_none() || replies_bypass,
        };
        let (own, peer) = self.of(direction);
        let is_of_handshake = |it: &Handshake| match packet.chunk {
            sctp::INIT_ACK => it.by != direction && it.wanted == packet.tag,
            sctp::COOKIE_ECHO => it.by == direction && it.answers.contains(&Some(packet.tag)),
            _ => false,
        };
        match packet.chunk {
            // §8.5.1: an INIT has tag 0. One that wants another tag begins anew, which only the cookie proves.
            sctp::INIT => packet.tag == 0 && packet.wanted.is_some() && (own.is_none() || own == packet.wanted),
            sctp::INIT_ACK | sctp::COOKIE_ECHO if self.handshakes().any(is_of_handshake) => true,
            _ if packet.is_reflected => is(own),
            _ => is(peer),
        }
    }

    /// Follows a packet. `is_open`: the handshake is over.
    pub fn note(&mut self, direction: Direction, packet: &Tagged, replies_bypass: bool, is_open: bool) {
        match (packet.chunk, packet.wanted) {
            (sctp::INIT, Some(wanted)) if packet.tag == 0 && wanted != 0 => {
                self.note_init(direction, wanted, replies_bypass, is_open);
            }
            (sctp::INIT_ACK, Some(wanted)) if wanted != 0 => self.note_init_ack(direction, packet.tag, wanted),
            (sctp::INIT | sctp::INIT_ACK | sctp::ABORT | sctp::SHUTDOWN_COMPLETE, _) => {}
            (sctp::COOKIE_ECHO, _) if self.agree(direction, packet.tag) => {}
            (sctp::COOKIE_ECHO, _) if replies_bypass && !is_open => self.set(other(direction), packet.tag),
            // Begun before it was seen: what its ends say is taken for theirs.
            _ if self.of(direction).1.is_none() && (self.first.is_none() || replies_bypass) => {
                self.set(other(direction), packet.tag);
            }
            _ => {}
        }
    }

    fn note_init(&mut self, by: Direction, wanted: u32, replies_bypass: bool, is_open: bool) {
        let handshake = Handshake { by, wanted, answers: [None; 2] };
        let is_it = |it: &Handshake| it.by == by && it.wanted == wanted;
        if self.handshakes().any(is_it) {
            return;
        }
        if self.is_unknown() || replies_bypass && !is_open {
            *self = Self { first: Some(handshake), ..Self::default() };
            self.set(by, wanted);
        } else if !replies_bypass {
            self.again = Some(handshake);
        }
    }

    fn note_init_ack(&mut self, direction: Direction, tag: u32, wanted: u32) {
        for handshake in [&mut self.first, &mut self.again].into_iter().flatten() {
            if handshake.by != direction && handshake.wanted == tag && handshake.answers[1] != Some(wanted) {
                handshake.answers = [handshake.answers[1], Some(wanted)];
            }
        }
        let is_first = self.first.is_some_and(|first| first.by != direction && first.wanted == tag);
        if is_first && self.of(direction).0.is_none() {
            self.set(direction, wanted);
        }
    }

    /// The cookie of a handshake comes back: its tags are the association's. Returns whether there was such a handshake.
    fn agree(&mut self, direction: Direction, tag: u32) -> bool {
        let is_it = |it: &Handshake| it.by == direction && it.answers.contains(&Some(tag));
        let Some(handshake) = self.handshakes().find(|it| is_it(it)).copied() else { return false };
        self.set(direction, handshake.wanted);
        self.set(other(direction), tag);
        if self.again == Some(handshake) {
            self.first = self.again.take();
        }
        true
    }

    fn handshakes(&self) -> impl Iterator<Item = &Handshake> {
        self.first.iter().chain(&self.again)
    }

    /// What the sender of a packet in this direction wants, and what its receiver wants.
    fn of(&self, direction: Direction) -> (Option<u32>, Option<u32>) {
        match direction {
            Direction::Request => (self.client, self.server),
            Direction::Reply => (self.server, self.client),
        }
    }

    /// The sender of packets in this direction wants this tag.
    fn set(&mut self, direction: Direction, wanted: u32) {
        match direction {
            Direction::Request => self.client = Some(wanted),
            Direction::Reply => self.server = Some(wanted),
        }
    }
}

fn other(direction: Direction) -> Direction {
    match direction {
        Direction::Request => Direction::Reply,
        Direction::Reply => Direction::Request,
    }
}

fn word(packet: &[u8], at: usize) -> Option<u32> {
    packet.get(at..).and_then(|rest| rest.first_chunk()).map(|bytes| u32::from_be_bytes(*bytes))
}

/// Offset of the verification tag in the common header.
const TAG: usize = 4;
/// Of ABORT and SHUTDOWN COMPLETE (RFC 9260 §3.3.7, §3.3.13).
const T_BIT: u8 = 1;
