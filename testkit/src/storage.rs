//! A buffer with head- and tailroom that lends a packet as `lvs-core` wants it.

use lvs_core::{HEADROOM, Offload, PacketBuf};

/// Owns a packet's bytes and the room around them.
///
/// ```
/// use lvs_testkit::{Storage, udp};
/// let mut storage = Storage::new(&udp("10.0.0.1:5000", "192.0.2.1:53").build());
/// assert_eq!(storage.packet().len(), 28);
/// ```
#[derive(Clone, Debug)]
pub struct Storage {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
    /// The offload context [`Storage::packet`] starts with.
    pub offload: Offload,
    /// The mark [`Storage::packet`] starts with.
    pub mark: u32,
    /// Whether [`Storage::packet`] says that it comes from the director's own host.
    pub from_host: bool,
}

impl Storage {
    /// A copy of `packet` with [`HEADROOM`] before it and as much behind.
    pub fn new(packet: &[u8]) -> Self {
        Self::with_room(packet, HEADROOM, HEADROOM)
    }

    /// A copy of `packet` with so many bytes before and behind it, filled with 0xa5.
    pub fn with_room(packet: &[u8], headroom: usize, tailroom: usize) -> Self {
        let mut bytes = vec![0xa5; headroom + packet.len() + tailroom];
        bytes[headroom..headroom + packet.len()].copy_from_slice(packet);
        Self { bytes, start: headroom, len: packet.len(), offload: Offload::default(), mark: 0, from_host: false }
    }

    /// The same with an offload context.
    #[must_use]
    pub fn offload(mut self, offload: Offload) -> Self {
        self.offload = offload;
        self
    }

    /// The same with a firewall mark.
    #[must_use]
    pub fn mark(mut self, mark: u32) -> Self {
        self.mark = mark;
        self
    }

    /// The same from the director's own host.
    #[must_use]
    pub fn from_host(mut self) -> Self {
        self.from_host = true;
        self
    }

    /// The packet's bytes, as it was made.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    /// Lends the packet, as it was made.
    pub fn packet(&mut self) -> PacketBuf<'_> {
        let mut packet = PacketBuf::new(&mut self.bytes, self.start, self.len);
        packet.offload = self.offload;
        packet.mark = self.mark;
        packet.from_host = self.from_host;
        packet
    }
}
