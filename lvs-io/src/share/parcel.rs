//! Packets in memory of their own: kept for later, or as parcels on their way to a shard.
//! A depot has so many parcels and no more; each comes back once it was read, and is used again.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use lvs_core::{HEADROOM, Offload, PacketBuf};

/// A packet in memory of its own, which the next one may have after it.
#[derive(Default)]
pub(super) struct Kept {
    storage: Box<[u8]>,
    len: usize,
    offload: Offload,
    mark: u32,
    from_host: bool,
    link_priority: u8,
}

impl Kept {
    /// Keeps a copy of `packet`, instead of what was kept before.
    pub fn fill(&mut self, packet: &PacketBuf<'_>) {
        // Room for an answer longer than a short packet, too.
        let needed = HEADROOM + packet.len().max(2048);
        if self.storage.len() < needed {
            self.storage = vec![0; needed].into_boxed_slice();
        }
        self.storage[HEADROOM..HEADROOM + packet.len()].copy_from_slice(packet.bytes());
        self.len = packet.len();
        self.offload = packet.offload;
        self.mark = packet.mark;
        self.from_host = packet.from_host;
        self.link_priority = packet.link_priority;
    }

    /// The packet it was filled with.
    pub fn packet(&mut self) -> PacketBuf<'_> {
        let mut packet = PacketBuf::new(&mut self.storage, HEADROOM, self.len);
        packet.offload = self.offload;
        packet.mark = self.mark;
        packet.from_host = self.from_host;
        packet.link_priority = self.link_priority;
        packet
    }
}

/// A packet on its way to a shard.
pub(super) struct Parcel {
    kept: Kept,
    /// It is a fragment for the sorter, not yet for the shard that owns it.
    pub is_unsorted: bool,
    give_back: SyncSender<Kept>,
}

impl Parcel {
    pub fn packet(&mut self) -> PacketBuf<'_> {
        self.kept.packet()
    }

    /// Returns the memory to its depot.
    pub fn give_back(self) {
        // The owner may have ended.
        let _ = self.give_back.try_send(self.kept);
    }
}

/// The parcels from one shard to one other, made as needed up to a bound.
pub(super) struct Depot {
    returned: Receiver<Kept>,
    give_back: SyncSender<Kept>,
    made: usize,
    parcels_max: usize,
}

impl Depot {
    pub fn new(parcels_max: usize) -> Self {
        let (give_back, returned) = sync_channel(parcels_max);
        Self { returned, give_back, made: 0, parcels_max }
    }

    /// Packs a packet; `None` if every parcel is on its way.
    pub fn pack(&mut self, packet: &PacketBuf<'_>, is_unsorted: bool) -> Option<Parcel> {
        let mut kept = match self.returned.try_recv() {
            Ok(kept) => kept,
            Err(_) if self.made < self.parcels_max => {
                self.made += 1;
                Kept::default()
            }
            Err(_) => return None,
        };
        kept.fill(packet);
        Some(Parcel { kept, is_unsorted, give_back: self.give_back.clone() })
    }
}
