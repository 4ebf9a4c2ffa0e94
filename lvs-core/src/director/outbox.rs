//! Packets the director itself owes the wire, until the caller fetches them with `poll_transmit`: fragments that
//! waited, datagrams put together, segments of a super-packet. Bounded in bytes.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::drop_reason::DropReason;
use crate::packet::{HEADROOM, PacketBuf};
use crate::verdict::Verdict;

/// First in, first out.
#[derive(Debug)]
pub(super) struct Outbox {
    packets: VecDeque<Packet>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Packet {
    storage: Vec<u8>,
    start: usize,
    len: usize,
    mark: u32,
    verdict: Verdict,
}

impl Outbox {
    pub fn new(bytes_max: u32) -> Self {
        Self { packets: VecDeque::new(), bytes: 0, bytes_max: bytes_max as usize }
    }

    /// Whether there is room for packets of `len` bytes altogether.
    pub fn has_room(&self, len: usize) -> bool {
        self.bytes + len <= self.bytes_max
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
        if !self.has_room(len) {
            return Err(DropReason::TransmitQueueFull);
        }
        self.bytes += len;
        self.packets.push_back(Packet { storage, start, len, mark, verdict });
        Ok(())
    }

    /// How many packets wait.
    pub fn len(&self) -> u32 {
        self.packets.len() as u32
    }

    /// Writes the next packet into `into`.
    pub fn pop(&mut self, into: &mut PacketBuf<'_>) -> Option<Verdict> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.len;
        if into.set_len(packet.len).is_none() {
            return Some(Verdict::Drop(DropReason::NoTailroom));
        }
        into.bytes_mut().copy_from_slice(&packet.storage[packet.start..packet.start + packet.len]);
        into.offload = Default::default();
        into.mark = packet.mark;
        Some(packet.verdict)
    }
}

/// A copy of `packet` with headroom before it.
pub(super) fn with_headroom(packet: &[u8]) -> Vec<u8> {
    let mut storage = Vec::with_capacity(HEADROOM + packet.len());
    storage.resize(HEADROOM, 0);
    storage.extend_from_slice(packet);
    storage
}
