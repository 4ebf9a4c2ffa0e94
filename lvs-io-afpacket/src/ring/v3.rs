//! A TPACKET_V3 receive ring: blocks of memory the kernel fills with frames one behind the other, and hands over when
//! they are full or have waited. Lends the frames in place and gives a block back when all of it has been lent.
//!
//! ```text
//! block  tpacket_block_desc  frame  frame  …
//! frame  tpacket3_hdr  sockaddr_ll  reserve (PACKET_RESERVE)          virtio-net header  Ethernet frame
//!        0             48           68                                tp_mac − 10        tp_mac
//!        ◄──── tailroom of the frame before ────►◄──── headroom ────►
//! ```
//!
//! The kernel leaves no room behind a frame. So the reserve before the next one is shared between the two, and with it
//! goes that one's header, which is read before its room is lent.
//!
//! Layout: packet_mmap in the kernel's documentation; virtio-net headers: packet(7), PACKET_VNET_HDR.
#![allow(unsafe_code)]

use std::io;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use lvs_io::vnet;

use super::{Frame, TAILROOM, tag};
use crate::mmap::Mapping;
use crate::socket;

/// The ring.
#[derive(Debug)]
pub(crate) struct Ring {
    mapping: Mapping,
    block_len: usize,
    count: usize,
    /// The block to look at next.
    next: usize,
    /// What is left of it, if lending from it has begun.
    open: Option<Open>,
    /// How many blocks before it are lent whole.
    lent: usize,
}

/// The next frame of a block, and what is left of the block.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// How many frames are left, this one included.
    left: u32,
    /// The frame's header, and where in the block it lies.
    header: libc::tpacket3_hdr,
    at: usize,
    /// Where the room before the frame begins.
    floor: usize,
    is_losing: bool,
}

/// What blocks are rounded to: whole pages everywhere.
const BLOCK_UNIT: usize = 1 << 16;
/// A block holds the longest super-packet with all that lies before it.
const BLOCK_MIN: usize = 1 << 17;

/// What lies before each frame's reserve.
const HEADERS_LEN: usize = size_of::<libc::tpacket3_hdr>() + size_of::<libc::sockaddr_ll>();

/// What the ring is asked for in frames; a block's are of any size, but the kernel compares their product.
const FRAME_UNIT: usize = 2048;

/// Where a block's description, of the first and only kind, has its fields.
const DESCRIPTION: usize = offset_of!(libc::tpacket_block_desc, hdr);
const STATUS: usize = DESCRIPTION + offset_of!(libc::tpacket_hdr_v1, block_status);

impl Ring {
    /// As [`super::ReceiveRing::new`].
    pub(crate) fn new(
        socket: BorrowedFd<'_>,
        bytes: usize,
        block_bytes: usize,
        wait_max_ms: u32,
        headroom: usize,
    ) -> io::Result<Self> {
        let set = |option, value| socket::set_option::<libc::c_int>(socket, option, value);
        set(libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V3 as libc::c_int)?;
        set(libc::PACKET_VNET_HDR, 1)?;
        set(libc::PACKET_RESERVE, (headroom + TAILROOM) as libc::c_int)?;
        let too_large = || io::Error::from(io::ErrorKind::InvalidInput);
        let block_len = block_bytes.max(BLOCK_MIN).checked_next_multiple_of(BLOCK_UNIT).ok_or_else(too_large)?;
        let count = (bytes / block_len).max(2);
        let field = |value: usize| u32::try_from(value).map_err(|_| too_large());
        let request = libc::tpacket_req3 {
            tp_block_size: field(block_len)?,
            tp_block_nr: field(count)?,
            tp_frame_size: FRAME_UNIT as u32,
            tp_frame_nr: field(block_len / FRAME_UNIT * count)?,
            tp_retire_blk_tov: wait_max_ms.max(1),
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        socket::set_option(socket, libc::PACKET_RX_RING, request)?;
        let mapping = Mapping::new(socket, block_len * count)?;
        Ok(Self { mapping, block_len, count, next: 0, open: None, lent: 0 })
    }

    /// As [`super::ReceiveRing::frames`].
    pub(crate) fn frames(&mut self) -> Frames<'_> {
        for lent in 1..=self.lent {
            let block = (self.next + self.count - lent) % self.count;
            self.status(block).store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
        self.lent = 0;
        Frames { ring: self }
    }

    /// Begins to lend from the next block that has frames; `None` if there is none.
    fn open(&mut self) -> Option<Open> {
        while self.lent < self.count {
            let status = self.status(self.next).load(Ordering::Acquire);
            if status & libc::TP_STATUS_USER == 0 {
                return None;
            }
            let start = self.block(self.next);
            // SAFETY: the description lies at the block's start, aligned; the block is ours: its status, read with
            // acquire ordering, said so, and the kernel writes no more until it is given back.
            let description = unsafe { start.byte_add(DESCRIPTION).cast::<libc::tpacket_hdr_v1>().read() };
            if description.num_pkts > 0 {
                let at = description.offset_to_first_pkt as usize;
                return Some(Open {
                    left: description.num_pkts,
                    header: self.header(at),
                    at,
                    floor: at + HEADERS_LEN,
                    is_losing: status & libc::TP_STATUS_LOSING != 0,
                });
            }
            self.close();
        }
        None
    }

    /// All of the block is lent.
    fn close(&mut self) {
        self.next = (self.next + 1) % self.count;
        self.lent += 1;
    }

    /// The header of a frame of the next block, which is ours.
    fn header(&self, at: usize) -> libc::tpacket3_hdr {
        let is_inside = at.checked_add(HEADERS_LEN).is_some_and(|end| end <= self.block_len);
        assert!(is_inside, "a frame's header lies in its block");
        // SAFETY: it lies in the block (asserted), which is ours, and nothing of it is lent: a frame's room is lent
        // when the header in it has been read (`Frames::next`).
        unsafe { self.block(self.next).byte_add(at).cast::<libc::tpacket3_hdr>().read_unaligned() }
    }

    /// The word of a block that says whose it is.
    fn status(&self, block: usize) -> &AtomicU32 {
        // SAFETY: the word lies in the description at the block's start, aligned, and inside the mapping (`block`). It
        // is shared with the kernel, which is why it is only accessed as an atomic.
        unsafe { self.block(block).byte_add(STATUS).cast::<AtomicU32>().as_ref() }
    }

    /// Where the block starts.
    fn block(&self, block: usize) -> NonNull<u8> {
        assert!((block + 1) * self.block_len <= self.mapping.len(), "the block lies in the ring");
        // SAFETY: asserted.
        unsafe { self.mapping.start().add(block * self.block_len) }
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
        let Open { left, header, at, floor, is_losing } = match ring.open.take() {
            Some(open) => open,
            None => ring.open()?,
        };
        let block = ring.block(ring.next);
        let (from, len) = (at + usize::from(header.tp_mac), header.tp_snaplen as usize);
        let end = if left > 1 {
            let at = at + header.tp_next_offset as usize;
            // Read now: it lies in this frame's tailroom.
            let header = ring.header(at);
            let floor = at + HEADERS_LEN + TAILROOM;
            ring.open = Some(Open { left: left - 1, header, at, floor, is_losing });
            floor
        } else {
            ring.close();
            (from + len).saturating_add(TAILROOM)
        };
        let end = end.min(ring.block_len);
        let is_inside = from >= floor + vnet::HEADER_LEN && from + len <= end;
        assert!(is_inside, "a frame lies between its neighbours");
        // SAFETY: `floor..end` lies in the block (`end` is at most its length, and above `floor` as asserted) and
        // begins where the room of the frame before ended, so it is lent once; the block is ours and is given back only
        // when the ring is borrowed anew, which it is for 'r.
        let storage = unsafe { std::slice::from_raw_parts_mut(block.as_ptr().byte_add(floor), end - floor) };
        let start = from - floor;
        let vnet = *storage[..start].last_chunk().expect("asserted above: the header lies before the frame");
        Some(Frame {
            storage,
            start,
            len,
            full_len: header.tp_len as usize,
            is_queued: false,
            vnet,
            tag: tag(header.tp_status, header.hv1.tp_vlan_tpid, header.hv1.tp_vlan_tci as u16),
            is_losing,
        })
    }
}
