//! A TPACKET_V2 receive ring: slots of memory the kernel fills with frames one by one. Lends them in place, each with
//! room before and behind, and gives them back when the next ones are asked for.
//!
//! ```text
//! slot   tpacket2_hdr  sockaddr_ll  headroom (PACKET_RESERVE)  virtio-net header  Ethernet frame  room
//!        0             32           52                         tp_mac − 10        tp_mac          … SLOT_LEN
//! ```
//!
//! A frame longer than its slot, a super-packet, lies whole in the socket's queue (PACKET_COPY_THRESH); the slot says
//! so.
//!
//! Layout: packet_mmap in the kernel's documentation; virtio-net headers: packet(7), PACKET_VNET_HDR.
#![allow(unsafe_code)]

use std::io;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use lvs_io::vnet;

use super::{Frame, SLOT_LEN, SLOTS, SLOTS_LEN, slot_offset, slots_request, tag};
use crate::mmap::Mapping;
use crate::socket;

/// The ring.
#[derive(Debug)]
pub(crate) struct Ring {
    mapping: Mapping,
    count: usize,
    /// The slot to look at next.
    next: usize,
    /// How many slots before it are lent.
    lent: usize,
}

/// What lies before each frame's headroom.
const HEADERS_LEN: usize = size_of::<libc::tpacket2_hdr>() + size_of::<libc::sockaddr_ll>();

impl Ring {
    /// Sets the ring up on a socket that is not bound yet: `bytes` of memory (rounded to whole blocks, at least two),
    /// `headroom` bytes or more free before each frame.
    pub(crate) fn new(socket: BorrowedFd<'_>, bytes: usize, headroom: usize) -> io::Result<Self> {
        let set = |option, value| socket::set_option::<libc::c_int>(socket, option, value);
        set(libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V2 as libc::c_int)?;
        set(libc::PACKET_VNET_HDR, 1)?;
        set(libc::PACKET_RESERVE, headroom as libc::c_int)?;
        set(libc::PACKET_COPY_THRESH, SLOT_LEN as libc::c_int)?;
        let blocks = (bytes / SLOTS_LEN).max(2);
        socket::set_option(socket, libc::PACKET_RX_RING, slots_request(blocks)?)?;
        let mapping = Mapping::new(socket, SLOTS_LEN * blocks)?;
        Ok(Self { mapping, count: SLOTS * blocks, next: 0, lent: 0 })
    }

    /// The frames that wait, in order. Ends every earlier loan.
    pub(crate) fn frames(&mut self) -> Frames<'_> {
        for lent in 1..=self.lent {
            let slot = (self.next + self.count - lent) % self.count;
            self.status(slot).store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
        self.lent = 0;
        Frames { ring: self }
    }

    /// The word of a slot that says whose it is.
    fn status(&self, slot: usize) -> &AtomicU32 {
        // SAFETY: the word is the first of the header at the slot's start, aligned, and inside the mapping (`slot`). It
        // is shared with the kernel, which is why it is only accessed as an atomic.
        unsafe { self.slot(slot).byte_add(offset_of!(libc::tpacket2_hdr, tp_status)).cast::<AtomicU32>().as_ref() }
    }

    /// Where the slot starts.
    fn slot(&self, slot: usize) -> NonNull<u8> {
        let offset = slot_offset(slot);
        assert!(offset + SLOT_LEN <= self.mapping.len(), "the slot lies in the ring");
        // SAFETY: asserted.
        unsafe { self.mapping.start().add(offset) }
    }
}

/// The frames of a ring that wait, each lent once.
#[derive(Debug)]
pub(crate) struct Frames<'r> {
    ring: &'r mut Ring,
}

impl<'r> Iterator for Frames<'r> {
    type Item = Frame<'r>;

    fn next(&mut self) -> Option<Frame<'r>> {
        let ring = &mut *self.ring;
        // All of them are lent: the next is the first of them.
        if ring.lent == ring.count {
            return None;
        }
        let status = ring.status(ring.next).load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        let slot = ring.slot(ring.next);
        ring.next = (ring.next + 1) % ring.count;
        ring.lent += 1;
        // SAFETY: the header lies at the slot's start, aligned; the slot is ours: its status, read with acquire
        // ordering, said so, and the kernel writes no more until it is given back.
        let header = unsafe { slot.cast::<libc::tpacket2_hdr>().read() };
        let (start, len) = (usize::from(header.tp_mac), header.tp_snaplen as usize);
        let is_inside = start >= HEADERS_LEN + vnet::HEADER_LEN && start + len <= SLOT_LEN;
        assert!(is_inside, "a frame lies in its slot");
        // SAFETY: from behind its headers to its end the slot lies in the mapping, is apart from every other, and is
        // lent once: the ring is borrowed for 'r, so until then it is not given back, and no more than all slots are
        // lent (checked above).
        let storage =
            unsafe { std::slice::from_raw_parts_mut(slot.as_ptr().byte_add(HEADERS_LEN), SLOT_LEN - HEADERS_LEN) };
        let start = start - HEADERS_LEN;
        let vnet = *storage[..start].last_chunk().expect("asserted above: the header lies before the frame");
        Some(Frame {
            storage,
            start,
            len,
            full_len: header.tp_len as usize,
            is_queued: status & libc::TP_STATUS_COPY != 0,
            vnet,
            tag: tag(status, header.tp_vlan_tpid, header.tp_vlan_tci),
            is_losing: status & libc::TP_STATUS_LOSING != 0,
        })
    }
}
