//! Laws of parsing: nothing panics or reads past the packet's end, whatever the bytes; what is read is what etherparse
//! and the naive oracle read; and whoever refuses a packet leaves its bytes alone.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lvs_core::wire::icmp::{self, IcmpError};
use lvs_core::wire::parse::{Headers, parse, parse_quoted};
use lvs_core::wire::rewrite::{Rewrite, complete_checksum, rewrite};
use lvs_core::wire::{fragment, ipv4};
use lvs_core::{AddressFamily, ChecksumOffload, DropReason, Endpoint, PacketBuf};
use lvs_testkit::{Storage, describe, icmp_error, oracle, strategy};
use proptest::prelude::*;

proptest! {
    #![proptest_config(strategy::config())]

    #[test]
    fn what_is_read_lies_inside_the_packet(bytes in strategy::bytes()) {
        let Ok(headers) = parse(&bytes) else { return Ok(()) };
        prop_assert!(headers.transport <= headers.packet_len && headers.packet_len <= bytes.len());
        prop_assert_eq!(headers.payload(&bytes).len(), headers.packet_len - headers.transport);
        // The packet alone, and with other bytes behind it, reads the same.
        let alone = &bytes[..headers.packet_len];
        let followed = [alone, &[0xff; 64]].concat();
        for other in [alone, &followed] {
            prop_assert_eq!(parse(other), Ok(headers));
            prop_assert_eq!(read(&headers, other), read(&headers, &bytes));
        }
        let naive = oracle::parse(&bytes).expect("parsed by both or by none");
        prop_assert_eq!((headers.source, headers.destination), (naive.source, naive.destination));
        prop_assert_eq!((headers.protocol, headers.hop_limit), (naive.protocol, naive.hop_limit));
        prop_assert_eq!((headers.transport, headers.payload(&bytes)), (naive.ip_header.len(), naive.segment));
    }

    #[test]
    fn a_packet_that_was_cut_short_is_refused(packet in strategy::packet(), end in any::<prop::sample::Index>()) {
        let bytes = packet.build();
        let end = end.index(bytes.len());
        prop_assert_eq!(parse(&bytes[..end]), Err(DropReason::MalformedIp));
    }

    #[test]
    fn a_whole_packet_is_read_as_etherparse_reads_it(packet in strategy::packet()) {
        let bytes = packet.build();
        let headers = parse(&bytes).expect("a whole packet");
        let sliced = SlicedPacket::from_ip(&bytes).expect("a whole packet");
        let ports = match sliced.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                let flags = headers.tcp_flags(&bytes).expect("a whole header");
                prop_assert_eq!((flags.syn(), flags.ack(), flags.rst(), flags.fin()), (tcp.syn(), tcp.ack(), tcp.rst(), tcp.fin()));
                Some((tcp.source_port(), tcp.destination_port()))
            }
            Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
            _ => None,
        };
        prop_assert!(ports.is_none() || headers.ports(&bytes) == ports, "{}", describe(&bytes));
        match sliced.net.expect("an IP packet") {
            NetSlice::Ipv4(ip) => {
                prop_assert_eq!(headers.source, ip.header().source_addr());
                prop_assert_eq!(headers.destination, ip.header().destination_addr());
                prop_assert_eq!(headers.has_options, !ip.header().options().is_empty());
            }
            NetSlice::Ipv6(ip) => {
                prop_assert_eq!(headers.source, ip.header().source_addr());
                prop_assert_eq!(headers.destination, ip.header().destination_addr());
                prop_assert_eq!(headers.protocol, ip.payload().ip_number.0);
            }
            NetSlice::Arp(_) => unreachable!("an IP packet"),
        }
    }

    #[test]
    fn whoever_refuses_a_packet_leaves_it_alone(
        bytes in strategy::bytes(),
        (from, to) in strategy::endpoints(),
        (start, offset) in (0u16..100, 0u16..20),
        room in 0usize..64,
    ) {
        let Ok(headers) = parse(&bytes) else { return Ok(()) };
        let change = Rewrite {
            source: Some(Endpoint::new(from.ip(), from.port())),
            destination: Some(Endpoint::new(to.ip(), to.port())),
        };
        let partial = ChecksumOffload::Partial { start, offset };
        let related = icmp::related(&bytes, &headers).ok().flatten();
        let _ = (icmp::may_answer(&headers, &bytes), icmp::checksum_is_valid(&bytes, &headers), parse_quoted(&bytes));
        let unchanged = |act: &dyn Fn(&mut PacketBuf<'_>) -> Result<(), DropReason>| {
            let mut storage = Storage::with_room(&bytes, room, 0);
            let mut packet = storage.packet();
            packet.offload.checksum = partial;
            let before = packet.offload;
            act(&mut packet).is_ok() || (packet.bytes() == bytes && packet.offload == before)
        };
        prop_assert!(unchanged(&|packet| rewrite(packet, &headers, &change)));
        prop_assert!(unchanged(&|packet| complete_checksum(packet)));
        prop_assert!(unchanged(&|packet| icmp::make_error(packet, &headers, IcmpError::TimeExceeded, from.ip(), 0)));
        if let Some(related) = related {
            prop_assert!(unchanged(&|packet| icmp::rewrite_error(packet, &headers, &related, &change, &change)));
        }
        let mut parts = 0;
        let refused = fragment::fragment(&bytes, usize::from(start) + 20, 0, &mut [0; 60], |_| parts += 1).is_err();
        prop_assert!(!refused || parts == 0);
        let mut copy = bytes.clone();
        ipv4::fill_record_route(&mut copy, &headers, from.ip());
        prop_assert!(copy.len() == bytes.len() && parse(&copy).is_ok());
    }

    #[test]
    fn a_quoted_packet_reads_like_the_packet_itself(packet in strategy::balanced_packet(), len in 48usize..600) {
        let bytes = packet.build();
        let headers = parse(&bytes).unwrap();
        let quoted_len = bytes.len().min(len.max(headers.transport + 8));
        let (source, error_type) = match headers.family {
            AddressFamily::Ipv4 => ("10.9.8.7", 3),
            AddressFamily::Ipv6 => ("fd00::9", 1),
        };
        let error = icmp_error(source, error_type, 1, 7, &bytes[..quoted_len]).build();
        let outer = parse(&error).unwrap();
        let related = icmp::related(&error, &outer).unwrap().expect("an error about a flow");
        prop_assert_eq!((related.error_type, related.code, related.rest), (error_type, 1, 7));
        prop_assert_eq!(related.quoted.ports(&error), headers.ports(&bytes));
        prop_assert_eq!((related.quoted.source, related.quoted.destination), (headers.source, headers.destination));
        prop_assert_eq!(&error[related.quoted_start..related.quoted.packet_len], &bytes[..quoted_len]);
    }
}

/// Everything the accessors say.
fn read(headers: &Headers, bytes: &[u8]) -> impl PartialEq + std::fmt::Debug + use<> {
    (headers.ports(bytes), headers.tcp_flags(bytes), headers.sctp_chunks(bytes), headers.has_udp_header(bytes))
}
