//! The receiving half: frames from the ring, their Ethernet headers taken off, packets lent to the worker in place.
//! Super-packets, longer than a slot of the ring, are read from the socket. Messages about the link go to the sending
//! half.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use lvs_core::{HEADROOM, PacketBuf};
use lvs_io::l2::{FrameReader, LINK_HEADER_MAX, Read, ReaderCounters};
use lvs_io::{AddressChange, BATCH, DeviceState, PacketSource, vnet};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;

use crate::bell::Post;
use crate::guard::Guard;
use crate::ring::{Frame, ReceiveRing};
use crate::socket;

/// Headroom before a frame: what the core and the way out may put before the packet in it.
pub(crate) const FRAME_HEADROOM: usize = HEADROOM + LINK_HEADER_MAX;

/// Room for a super-packet: any IP packet with an Ethernet header, and what may come before it.
const LONG_LEN: usize = FRAME_HEADROOM + LINK_HEADER_MAX + u16::MAX as usize;

/// Frames that are nothing for the director are skipped; after so many batches of them it is the worker's turn again.
const BATCHES_PER_CALL: usize = 8;

/// What the receiving half has counted.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SourceCounters {
    /// Frames the kernel handed over. Each was lent as a packet, taken in as a message, unreadable, or ignored.
    pub frames: u64,
    /// Packets lent to the worker.
    pub packets: u64,
    /// Messages about the link: ARP, Neighbor Discovery, questions about groups.
    pub messages: u64,
    /// Frames the kernel dropped because the ring was full. Known when the next frame has come.
    pub ring_full: u64,
    /// How often the kernel stopped because there was no free block in the ring ([`crate::Delivery::InBlocks`]).
    pub stops: u64,
    /// Frames that could not be lent: cut, or super-packets of a kind nobody asked for.
    pub unreadable: u64,
    /// Frames that were nothing for the director.
    pub ignored: ReaderCounters,
}

/// A view of the counters from outside the worker.
#[derive(Clone, Debug, Default)]
pub struct SourceCountersHandle(Arc<Mutex<SourceCounters>>);

impl SourceCountersHandle {
    /// The counters as they are now.
    pub fn get(&self) -> SourceCounters {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes them; at most once a batch, but for what happens seldom.
    fn count(&self, change: impl FnOnce(&mut SourceCounters)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

pub(crate) struct Source {
    ring: ReceiveRing,
    socket: OwnedFd,
    reader: FrameReader,
    /// The sending halves of every queue of the device.
    posts: Vec<Post>,
    /// Readable when a timer of the sending half is due, or it has mail.
    wake: OwnedFd,
    /// Where super-packets are read into.
    long: Box<[u8]>,
    lost: u64,
    counters: SourceCountersHandle,
    guard: Guard,
    /// Nothing had come the last time.
    was_empty: bool,
}

impl Source {
    pub(crate) fn new(
        (socket, ring): (OwnedFd, ReceiveRing),
        reader: FrameReader,
        posts: Vec<Post>,
        wake: OwnedFd,
        guard: Guard,
    ) -> Self {
        let long = vec![0; LONG_LEN * BATCH].into_boxed_slice();
        let counters = SourceCountersHandle::default();
        Self { ring, socket, reader, posts, wake, long, lost: 0, counters, guard, was_empty: true }
    }

    pub(crate) fn counters(&self) -> SourceCountersHandle {
        self.counters.clone()
    }

    /// Lends the packets among the next frames. Returns how many; `None` if there were no frames.
    fn receive_batch(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> Option<usize> {
        let Self { ring, socket, reader, posts, long, lost, counters, .. } = self;
        let mut long = long.chunks_exact_mut(LONG_LEN);
        let (mut is_losing, mut has_ignored) = (false, false);
        let (mut frames, mut messages, mut unreadable) = (0, 0, 0);
        let mut packets: [PacketBuf<'_>; BATCH] = std::array::from_fn(|_| PacketBuf::new(&mut [], 0, 0));
        let mut count = 0;
        for frame in ring.frames().take(BATCH) {
            frames += 1;
            is_losing |= frame.is_losing;
            let tag = frame.tag;
            let packet = if frame.is_queued {
                from_queue(socket, long.next().expect("one for each frame of a batch"))
            } else {
                in_place(frame)
            };
            let Some(mut packet) = packet else {
                unreadable += 1;
                continue;
            };
            match reader.read(&mut packet, tag) {
                Read::Packet => {
                    packets[count] = packet;
                    count += 1;
                }
                Read::Message(message) => {
                    messages += 1;
                    posts.iter().for_each(|post| post.send(message));
                }
                Read::Ignored => has_ignored = true,
            }
        }
        if frames > 0 {
            *lost += unreadable;
            counters.count(|counters| {
                counters.frames += frames;
                counters.packets += count as u64;
                counters.messages += messages;
                counters.unreadable += unreadable;
                if has_ignored {
                    counters.ignored = *reader.counters();
                }
            });
        }
        if count > 0 {
            handle(&mut packets[..count]);
        }
        if is_losing {
            self.count_losses();
        }
        (frames > 0).then_some(count)
    }

    fn count_losses(&mut self) {
        let Ok(statistics) = socket::take_statistics(self.socket.as_fd()) else { return };
        self.lost += u64::from(statistics.tp_drops);
        self.counters.count(|counters| {
            counters.ring_full += u64::from(statistics.tp_drops);
            counters.stops += u64::from(statistics.tp_freeze_q_cnt);
        });
    }

    /// Looks after the device: nothing came twice, so something else has woken the worker, or nothing has.
    fn look_after_device(&mut self) -> io::Result<()> {
        // Whoever waits for packets is woken by an error too, again and again until it is read: the device was or went
        // down, or is gone.
        let is_alarmed = !matches!(socket_error(&self.socket), Ok(Ok(())));
        if let Some(opened) = self.guard.check(is_alarmed)? {
            self.count_losses();
            (self.socket, self.ring) = opened.receiver;
            self.reader.set_mac(opened.mac);
            self.guard.hand_over(opened.sender);
        }
        Ok(())
    }
}

/// The frame where it lies. `None` if it was cut, or its virtio-net header names a kind of super-packet nobody knows.
fn in_place(frame: Frame<'_>) -> Option<PacketBuf<'_>> {
    let offload = vnet::decode(&frame.vnet)?;
    if frame.full_len > frame.len {
        return None;
    }
    let mut packet = PacketBuf::new(frame.storage, frame.start, frame.len);
    packet.offload = offload;
    Some(packet)
}

/// The next frame in the socket's queue, where the kernel put them in the ring's order.
fn from_queue<'b>(socket: &OwnedFd, storage: &'b mut [u8]) -> Option<PacketBuf<'b>> {
    let mut header = [0; vnet::HEADER_LEN];
    let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(&mut storage[FRAME_HEADROOM..])];
    let read = match rustix::io::readv(socket, &mut parts) {
        // The device went down, say: an error that waits is told first, once, and leaves the frame in the queue. There
        // it would be taken for the next slot's.
        Err(errno) if errno != Errno::AGAIN => rustix::io::readv(socket, &mut parts),
        read => read,
    };
    let len = read.ok()?.checked_sub(vnet::HEADER_LEN)?;
    // What is longer than any packet is cut, and seen to be so by its own length.
    let mut packet = PacketBuf::new(storage, FRAME_HEADROOM, len);
    packet.offload = vnet::decode(&header)?;
    Some(packet)
}

impl PacketSource for Source {
    fn receive(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize> {
        for _ in 0..BATCHES_PER_CALL {
            match self.receive_batch(handle) {
                None => {
                    if std::mem::replace(&mut self.was_empty, true) {
                        self.look_after_device()?;
                    }
                    return Ok(0);
                }
                Some(0) => self.was_empty = false,
                Some(count) => {
                    self.was_empty = false;
                    return Ok(count);
                }
            }
        }
        Ok(0)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_fd())
    }

    fn lost(&self) -> u64 {
        self.lost
    }

    fn state(&self) -> DeviceState {
        self.guard.state()
    }

    fn learn(&mut self, change: &AddressChange) {
        self.guard.learn(change);
    }
}
