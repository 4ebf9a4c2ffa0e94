//! Memory for a batch of packets, for sources that read packets one by one: equal slots with headroom, filled in
//! order, then lent. Allocated once.

use lvs_core::{HEADROOM, Offload, PacketBuf};

use crate::device::BATCH;

/// Slots for a batch of packets. Fill with [`Self::next_slot`] and [`Self::commit`], then [`Self::lend`].
///
/// ```
/// use lvs_core::Offload;
/// use lvs_io::BatchBuffers;
///
/// let mut buffers = BatchBuffers::new(4, 1500);
/// let slot = buffers.next_slot().expect("nothing is filled yet");
/// slot[0] = 0x45;
/// buffers.commit(20, Offload::default(), 0);
/// let count = buffers.lend(&mut |packets| assert_eq!(packets[0].len(), 20));
/// assert_eq!(count, 1);
/// ```
#[derive(Debug)]
pub struct BatchBuffers {
    storage: Box<[u8]>,
    stride: usize,
    filled: Vec<Filled>,
    from_host: bool,
}

#[derive(Debug)]
struct Filled {
    len: usize,
    offload: Offload,
    mark: u32,
}

/// Spare bytes behind the longest packet, so that an answer about a short packet, or a helper's longer payload, fits.
const TAILROOM: usize = 548;

impl BatchBuffers {
    /// Room for `count` packets (at most [`BATCH`]) of up to `packet_max` bytes each, headroom not counted.
    ///
    /// A slot for packets of 1500 bytes takes 2112: 64 before, 548 behind.
    pub fn new(count: usize, packet_max: usize) -> Self {
        let count = count.clamp(1, BATCH);
        let stride = HEADROOM + packet_max + TAILROOM;
        let storage = vec![0; stride * count].into_boxed_slice();
        Self { storage, stride, filled: Vec::with_capacity(count), from_host: false }
    }

    /// The same for a device whose packets this host has sent or routed ([`PacketBuf::from_host`]).
    #[must_use]
    pub fn of_host(mut self) -> Self {
        self.from_host = true;
        self
    }

    /// Where the next packet's bytes go; `None` when every slot is filled.
    pub fn next_slot(&mut self) -> Option<&mut [u8]> {
        self.next_slot_from(0)
    }

    /// As [`Self::next_slot`], with the last `before` bytes of the headroom: for devices that put a header before each
    /// packet.
    ///
    /// # Panics
    /// If `before` is more than the headroom.
    pub fn next_slot_from(&mut self, before: usize) -> Option<&mut [u8]> {
        assert!(before <= HEADROOM, "the header lies in the headroom");
        let stride = self.stride;
        let slot = self.storage.chunks_exact_mut(stride).nth(self.filled.len())?;
        Some(&mut slot[HEADROOM - before..stride - TAILROOM])
    }

    /// Says that the slot [`Self::next_slot`] lent now holds a packet of `len` bytes.
    ///
    /// # Panics
    /// If `len` is more than the slot holds, or every slot is filled.
    pub fn commit(&mut self, len: usize, offload: Offload, mark: u32) {
        assert!(len <= self.stride - HEADROOM - TAILROOM, "the packet lies in its slot");
        assert!(self.filled.len() < self.filled.capacity(), "a slot was free");
        self.filled.push(Filled { len, offload, mark });
    }

    /// How many slots are filled.
    pub fn len(&self) -> usize {
        self.filled.len()
    }

    /// Whether no slot is filled.
    pub fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    /// Lends the filled slots to `handle`, in order, and frees them. `handle` is not called if there are none.
    /// Returns how many there were.
    pub fn lend(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> usize {
        let count = self.filled.len();
        if count == 0 {
            return 0;
        }
        let from_host = self.from_host;
        let mut filled = self.filled.drain(..);
        let mut slots = self.storage.chunks_exact_mut(self.stride);
        let mut packets: [PacketBuf<'_>; BATCH] = std::array::from_fn(|_| match filled.next() {
            Some(Filled { len, offload, mark }) => {
                let mut packet = PacketBuf::new(slots.next().expect("one slot for each"), HEADROOM, len);
                packet.offload = offload;
                packet.mark = mark;
                packet.from_host = from_host;
                packet
            }
            None => PacketBuf::new(&mut [], 0, 0),
        });
        handle(&mut packets[..count]);
        count
    }
}
