//! Ethernet headers with or without an 802.1Q tag: taken off a frame and put before a packet, in place. The offload
//! context counts its checksum start from the window's first byte, so it moves with it. A tag of another protocol is
//! not read: a frame that has one carries something else than packets, whoever took the tag off.
//!
//! ```text
//!  0            6            12       14     16       18
//!  destination  source       0x8100   tag    type     packet
//!  destination  source       type     packet
//! ```

use lvs_core::{ChecksumOffload, PacketBuf};

use super::address::MacAddress;

/// Most bytes of headroom a frame's header takes.
pub const LINK_HEADER_MAX: usize = 18;

const HEADER_LEN: usize = 14;

pub(super) const TYPE_IPV4: u16 = 0x0800;
pub(super) const TYPE_ARP: u16 = 0x0806;
pub(super) const TYPE_IPV6: u16 = 0x86dd;
/// IEEE 802.1Q.
const TYPE_VLAN: u16 = 0x8100;
/// IEEE 802.1ad: a service provider's tag.
pub(super) const TYPE_SERVICE_VLAN: u16 = 0x88a8;

/// A tag that a device has taken off a frame, the outermost one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag {
    /// Which protocol's tag it is (TPID): 0x8100 is 802.1Q's, 0x88a8 is 802.1ad's.
    pub protocol: u16,
    /// Priority and VLAN (TCI), in host byte order: from above three bits of priority, one that allows to drop the
    /// frame, and twelve of the VLAN's number.
    pub control: u16,
}

/// A frame's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FrameHeader {
    pub destination: MacAddress,
    pub source: MacAddress,
    /// What the frame carries: behind a tag that is read, or a tag that is not.
    pub kind: u16,
    /// The VLAN it belongs to; `None` without a tag, or with one that names a priority only (VLAN 0).
    pub vlan: Option<u16>,
    /// The upper four bits of the tag; 0 without one.
    pub priority: u8,
}

/// Takes the header off: the window then begins behind it. `tag` is the tag the device took off before, if any.
/// `None`, and no change, if the frame is shorter than its header, or its checksum would start inside.
pub(super) fn strip(frame: &mut PacketBuf<'_>, tag: Option<Tag>) -> Option<FrameHeader> {
    let bytes = frame.bytes();
    let header = *bytes.first_chunk::<HEADER_LEN>()?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, k0, k1] = header;
    let (mut kind, mut len) = (u16::from_be_bytes([k0, k1]), HEADER_LEN);
    let mut control = None;
    if let Some(tag) = tag {
        match tag.protocol {
            TYPE_VLAN => control = Some(tag.control),
            other => kind = other,
        }
    } else if kind == TYPE_VLAN {
        let [t0, t1, k0, k1] = *bytes[HEADER_LEN..].first_chunk::<4>()?;
        control = Some(u16::from_be_bytes([t0, t1]));
        kind = u16::from_be_bytes([k0, k1]);
        len = LINK_HEADER_MAX;
    }
    if let ChecksumOffload::Partial { start, offset } = frame.offload.checksum {
        let start = start.checked_sub(len as u16)?;
        frame.offload.checksum = ChecksumOffload::Partial { start, offset };
    }
    frame.shrink_front(len)?;
    let priority = control.map_or(0, |control| (control >> 12) as u8);
    let vlan = control.map(|control| control & 0x0fff).filter(|vlan| *vlan != 0);
    let (destination, source) = (MacAddress([d0, d1, d2, d3, d4, d5]), MacAddress([s0, s1, s2, s3, s4, s5]));
    Some(FrameHeader { destination, source, kind, vlan, priority })
}

/// Puts a header before the packet: the window then begins with it. `None`, and no change, without room.
pub(super) fn prepend(packet: &mut PacketBuf<'_>, header: &FrameHeader) -> Option<()> {
    let (bytes, len) = encode(header);
    packet.grow_front(len)?;
    packet.bytes_mut()[..len].copy_from_slice(&bytes[..len]);
    if let ChecksumOffload::Partial { start, offset } = packet.offload.checksum {
        let start = start.saturating_add(len as u16);
        packet.offload.checksum = ChecksumOffload::Partial { start, offset };
    }
    Some(())
}

fn encode(header: &FrameHeader) -> ([u8; LINK_HEADER_MAX], usize) {
    let mut bytes = [0; LINK_HEADER_MAX];
    bytes[0..6].copy_from_slice(&header.destination.0);
    bytes[6..12].copy_from_slice(&header.source.0);
    let len = match header.vlan {
        None => HEADER_LEN,
        Some(vlan) => {
            bytes[12..14].copy_from_slice(&TYPE_VLAN.to_be_bytes());
            bytes[14..16].copy_from_slice(&(vlan | u16::from(header.priority) << 12).to_be_bytes());
            LINK_HEADER_MAX
        }
    };
    bytes[len - 2..len].copy_from_slice(&header.kind.to_be_bytes());
    (bytes, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGGED: [u8; 22] = *b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x81\0\x60\x07\x08\0\x45\0\0\x14";

    #[test]
    fn a_header_taken_off_and_put_back_is_the_same() {
        let mut storage = TAGGED;
        let mut frame = PacketBuf::new(&mut storage, 0, TAGGED.len());
        frame.offload.checksum = ChecksumOffload::Partial { start: 38, offset: 16 };
        let header = strip(&mut frame, None).expect("it is whole");
        assert_eq!((header.vlan, header.priority, header.kind), (Some(7), 6, TYPE_IPV4));
        assert_eq!(frame.bytes(), [0x45, 0, 0, 0x14]);
        assert_eq!(frame.offload.checksum, ChecksumOffload::Partial { start: 20, offset: 16 });
        assert_eq!(prepend(&mut frame, &header), Some(()));
        assert_eq!(frame.offload.checksum, ChecksumOffload::Partial { start: 38, offset: 16 });
        assert_eq!(frame.bytes(), TAGGED);
    }

    #[test]
    fn a_tag_the_device_took_off_counts() {
        let mut storage = [0; 20];
        storage[12..14].copy_from_slice(&TYPE_IPV6.to_be_bytes());
        let strip = |tag| strip(&mut PacketBuf::new(&mut storage.clone(), 0, 20), tag).expect("it is whole");
        let tag = |control| Some(Tag { protocol: TYPE_VLAN, control });
        assert_eq!(strip(tag(0xe00a)).vlan, Some(10));
        assert_eq!(strip(tag(0xe000)).vlan, None);
        assert_eq!(strip(None).vlan, None);
    }

    #[test]
    fn a_tag_of_another_protocol_is_what_the_frame_carries() {
        let mut storage = [0; 20];
        storage[12..14].copy_from_slice(&TYPE_IPV4.to_be_bytes());
        let tag = Tag { protocol: TYPE_SERVICE_VLAN, control: 0xe00a };
        let header = strip(&mut PacketBuf::new(&mut storage, 0, 20), Some(tag)).expect("it is whole");
        assert_eq!((header.kind, header.vlan, header.priority), (TYPE_SERVICE_VLAN, None, 0));
    }

    #[test]
    fn a_frame_that_ends_inside_its_header_is_left_alone() {
        for len in 0..18 {
            let mut storage = TAGGED;
            let mut frame = PacketBuf::new(&mut storage, 0, len);
            assert_eq!(strip(&mut frame, None), None, "{len}");
            assert_eq!(frame.len(), len);
        }
    }
}
