//! A TPACKET_V3 receive ring: blocks of memory the kernel fills with frames and hands over whole. Lends the frames of
//! one block at a time, in place, each with room before it, and gives the block back when the next is asked for.
//!
//! ```text
//! block   descriptor │ frame │ frame │ …
//! frame   tpacket3_hdr  sockaddr_ll  headroom (PACKET_RESERVE)  virtio-net header  Ethernet frame
//!         0             48           68                         tp_mac − 10        tp_mac
//! ```
//!
//! Layout: packet_mmap in the kernel's documentation; virtio-net headers: packet(7), PACKET_VNET_HDR.
#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use lvs_io::vnet;

use crate::mmap::Mapping;
use crate::socket;

/// One frame, lent until the next block is asked for.
#[derive(Debug)]
pub(crate) struct Frame<'r> {
    /// What the frame lies in; nothing else does.
    pub storage: &'r mut [u8],
    /// Where it begins. Its end is the storage's.
    pub start: usize,
    /// How long it was before it was cut to fit the ring.
    pub full_len: usize,
    pub vnet: [u8; vnet::HEADER_LEN],
    /// The 802.1Q tag that was taken off.
    pub tag: Option<u16>,
    /// Whether frames have been lost since the counters were last read.
    pub is_losing: bool,
}

/// The ring.
#[derive(Debug)]
pub(crate) struct Ring {
    mapping: Mapping,
    block_len: usize,
    block_count: usize,
    /// The block whose turn it is.
    block: usize,
    /// Frames of that block not lent yet, and where the next is; `None` if the block is not ours.
    left: Option<Left>,
}

#[derive(Clone, Copy, Debug)]
struct Left {
    frames: u32,
    /// From the block's start.
    offset: usize,
}

/// Size of a block: three super-packets or more, over a hundred full-sized ones.
const BLOCK_LEN: usize = 1 << 18;

/// How long the kernel waits for more frames before it hands over a block that is not full: the least there is.
const RETIRE_AFTER_MS: u32 = 1;

impl Ring {
    /// Sets the ring up on a socket that is not bound yet: `bytes` of memory (rounded to whole blocks, at least two),
    /// `headroom` bytes or more free before each frame.
    pub(crate) fn new(socket: BorrowedFd<'_>, bytes: usize, headroom: usize) -> io::Result<Self> {
        socket::set_option(socket, libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V3 as libc::c_int)?;
        socket::set_option(socket, libc::PACKET_VNET_HDR, 1)?;
        socket::set_option(socket, libc::PACKET_RESERVE, headroom as libc::c_int)?;
        let block_count = (bytes / BLOCK_LEN).max(2);
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK_LEN as u32,
            tp_block_nr: block_count as u32,
            // Frames have the size they need; this only has to divide the block.
            tp_frame_size: FRAME_LEN as u32,
            tp_frame_nr: (BLOCK_LEN / FRAME_LEN * block_count) as u32,
            tp_retire_blk_tov: RETIRE_AFTER_MS,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        socket::set_option(socket, libc::PACKET_RX_RING, request)?;
        let mapping = Mapping::new(socket, BLOCK_LEN * block_count)?;
        Ok(Self { mapping, block_len: BLOCK_LEN, block_count, block: 0, left: None })
    }

    /// The next frames of the block whose turn it is; none if the kernel has not handed it over. Ends every earlier
    /// loan.
    pub(crate) fn frames(&mut self) -> Frames<'_> {
        if self.left.is_some_and(|left| left.frames == 0) {
            self.give_back();
        }
        if self.left.is_none() {
            self.left = self.take_block();
        }
        let start = self.block_start();
        Frames { start, len: self.block_len, left: self.left.as_mut(), ring: PhantomData }
    }

    /// Takes the block over from the kernel if it is ready.
    fn take_block(&mut self) -> Option<Left> {
        if self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            return None;
        }
        let start = self.block_start();
        // SAFETY: the block begins with its descriptor, is page-aligned, lies in the mapping, and is ours: the status,
        // read with acquire ordering, said so, and the kernel writes no more until it is given back.
        let header = unsafe { start.cast::<libc::tpacket_block_desc>().as_ref().hdr.bh1 };
        Some(Left { frames: header.num_pkts, offset: header.offset_to_first_pkt as usize })
    }

    /// Gives the block back to the kernel; the next one's turn comes.
    fn give_back(&mut self) {
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.left = None;
        self.block = (self.block + 1) % self.block_count;
    }

    /// The word of the current block that says whose it is.
    fn status(&self) -> &AtomicU32 {
        let status = std::mem::offset_of!(libc::tpacket_block_desc, hdr);
        // SAFETY: the offset lies in the descriptor at the block's start, which is page-aligned and inside the mapping;
        // the word is four bytes, aligned, and shared with the kernel, which is why it is only accessed as an atomic
        // (`take_block` reads the rest of the header only while the kernel does not write).
        unsafe { self.block_start().byte_add(status).cast::<AtomicU32>().as_ref() }
    }

    fn block_start(&self) -> NonNull<u8> {
        debug_assert!((self.block + 1) * self.block_len <= self.mapping.len());
        // SAFETY: `block` < `block_count`, and the mapping holds so many blocks of this length.
        unsafe { self.mapping.start().add(self.block * self.block_len) }
    }
}

/// Must divide the block, be a multiple of 16, and hold the headers and headroom.
const FRAME_LEN: usize = 2048;

/// Frames of one block, each lent once.
#[derive(Debug)]
pub(crate) struct Frames<'r> {
    start: NonNull<u8>,
    len: usize,
    left: Option<&'r mut Left>,
    /// Nobody may give the block back while frames of it are lent.
    ring: PhantomData<&'r mut Ring>,
}

impl<'r> Iterator for Frames<'r> {
    type Item = Frame<'r>;

    /// # Panics
    /// If the kernel's description of a frame contradicts itself: that would be a broken kernel, not a broken packet.
    fn next(&mut self) -> Option<Frame<'r>> {
        let left = self.left.as_deref_mut()?;
        if left.frames == 0 {
            return None;
        }
        let offset = left.offset;
        assert!(offset + HEADERS_LEN <= self.len && offset.is_multiple_of(8), "a frame lies in its block");
        // SAFETY: the header lies in the block (asserted), aligned to 8, written by the kernel before it handed the
        // block over, and the block is ours for 'r.
        let header = unsafe { self.start.byte_add(offset).cast::<libc::tpacket3_hdr>().read() };
        let (start, len) = (usize::from(header.tp_mac), header.tp_snaplen as usize);
        left.frames -= 1;
        // The last frame's is not needed.
        left.offset = if left.frames > 0 { offset + header.tp_next_offset as usize } else { offset };
        let is_apart = left.frames == 0 || header.tp_next_offset as usize >= start + len;
        let is_inside = offset + start + len <= self.len && start >= HEADERS_LEN + vnet::HEADER_LEN;
        assert!(is_apart && is_inside, "a frame lies in its place");
        // SAFETY: from behind its headers to its end the frame lies in the block (asserted), apart from the next
        // (asserted), and each frame is lent once a block: `offset` only grows. Until 'r ends the block is not given
        // back, so nobody else writes there.
        let storage = unsafe {
            let first = self.start.as_ptr().byte_add(offset + HEADERS_LEN);
            std::slice::from_raw_parts_mut(first, start + len - HEADERS_LEN)
        };
        let start = start - HEADERS_LEN;
        let vnet = *storage[..start].last_chunk().expect("asserted above: the header lies before the frame");
        let has_tag = header.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
        Some(Frame {
            storage,
            start,
            full_len: header.tp_len as usize,
            vnet,
            tag: has_tag.then_some(header.hv1.tp_vlan_tci as u16),
            is_losing: header.tp_status & libc::TP_STATUS_LOSING != 0,
        })
    }
}

/// What lies before each frame's headroom.
const HEADERS_LEN: usize = size_of::<libc::tpacket3_hdr>() + size_of::<libc::sockaddr_ll>();
