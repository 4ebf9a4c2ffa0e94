//! Packets the director itself owes the wire, until the caller fetches them with `poll_transmit`: fragments that
//! waited, datagrams put together, segments of a super-packet. Bounded in bytes of memory. Fragments that waited are
//! handled when it is their turn to be fetched, so that no packet pays for all of them.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::director::decide::classify::Route;
use crate::drop_reason::DropReason;
use crate::fragment::{Decision, Part};
use crate::packet::{HEADROOM, PacketBuf};
use crate::verdict::Verdict;

/// First in, first out.
#[derive(Debug)]
pub(super) struct Outbox {
    items: VecDeque<Item>,
    len: u32,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
enum Item {
    Packet(Packet),
    /// Parts of one datagram, and what was decided for its first.
    Parts(vec::IntoIter<Part>, Box<Decision<Route>>),
}

/// What is to be sent next.
#[expect(
    clippy::large_enum_variant,
    reason = "lives for one call, on the stack; a box would be an allocation a packet"
)]
pub(super) enum Owed {
    Packet(Packet),
    /// A part that is still to be handled.
    Part(Part, Decision<Route>),
}

/// A packet at `storage[start..start + len]`.
#[derive(Debug)]
pub(super) struct Packet {
    pub storage: Vec<u8>,
    pub start: usize,
    pub len: usize,
    pub mark: u32,
    pub verdict: Verdict,
}

impl Packet {
    /// Bytes of memory it holds.
    fn held(&self) -> usize {
        self.storage.capacity() + PACKET_COST
    }

    /// Writes it into `into`; its verdict.
    pub fn write(&self, into: &mut PacketBuf<'_>) -> Verdict {
        if into.set_len(self.len).is_none() {
            return Verdict::Drop(DropReason::NoTailroom);
        }
        into.bytes_mut().copy_from_slice(&self.storage[self.start..self.start + self.len]);
        into.offload = Default::default();
        into.mark = self.mark;
        self.verdict
    }
}

impl Outbox {
    pub fn new(bytes_max: u32) -> Self {
        Self { items: VecDeque::new(), len: 0, bytes: 0, bytes_max: bytes_max as usize }
    }

    /// Whether there is room for packets that hold so much memory altogether.
    pub fn has_room(&self, held: usize) -> bool {
        self.bytes + held <= self.bytes_max
    }

    /// Appends the packet that lies at `storage[start..start + len]`.
    ///
    /// # Errors
    /// `TransmitQueueFull`; nothing has changed.
    pub fn push(
        &mut self,
        storage: Vec<u8>,
        (start, len): (usize, usize),
        mark: u32,
        verdict: Verdict,
    ) -> Result<(), DropReason> {
        let packet = Packet { storage, start, len, mark, verdict };
        let held = packet.held();
        if !self.has_room(held) {
            return Err(DropReason::TransmitQueueFull);
        }
        self.bytes += held;
        self.len += 1;
        self.items.push_back(Item::Packet(packet));
        Ok(())
    }

    /// Appends parts of a datagram, for whose first this was decided: as many as there is room for.
    ///
    /// # Errors
    /// `TransmitQueueFull`, and how many found no room.
    pub fn push_parts(&mut self, mut parts: Vec<Part>, decision: Decision<Route>) -> Result<(), (DropReason, u32)> {
        let mut bytes = 0;
        let fitting = parts.iter().take_while(|part| {
            bytes += part.held();
            self.has_room(bytes)
        });
        let count = fitting.count();
        let refused = (parts.len() - count) as u32;
        parts.truncate(count);
        self.bytes += parts.iter().map(Part::held).sum::<usize>();
        self.len += count as u32;
        if count > 0 {
            self.items.push_back(Item::Parts(parts.into_iter(), Box::new(decision)));
        }
        if refused == 0 { Ok(()) } else { Err((DropReason::TransmitQueueFull, refused)) }
    }

    /// How many packets wait.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Takes what comes next.
    pub fn pop(&mut self) -> Option<Owed> {
        let owed = match self.items.front_mut()? {
            Item::Packet(_) => None,
            Item::Parts(parts, decision) => parts.next().map(|part| (part, **decision, parts.len())),
        };
        self.len -= 1;
        if let Some((part, decision, left)) = owed {
            if left == 0 {
                self.items.pop_front();
            }
            self.bytes -= part.held();
            return Some(Owed::Part(part, decision));
        }
        match self.items.pop_front()? {
            Item::Packet(packet) => {
                self.bytes -= packet.held();
                Some(Owed::Packet(packet))
            }
            Item::Parts(..) => unreachable!("parts leave with their last one"),
        }
    }
}

/// What a packet needs beside its bytes: its place in the queue, and the allocator's own.
pub(super) const PACKET_COST: usize = size_of::<Item>() + 16;

/// A copy of `packet` with headroom before it.
pub(super) fn with_headroom(packet: &[u8]) -> Vec<u8> {
    let mut storage = Vec::with_capacity(HEADROOM + packet.len());
    storage.resize(HEADROOM, 0);
    storage.extend_from_slice(packet);
    storage
}
