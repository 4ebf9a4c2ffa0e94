//! A packet: a window on the caller's bytes with room before it, plus what the device said about it.

/// Bytes to leave free before each packet: enough for every encapsulation (IPv6 40 + UDP 8 + GUE 12 = 60).
pub const HEADROOM: usize = 64;

/// What the device said about the packet's checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ChecksumOffload {
    /// The transport checksum in the packet is complete.
    #[default]
    Full,
    /// The transport checksum field holds the un-complemented pseudo-header sum; whoever sends the packet sums from
    /// `start` to the end and stores the complement at `start + offset` (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
    Partial {
        /// Offset of the first summed byte from the start of the IP header.
        start: u16,
        /// Offset of the checksum field from `start`.
        offset: u16,
    },
}

/// What kind of super-packet this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams of one flow (`VIRTIO_NET_HDR_GSO_UDP_L4`).
    Udp,
}

/// A super-packet: many segments travelling as one packet; the device cuts it when it leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gso {
    /// Transport and family.
    pub kind: GsoKind,
    /// Payload bytes of each segment.
    pub size: u16,
    /// The ECN bit of the virtio-net header (`VIRTIO_NET_HDR_GSO_ECN`).
    pub ecn: bool,
}

/// The offload context of a packet. The default is an ordinary packet with a complete checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offload {
    /// State of the transport checksum.
    pub checksum: ChecksumOffload,
    /// Set for a super-packet.
    pub gso: Option<Gso>,
}

/// A packet in a buffer the caller lends: bytes from the IP header on, with spare room before and after.
///
/// ```
/// use lvs_core::{HEADROOM, PacketBuf};
///
/// let mut storage = [0u8; HEADROOM + 20];
/// let mut packet = PacketBuf::new(&mut storage, HEADROOM, 20);
/// packet.bytes_mut()[0] = 0x45;
/// assert_eq!(packet.len(), 20);
/// assert!(packet.grow_front(40).is_some());
/// assert_eq!(packet.len(), 60);
/// ```
#[derive(Debug)]
pub struct PacketBuf<'a> {
    storage: &'a mut [u8],
    start: usize,
    end: usize,
    /// What the device said about checksum and segmentation.
    pub offload: Offload,
    /// The firewall mark that arrived with the packet; 0 is none. ipvsadm: `-f`.
    pub mark: u32,
    /// The host on which the director runs has sent or routed the packet (it came by a TUN device): it may have an
    /// address of a side of the director, or of its host ([`crate::DirectorConfig::host_addresses`]), as its source, which
    /// from outside is a forgery ([`crate::DropReason::MartianSource`]). Default no.
    pub from_host: bool,
    /// The priority that arrived with the packet's frame, 0 to 15, for the frame it leaves in: the upper four bits of
    /// an 802.1Q tag (three of priority, and whether it may be dropped first). Never looked at; what is kept back loses
    /// it.
    pub link_priority: u8,
}

impl<'a> PacketBuf<'a> {
    /// The packet at `storage[start..start + len]`.
    ///
    /// # Panics
    /// If that range is not inside `storage`.
    pub fn new(storage: &'a mut [u8], start: usize, len: usize) -> Self {
        let end = start.checked_add(len).expect("start + len fits");
        assert!(end <= storage.len(), "the packet lies inside its storage");
        Self { storage, start, end, offload: Offload::default(), mark: 0, from_host: false, link_priority: 0 }
    }

    /// The packet's bytes, from the IP header on.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    /// The packet's bytes, to be rewritten.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.end]
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Free bytes before the packet.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.start
    }

    /// Free bytes behind the packet.
    pub fn tailroom(&self) -> usize {
        self.storage.len() - self.end
    }

    /// Where the packet starts in its storage.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Moves the start back by `count` bytes (whose content is whatever was there); `None`, and no change,
    /// if there is too little headroom.
    #[inline]
    pub fn grow_front(&mut self, count: usize) -> Option<()> {
        self.start = self.start.checked_sub(count)?;
        Some(())
    }

    /// Moves the start forward by `count` bytes; `None`, and no change, if the packet is shorter.
    pub fn shrink_front(&mut self, count: usize) -> Option<()> {
        if count > self.len() {
            return None;
        }
        self.start += count;
        Some(())
    }

    /// Makes the packet `len` bytes long by moving its end; new bytes hold whatever was there.
    /// `None`, and no change, if the storage is too small.
    #[inline]
    pub fn set_len(&mut self, len: usize) -> Option<()> {
        let end = self.start.checked_add(len)?;
        if end > self.storage.len() {
            return None;
        }
        self.end = end;
        Some(())
    }
}
