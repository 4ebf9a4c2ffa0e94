//! Rings of frames shared with the kernel: two kinds to receive by, behind one interface, and one to send by.
//! Lends what was received in place, each frame with room before and behind, and gives it back when the next ones are
//! asked for. Which kind it is decides only how long a frame waits for others.

mod transmit;
mod v2;
mod v3;

use std::io;
use std::os::fd::BorrowedFd;

use lvs_io::l2::Tag;
use lvs_io::vnet;

pub(crate) use transmit::{SHORT_MAX, TransmitRing};

/// How the kernel hands over the frames it received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Delivery {
    /// Each frame at once (TPACKET_V2): the shortest way for a single packet. Super-packets are read from the socket.
    #[default]
    AtOnce,
    /// A block of frames together (TPACKET_V3): when it is full, or has waited. The kernel has less to do for each
    /// frame, a ring of equal size holds more of them, and super-packets lie in it as well; but where there is little
    /// traffic every packet waits.
    InBlocks {
        /// Size of a block, in bytes. Rounded up to a multiple of 64 KiB and to 128 KiB at least, which holds the
        /// longest super-packet.
        block_bytes: usize,
        /// How long a block that is not full waits after its first frame, in milliseconds: 1 at least.
        wait_max_ms: u32,
    },
}

impl Delivery {
    /// Blocks of 256 KiB, some hundred small frames, that wait for the shortest time there is: a millisecond.
    pub const BLOCKS: Self = Self::InBlocks { block_bytes: 256 << 10, wait_max_ms: 1 };
}

/// One frame, lent until the next ones are asked for.
#[derive(Debug)]
pub(crate) struct Frame<'r> {
    /// What the frame lies in; nothing else does.
    pub storage: &'r mut [u8],
    /// Where it begins, and how much of it is there.
    pub start: usize,
    pub len: usize,
    /// How long it is in all.
    pub full_len: usize,
    /// Whether all of it is in the socket's queue.
    pub is_queued: bool,
    pub vnet: [u8; vnet::HEADER_LEN],
    /// The tag that was taken off.
    pub tag: Option<Tag>,
    /// Whether frames have been lost since the counters were last read.
    pub is_losing: bool,
}

/// A ring to receive by.
#[derive(Debug)]
pub(crate) enum ReceiveRing {
    AtOnce(v2::Ring),
    InBlocks(v3::Ring),
}

impl ReceiveRing {
    /// Sets the ring up on a socket that is not bound yet: `bytes` of memory (rounded to whole blocks, at least two),
    /// `headroom` bytes or more free before each frame.
    pub(crate) fn new(socket: BorrowedFd<'_>, delivery: Delivery, bytes: usize, headroom: usize) -> io::Result<Self> {
        match delivery {
            Delivery::AtOnce => v2::Ring::new(socket, bytes, headroom).map(Self::AtOnce),
            Delivery::InBlocks { block_bytes, wait_max_ms } => {
                v3::Ring::new(socket, bytes, block_bytes, wait_max_ms, headroom).map(Self::InBlocks)
            }
        }
    }

    /// The frames that wait, in order. Ends every earlier loan.
    pub(crate) fn frames(&mut self) -> Frames<'_> {
        match self {
            Self::AtOnce(ring) => Frames::AtOnce(ring.frames()),
            Self::InBlocks(ring) => Frames::InBlocks(ring.frames()),
        }
    }
}

/// The frames of a ring that wait, each lent once.
#[derive(Debug)]
pub(crate) enum Frames<'r> {
    AtOnce(v2::Frames<'r>),
    InBlocks(v3::Frames<'r>),
}

impl<'r> Iterator for Frames<'r> {
    type Item = Frame<'r>;

    /// # Panics
    /// If the kernel's description of a frame contradicts itself: that would be a broken kernel, not a broken packet.
    fn next(&mut self) -> Option<Frame<'r>> {
        match self {
            Self::AtOnce(frames) => frames.next(),
            Self::InBlocks(frames) => frames.next(),
        }
    }
}

/// Size of a slot in a ring of slots: a full-sized frame of 1514 bytes, headroom, and some hundred bytes for what
/// grows. Not a power of two, by which frames' beginnings would compete for the same lines of the cache.
const SLOT_LEN: usize = 2112;

/// What the kernel allocates at once for slots.
const SLOTS_LEN: usize = 1 << 16;

/// Slots in each such block; what is left of it stays unused.
const SLOTS: usize = SLOTS_LEN / SLOT_LEN;

/// Where a slot starts in its ring.
fn slot_offset(slot: usize) -> usize {
    slot / SLOTS * SLOTS_LEN + slot % SLOTS * SLOT_LEN
}

/// The ring of `blocks` such blocks, as the kernel wants to be asked for it.
fn slots_request(blocks: usize) -> io::Result<libc::tpacket_req> {
    let field = |value: usize| u32::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
    Ok(libc::tpacket_req {
        tp_block_size: field(SLOTS_LEN)?,
        tp_block_nr: field(blocks)?,
        tp_frame_size: field(SLOT_LEN)?,
        tp_frame_nr: field(SLOTS * blocks)?,
    })
}

/// The tag that the kernel took off a frame of this status. A kernel too old to say which protocol's knows 802.1Q only.
fn tag(status: u32, protocol: u16, control: u16) -> Option<Tag> {
    let is_said = status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    let protocol = if is_said { protocol } else { libc::ETH_P_8021Q as u16 };
    (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(Tag { protocol, control })
}

/// Free bytes behind a frame in a block: for an answer about a short packet, or a helper's longer payload.
const TAILROOM: usize = 548;
