//! The receiving half: frames from the ring, their Ethernet headers taken off, packets lent to the worker. Messages
//! about the link go to the sending half. Short packets are copied out of the ring, so that answers about them find
//! room behind; long ones are lent in place.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::SyncSender;

use lvs_core::{HEADROOM, PacketBuf};
use lvs_io::l2::{FrameReader, LINK_HEADER_MAX, LinkMessage, Read};
use lvs_io::{BATCH, PacketSource, vnet};

use crate::ring::{Frame, Ring};
use crate::socket;

/// Headroom before a frame: what the core and the way out may put before the packet in it.
pub(crate) const FRAME_HEADROOM: usize = HEADROOM + LINK_HEADER_MAX;

/// Frames up to this length are copied.
const SHORT_MAX: usize = 1600;
/// Room for one of them, with space for answers and longer payloads behind.
const SLOT_LEN: usize = FRAME_HEADROOM + SHORT_MAX + 544;

/// Frames that are nothing for the director are skipped; after so many batches of them it is the worker's turn again.
const BATCHES_PER_CALL: usize = 8;

pub(crate) struct Source {
    pub ring: Ring,
    pub socket: OwnedFd,
    pub reader: FrameReader,
    pub messages: SyncSender<LinkMessage>,
    /// Readable when the ring is, or a timer of the sending half is due.
    pub readiness: OwnedFd,
    pub slots: Box<[u8]>,
    pub lost: u64,
}

impl Source {
    pub(crate) fn slots() -> Box<[u8]> {
        vec![0; SLOT_LEN * BATCH].into_boxed_slice()
    }

    /// Lends what the packets of one batch of frames. `None` if there were no frames.
    fn receive_batch(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> Option<usize> {
        let Self { ring, reader, messages, slots, lost, .. } = self;
        let mut slots = slots.chunks_exact_mut(SLOT_LEN);
        let mut frames = 0;
        let mut is_losing = false;
        let mut packets: [PacketBuf<'_>; BATCH] = std::array::from_fn(|_| PacketBuf::new(&mut [], 0, 0));
        let mut count = 0;
        for frame in ring.frames().take(BATCH) {
            frames += 1;
            is_losing |= frame.is_losing;
            let (tag, is_cut) = (frame.tag, frame.full_len > frame.storage.len() - frame.start);
            let slot = slots.next().expect("a slot for each frame of a batch");
            let Some(mut packet) = in_buffer(frame, slot).filter(|_| !is_cut) else {
                *lost += 1;
                continue;
            };
            match reader.read(&mut packet, tag) {
                Read::Packet => {
                    packets[count] = packet;
                    count += 1;
                }
                // Where the other half has not kept up, it will be asked again.
                Read::Message(message) => drop(messages.try_send(message)),
                Read::Ignored => {}
            }
        }
        if count > 0 {
            handle(&mut packets[..count]);
        }
        if is_losing && let Ok(statistics) = socket::take_statistics(self.socket.as_fd()) {
            self.lost += u64::from(statistics.tp_drops);
        }
        (frames > 0).then_some(count)
    }
}

/// The frame in a buffer with room before it; short frames also have room behind. `None` if its virtio-net header names
/// a kind of super-packet nobody knows.
fn in_buffer<'b>(frame: Frame<'b>, slot: &'b mut [u8]) -> Option<PacketBuf<'b>> {
    let offload = vnet::decode(&frame.vnet)?;
    let len = frame.storage.len() - frame.start;
    let mut packet = if len <= SHORT_MAX {
        slot[FRAME_HEADROOM..FRAME_HEADROOM + len].copy_from_slice(&frame.storage[frame.start..]);
        PacketBuf::new(slot, FRAME_HEADROOM, len)
    } else {
        PacketBuf::new(frame.storage, frame.start, len)
    };
    packet.offload = offload;
    Some(packet)
}

impl PacketSource for Source {
    fn receive(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize> {
        for _ in 0..BATCHES_PER_CALL {
            match self.receive_batch(handle) {
                None => return Ok(0),
                Some(0) => {}
                Some(count) => return Ok(count),
            }
        }
        Ok(0)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.readiness.as_fd())
    }

    fn lost(&self) -> u64 {
        self.lost
    }
}
