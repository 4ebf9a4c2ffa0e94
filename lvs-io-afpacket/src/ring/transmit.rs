//! A TPACKET_V2 transmit ring: slots of memory filled with frames, which the kernel sends when it is told to. A kick
//! takes many frames at once; what the kernel refuses comes back and is counted.
//!
//! ```text
//! slot   tpacket2_hdr  virtio-net header  Ethernet frame  room
//!        0             32                 42              … SLOT_LEN
//! ```
//!
//! The kernel takes slots in order and stops at the first it cannot send, so what is left after a kick is a row that
//! ends with the slot filled last. Layout: packet_mmap in the kernel's documentation.
#![allow(unsafe_code)]

use std::io;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use lvs_io::vnet;
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::{SLOT_LEN, SLOTS, SLOTS_LEN, slot_offset, slots_request};
use crate::mmap::Mapping;
use crate::socket;

/// Longest frame a slot holds: with room for a VLAN tag and some, a full-sized one.
pub(crate) const SHORT_MAX: usize = BODY_LEN - DATA;

/// The ring.
#[derive(Debug)]
pub(crate) struct TransmitRing {
    mapping: Mapping,
    /// The slot to fill next.
    next: usize,
    /// How many slots before it are filled and not sent yet.
    filled: usize,
}

const BLOCKS: usize = 16;

/// How many frames may be on their way.
const COUNT: usize = SLOTS * BLOCKS;

/// So many frames that are refused one after the other are taken for bad ones; more for a full queue.
const SKIPS_MAX: usize = 8;

/// A slot's status comes first. Behind it, in what is ours: the length, the virtio-net header and the frame.
const STATUS_LEN: usize = offset_of!(libc::tpacket2_hdr, tp_len);
const BODY_LEN: usize = SLOT_LEN - STATUS_LEN;
const VNET: usize = size_of::<libc::tpacket2_hdr>() - STATUS_LEN;
const DATA: usize = VNET + vnet::HEADER_LEN;

const _: () = assert!(offset_of!(libc::tpacket2_hdr, tp_status) == 0 && STATUS_LEN == size_of::<u32>());

impl TransmitRing {
    /// Sets the ring up on a socket that is not bound yet.
    pub(crate) fn new(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let set = |option, value| socket::set_option::<libc::c_int>(socket, option, value);
        set(libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V2 as libc::c_int)?;
        set(libc::PACKET_VNET_HDR, 1)?;
        socket::set_option(socket, libc::PACKET_TX_RING, slots_request(BLOCKS)?)?;
        let mapping = Mapping::new(socket, SLOTS_LEN * BLOCKS)?;
        Ok(Self { mapping, next: 0, filled: 0 })
    }

    /// How many frames wait for the next [`Self::kick`].
    pub(crate) fn filled(&self) -> usize {
        self.filled
    }

    /// Fills the next slot with a frame of at most [`SHORT_MAX`] bytes; `None` if the kernel still has it.
    pub(crate) fn push(&mut self, header: &[u8; vnet::HEADER_LEN], frame: &[u8]) -> Option<()> {
        if self.filled == COUNT || self.status(self.next).load(Ordering::Acquire) != libc::TP_STATUS_AVAILABLE {
            return None;
        }
        let mut header = *header;
        // The whole frame is short enough to be copied as headers are, which spares the kernel a second piece.
        header[2..4].copy_from_slice(&(frame.len() as u16).to_ne_bytes());
        let body = self.body(self.next);
        body[..4].copy_from_slice(&((vnet::HEADER_LEN + frame.len()) as u32).to_ne_bytes());
        body[VNET..DATA].copy_from_slice(&header);
        body[DATA..][..frame.len()].copy_from_slice(frame);
        self.request(self.next);
        self.next = (self.next + 1) % COUNT;
        self.filled += 1;
        Some(())
    }

    /// Has the kernel send what is filled. A frame it refuses is skipped; after [`SKIPS_MAX`] in a row it is not the
    /// frames, and the rest is refused as well.
    ///
    /// # Errors
    /// How many frames were refused, and why the last of them was.
    pub(crate) fn kick(&mut self, socket: BorrowedFd<'_>) -> Result<(), (usize, io::Error)> {
        let (mut refused, mut skips) = (0, 0);
        let mut outcome = Ok(());
        while self.filled > 0 {
            let sent = rustix::net::send(socket, &[], SendFlags::DONTWAIT);
            if sent == Err(Errno::INTR) {
                continue;
            }
            let left = (0..self.filled).take_while(|back| self.is_left(*back)).count();
            if left < self.filled {
                skips = 0;
            }
            self.filled = left;
            if left == 0 {
                break;
            }
            let first = (self.next + COUNT - left) % COUNT;
            let is_wrong = self.status(first).load(Ordering::Acquire) & libc::TP_STATUS_WRONG_FORMAT != 0;
            // ENOBUFS: the device refused this frame.
            if skips < SKIPS_MAX && (is_wrong || sent == Err(Errno::NOBUFS)) {
                skips += 1;
                refused += 1;
                self.take_out_first();
            } else {
                refused += left;
                self.take_back();
            }
            outcome = Err((refused, sent.err().unwrap_or(Errno::AGAIN).into()));
        }
        outcome
    }

    /// Whether the slot filled `back` before the last one waits still.
    fn is_left(&self, back: usize) -> bool {
        let status = self.status((self.next + COUNT - 1 - back) % COUNT).load(Ordering::Acquire);
        status & (libc::TP_STATUS_SEND_REQUEST | libc::TP_STATUS_WRONG_FORMAT) != 0
    }

    /// Takes the first frame that is left out of the row: the others move up, since the kernel will look there again.
    fn take_out_first(&mut self) {
        let first = self.next + COUNT - self.filled;
        for index in first..first + self.filled - 1 {
            let to = index % COUNT;
            let following = *self.body((index + 1) % COUNT);
            let [l0, l1, l2, l3, ..] = following;
            let used = VNET + u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
            self.body(to)[..used].copy_from_slice(&following[..used]);
            self.request(to);
        }
        self.filled -= 1;
        self.next = (self.next + COUNT - 1) % COUNT;
        self.status(self.next).store(libc::TP_STATUS_AVAILABLE, Ordering::Release);
    }

    /// Empties the slots that are left. The kernel will look at the first of them next, and so shall we.
    fn take_back(&mut self) {
        while self.filled > 0 {
            self.filled -= 1;
            self.next = (self.next + COUNT - 1) % COUNT;
            self.status(self.next).store(libc::TP_STATUS_AVAILABLE, Ordering::Release);
        }
    }

    /// Hands a slot to the kernel.
    fn request(&self, slot: usize) {
        self.status(slot).store(libc::TP_STATUS_SEND_REQUEST, Ordering::Release);
    }

    /// The word of a slot that says whose it is.
    fn status(&self, slot: usize) -> &AtomicU32 {
        // SAFETY: the word is the first of the slot, which lies in the mapping, and aligned as slots are. It is shared
        // with the kernel, which is why it is only accessed as an atomic.
        unsafe { self.slot(slot).cast::<AtomicU32>().as_ref() }
    }

    /// What lies behind the status of a slot that is ours: one not filled, or filled and left by the kernel.
    fn body(&mut self, slot: usize) -> &mut [u8; BODY_LEN] {
        // SAFETY: the bytes lie in the mapping, any are a value, and they are borrowed with `self`, exclusively. The
        // kernel only reads them, and only during `kick`: it copies frames as short as these whole.
        unsafe { self.slot(slot).byte_add(STATUS_LEN).cast().as_mut() }
    }

    /// Where the slot starts.
    fn slot(&self, slot: usize) -> NonNull<u8> {
        let offset = slot_offset(slot);
        assert!(offset + SLOT_LEN <= self.mapping.len(), "the slot lies in the ring");
        // SAFETY: asserted.
        unsafe { self.mapping.start().add(offset) }
    }
}
