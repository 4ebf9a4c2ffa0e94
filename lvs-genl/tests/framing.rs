//! Framing against a second opinion: `netlink-packet-core` reads what is written here, and both find the same messages
//! and attributes.

use lvs_genl::wire::{Attributes, Header, Messages, Writer};
use netlink_packet_core::{NetlinkBuffer, NlaBuffer, NlasIterator};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(lvs_testkit::strategy::config())]

    #[test]
    fn what_is_written_is_read_by_both(
        (kind, flags, sequence, port) in any::<(u16, u16, u32, u32)>(),
        attributes in vec((0..0x4000_u16, vec(any::<u8>(), 0..40)), 0..8),
    ) {
        let mut datagram = Vec::new();
        let mut message = Writer::new(&mut datagram, Header { length: 0, kind, flags, sequence, port });
        for (number, value) in &attributes {
            message.bytes(*number, value);
        }
        message.finish();

        let ours = Messages::new(&datagram).next().unwrap();
        let theirs = NetlinkBuffer::new_checked(&datagram).unwrap();
        prop_assert_eq!(ours.header.length, theirs.length());
        prop_assert_eq!((ours.header.kind, ours.header.flags), (theirs.message_type(), theirs.flags()));
        prop_assert_eq!((ours.header.sequence, ours.header.port), (theirs.sequence_number(), theirs.port_number()));
        let expected: Vec<_> = attributes.iter().map(|(number, value)| (*number, &value[..])).collect();
        let read: Vec<_> = Attributes::new(ours.payload()).map(|found| (found.number, found.value)).collect();
        prop_assert_eq!(&read, &expected);
        let read: Vec<_> = NlasIterator::new(theirs.payload()).map(|found| found.unwrap()).collect();
        let read: Vec<_> = read.iter().map(|found| (found.kind(), found.value())).collect();
        prop_assert_eq!(&read, &expected);
    }

    #[test]
    fn both_find_the_same_attributes_in_any_bytes(bytes in vec(any::<u8>(), 0..64)) {
        let ours: Vec<_> = Attributes::new(&bytes).map(|found| found.value.to_vec()).collect();
        let theirs = NlasIterator::new(&bytes[..]).map_while(Result::ok);
        let theirs: Vec<_> = theirs.map(|found: NlaBuffer<_>| found.value().to_vec()).collect();
        prop_assert_eq!(ours, theirs);
    }
}
