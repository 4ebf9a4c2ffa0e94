//! Translated, answered and relayed packets against what Linux 6.1 IPVS sent for the same bytes. Each packet is quoted
//! from the recording and step it names (the recordings are described in `conformance/`).

use lvs_core::wire::icmp::{self, IcmpError};
use lvs_core::wire::parse::parse;
use lvs_core::wire::rewrite::{Rewrite, decrement_hop_limit, rewrite};
use lvs_core::wire::{fragment, ipv4};
use lvs_core::{DropReason, Endpoint};
use lvs_testkit::{End, Storage, describe, oracle, tcp, udp};

/// A packet before and after the director.
struct Translation {
    recording: &'static str,
    rewrite: Change,
    received: &'static str,
    sent: &'static str,
}

/// The end that is translated, and to what.
#[derive(Clone, Copy)]
enum Change {
    Nothing,
    From(&'static str),
    To(&'static str),
}

use Change::{From, Nothing, To};

const TRANSLATIONS: &[Translation] = &[
    Translation {
        recording: "nat_tcp step 0",
        rewrite: To("10.1.100.17:443"),
        received: "4500002ce9330000400600c7cb00711f0a114aa1975901bb4314e0ac00000000600220002a7f0000020405b4",
        sent: "4500002ce93300003f06e866cb00711f0a016411975901bb4314e0ac0000000060022000111f0000020405b4",
    },
    Translation {
        recording: "nat_tcp step 1",
        rewrite: From("10.17.74.161:443"),
        received: "4500002cc02f00004006106b0a016411cb00711f01bb9759b7dc51c14314e0ad6012200007700000020405b4",
        sent: "4500002cc02f00003f062acb0a114aa1cb00711f01bb9759b7dc51c14314e0ad6012200020d00000020405b4",
    },
    Translation {
        recording: "nat6_tcp step 0",
        rewrite: To("[fd01::f7:5522]:8000"),
        received: "600000000018064020010db80f685f16000000000000c858fd00ff7700000000000000000000f76e336f23286d58ba760000000060022000a1480000020405b4",
        sent: "600000000018063f20010db80f685f16000000000000c858fd010000000000000000000000f75522336f1f406d58ba76000000006002200045fd0000020405b4",
    },
    Translation {
        recording: "nat6_tcp step 1",
        rewrite: From("[fd00:ff77::f76e]:9000"),
        received: "6000000000180640fd010000000000000000000000f7552220010db80f685f16000000000000c8581f40336f328a5b186d58ba7760122000b8490000020405b4",
        sent: "600000000018063ffd00ff7700000000000000000000f76e20010db80f685f16000000000000c8582328336f328a5b186d58ba776012200013950000020405b4",
    },
    Translation {
        recording: "nat_badcsum step 6",
        rewrite: To("10.1.116.97:8091"),
        received: "4500002c57720000400619b4cb00716b0a22c318117a1f90c6590509000000006002200028130000020405b4",
        sent: "4500002c577200003f06698ccb00716b0a017461117a1f9bc6590509000000006002200076e00000020405b4",
    },
    Translation {
        recording: "nat_badcsum step 10",
        rewrite: To("10.1.116.97:8091"),
        received: "450000341234000040842f0e6440078a0a22c3181bd31f9000000000a807cf400100001400000007a808e5dc737dd7dc1736bb6e",
        sent: "45000034123400003f847ee66440078a0a0174611bd31f9b00000000933514fa0100001400000007a808e5dc737dd7dc1736bb6e",
    },
    Translation {
        recording: "nat6_badcsum step 6",
        rewrite: To("[fd01::99:5d31]:45727"),
        received: "600000000018064020010db863ace44b000000000000fb0afd004a7c000000000000000000005b8f2202b2948105e2f8000000006002200071c90000020405b4",
        sent: "600000000018063f20010db863ace44b000000000000fb0afd010000000000000000000000995d312202b29f8105e2f80000000060022000b9fe0000020405b4",
    },
    Translation {
        recording: "nat_truncated step 19",
        rewrite: To("10.1.146.93:22967"),
        received: "4500002112340000401131e6cb0071520a7cefe3f5fb0050000000003132333435",
        sent: "45000021123400003f1190e7cb0071520a01925df5fb59b700003e163132333435",
    },
    Translation {
        recording: "nat_truncated step 22",
        rewrite: To("10.1.146.93:22967"),
        received: "4500002112340000401131e6cb0071520a7cefe3f5fb0050006400003132333435",
        sent: "45000021123400003f1190e7cb0071520a01925df5fb59b700643db23132333435",
    },
    Translation {
        recording: "nat_truncated step 23",
        rewrite: To("10.1.146.93:22967"),
        received: "4500002812340000400631eacb0071520a7cefe3f5fb0050000003e800000000f002200000000000",
        sent: "45000028123400003f0690ebcb0071520a01925df5fb59b7000003e800000000f0022000049a0000",
    },
    Translation {
        recording: "nat_truncated step 26",
        rewrite: To("10.1.146.93:22967"),
        received: "4500002812340000400631eacb0071520a7cefe3f5fb0050000003e800000000500220005efc0000747261696c696e67206a756e6b20616674657220746865204950206c656e677468",
        sent: "45000028123400003f0690ebcb0071520a01925df5fb59b7000003e8000000005002200063960000",
    },
    Translation {
        recording: "nat6_truncated step 19",
        rewrite: To("[fd01::41:4a2b]:443"),
        received: "60000000000d114020010db82c021da2000000000000dce5fd004b5d00000000000000000000665aa3a801bb000000003132333435",
        sent: "60000000000d113f20010db82c021da2000000000000dce5fd010000000000000000000000414a2ba3a801bb000025663132333435",
    },
    Translation {
        recording: "nat6_exthdr step 6",
        rewrite: To("[fd01::7d:ac1f]:8000"),
        received: "60000000001c3c4020010db8a7800dc20000000000003921fd00b5dd00000000000000000000b3f23c0001040000000011000104000000009615d2f2000c3a0365787464",
        sent: "60000000001c3c3f20010db8a7800dc20000000000003921fd0100000000000000000000007dac1f3c00010400000000110001040000000096151f40000caae865787464",
    },
    Translation {
        recording: "nat6_exthdr step 7",
        rewrite: From("[fd00:b5dd::b3f2]:54002"),
        received: "60000000001c3c40fd0100000000000000000000007dac1f20010db8a7800dc200000000000039213c0001040000000011000104000000001f409615000cbef86261636b",
        sent: "60000000001c3c3ffd00b5dd00000000000000000000b3f220010db8a7800dc200000000000039213c000104000000001100010400000000d2f29615000c4e136261636b",
    },
    Translation {
        recording: "nat_ipopts step 0",
        rewrite: To("10.1.100.136:26411"),
        received: "46000024123400004011a4f5cb00713a0a3c7a2701010101c6281f90000c759b6f707473",
        sent: "46000024123400003f11bbcfcb00713a0a01648801010101c628672b000c43da6f707473",
    },
    Translation {
        recording: "nat_ipopts step 4",
        rewrite: To("10.1.100.136:26411"),
        received: "4800002c12340000401199e4cb00713a0a3c7a27070b04000000000000000000c6281f90000c759b6f707473",
        sent: "4800002c123400003f11493acb00713a0a016488070b080a3c7a270000000000c628672b000c43da6f707473",
    },
    Translation {
        recording: "nat_ipopts step 5",
        rewrite: From("10.60.122.39:8080"),
        received: "4800002c123400004011afbe0a016488cb00713a070b04000000000000000000672bc628000c61f16261636b",
        sent: "4800002c123400003f1133600a3c7a27cb00713a070b080a3c7a2700000000001f90c628000c93b26261636b",
    },
    Translation {
        recording: "nat_sctp step 0",
        rewrite: To("10.1.105.235:8000"),
        received: "4500003412340000408449c4ac14213a0a75468ba8901f9000000000fdbbe02001000014fc11d5ae00010000000a000a00000001",
        sent: "45000034123400003f8427d8ac14213a0a0169eba8901f4000000000a559351201000014fc11d5ae00010000000a000a00000001",
    },
    Translation {
        recording: "nat6_sctp step 0",
        rewrite: To("[fd01::c:afd9]:443"),
        received: "600000000020844020010db85f755d8e0000000000004c57fd0090be000000000000000000001b5effa001bb0000000066a0bc4c0100001407657e7500010000000a000a00000001",
        sent: "600000000020843f20010db85f755d8e0000000000004c57fd0100000000000000000000000cafd9ffa001bb0000000066a0bc4c0100001407657e7500010000000a000a00000001",
    },
    Translation {
        recording: "dr_basic step 0",
        rewrite: Nothing,
        received: "4528002c937a0000ff06c59fcb0071450aec1b586af700354e935b47000000006002200000960000020405b4",
        sent: "4528002c937a0000fe06c69fcb0071450aec1b586af700354e935b47000000006002200000960000020405b4",
    },
];

#[test]
fn packets_leave_as_linux_sends_them() {
    for Translation { recording, rewrite: change, received, sent } in TRANSLATIONS {
        let mut storage = Storage::new(&hex(received));
        let mut packet = storage.packet();
        let headers = parse(packet.bytes()).expect(recording);
        decrement_hop_limit(packet.bytes_mut(), headers.family);
        rewrite(&mut packet, &headers, &change.rewrite()).expect(recording);
        if headers.record_route.is_some() {
            // Step 4 goes to the server, step 5 to the client: both record the virtual address.
            ipv4::fill_record_route(packet.bytes_mut(), &headers, "10.60.122.39".parse().expect("an address"));
        }
        check(recording, packet.bytes(), &hex(sent));
    }
}

/// Recording and step; the new outer source or destination; the quoted packet's new end; received; sent.
const RELAYED: &[(&str, Change, Change, &str, &str)] = &[
    (
        "nat_icmp_from_rs step 34: only the ports of the transport header are quoted",
        From("10.243.230.162"),
        To("10.243.230.162:5060"),
        "450000344321000040017b180a01877dc63364de0303cba4000000004500005c123400003f11accdc63364de0a01877d105d20fb",
        "45000034432100003f011c010af3e6a2c63364de0303d8db000000004500005c123400003f114cb6c63364de0af3e6a2105d13c4",
    ),
    (
        "nat_icmp_from_rs step 33: a router's error gets the virtual address; the quoted UDP checksum goes stale",
        From("10.243.230.162"),
        To("10.243.230.162:5060"),
        "4500007843210000400104500a01fe01c63364de0b00b1e9000000004500005c123400003f11accdc63364de0a01877d105d20fb0048fa9629cac157c401206bb2a729c8a717d00b9e8697d078f7262cf456664b1ff833f48ca514d7b114a0a659c37f8337d2fbd2b0cfcc1aca64edb50fe4d577314623e8",
        "45000078432100003f011bbd0af3e6a2c63364de0b00bf20000000004500005c123400003f114cb6c63364de0af3e6a2105d13c40048fa9629cac157c401206bb2a729c8a717d00b9e8697d078f7262cf456664b1ff833f48ca514d7b114a0a659c37f8337d2fbd2b0cfcc1aca64edb50fe4d577314623e8",
    ),
    (
        "nat6_icmp_from_rs step 26",
        From("fd00:772c::f4c1"),
        To("[fd00:772c::f4c1]:49790"),
        "6000000000343a40fd010000000000000000000000b3bbb220010db8fd476bb40000000000006eee0104b61100000000600000000048113f20010db8fd476bb40000000000006eeefd010000000000000000000000b3bbb229722f6b",
        "6000000000343a3ffd00772c00000000000000000000f4c120010db8fd476bb40000000000006eee0104c3ee00000000600000000048113f20010db8fd476bb40000000000006eeefd00772c00000000000000000000f4c12972c27e",
    ),
    (
        "nat_icmp_from_client step 7",
        To("10.1.39.141"),
        From("10.1.39.141:8443"),
        "4500003843210000400149f3ac1421be0a85155a0303892800000000450000a0e07400003f06ad320a85155aac1421be13c4497abb1a5b7b",
        "45000038432100003f013944ac1421be0a01278d03037bf100000000450000a0e07400003f069b830a01278dac1421be20fb497abb1a5b7b",
    ),
    (
        "nat6_icmp_from_client step 18",
        To("fd01::b2:5ce4"),
        From("[fd01::b2:5ce4]:8443"),
        "6000000000783a4020010db8007700000000000000000001fd0032ec00000000000000000000c9910300636f00000000600000000048113ffd0032ec00000000000000000000c99120010db82d51c2630000000000003a2f04aa58ad004870053647d53922843131259ba3236c0971af381933b4188cc6eb8e9b13679e847442deafc39aa1b451c79cc80a1c402d4db285dc184443bb08aca6fdea3a0f988545",
        "6000000000783a3f20010db8007700000000000000000001fd010000000000000000000000b25ce4030084eb00000000600000000048113ffd010000000000000000000000b25ce420010db82d51c2630000000000003a2f20fb58ad004870053647d53922843131259ba3236c0971af381933b4188cc6eb8e9b13679e847442deafc39aa1b451c79cc80a1c402d4db285dc184443bb08aca6fdea3a0f988545",
    ),
];

#[test]
fn errors_about_a_translated_flow_leave_as_linux_sends_them() {
    for (recording, outer, quoted, received, sent) in RELAYED {
        let mut storage = Storage::new(&hex(received));
        let mut packet = storage.packet();
        let headers = parse(packet.bytes()).expect(recording);
        let related = icmp::related(packet.bytes(), &headers).expect(recording).expect(recording);
        assert!(icmp::checksum_is_valid(packet.bytes(), &headers), "{recording}");
        decrement_hop_limit(packet.bytes_mut(), headers.family);
        icmp::rewrite_error(&mut packet, &headers, &related, &outer.rewrite(), &quoted.rewrite()).expect(recording);
        check(recording, packet.bytes(), &hex(sent));
    }
}

/// Recording and step; the error; its source; its identification; the packet that caused it; the answer.
const ANSWERS: &[(&str, IcmpError, &str, u16, &str, &str)] = &[
    (
        "nat_ttl step 3",
        IcmpError::TimeExceeded,
        "10.173.76.31",
        0x6ef6,
        "4500002970e800000106c77ec63364690aad4c1f436300357d3f30ca9e99a00d501820006619000078",
        "45c000456ef60000400189990aad4c1fc63364690b007684000000004500002970e800000106c77ec63364690aad4c1f436300357d3f30ca9e99a00d501820006619000078",
    ),
    (
        "nat6_ttl step 3",
        IcmpError::TimeExceeded,
        "fd00:69b6::ea78",
        0,
        "600000000015060120010db80d24c8aa0000000000005d28fd0069b600000000000000000000ea784e907762d3a1371da6d06f3b501820007f2d000078",
        "6000000000453a40fd0069b600000000000000000000ea7820010db80d24c8aa0000000000005d280300e4a400000000600000000015060120010db80d24c8aa0000000000005d28fd0069b600000000000000000000ea784e907762d3a1371da6d06f3b501820007f2d000078",
    ),
    (
        "tun_ipip step 17: TOS 2a is answered with ca",
        IcmpError::TimeExceeded,
        "10.238.138.180",
        0x386d,
        "452a0025123400000111d567cb0071600aee8ab43bcd0050001114a86a2118da9dff670855",
        "45ca0041386d000040016f820aee8ab4cb0071600b00c72500000000452a0025123400000111d567cb0071600aee8ab43bcd0050001114a86a2118da9dff670855",
    ),
    (
        "nat_nomatch step 3",
        IcmpError::PortUnreachable,
        "10.190.197.32",
        0x0422,
        "45000021123400004011cb47ac14215e0abec520287e1f90000dd6a268656c6c6f",
        "45c0003d042200004001d88d0abec520ac14215e03039a6c0000000045000021123400004011cb47ac14215e0abec520287e1f90000dd6a268656c6c6f",
    ),
];

#[test]
fn refused_packets_are_answered_as_linux_answers_them() {
    for (recording, error, source, identification, received, sent) in ANSWERS {
        let mut storage = Storage::new(&hex(received));
        let mut packet = storage.packet();
        let headers = parse(packet.bytes()).expect(recording);
        assert!(icmp::may_answer(&headers, packet.bytes()), "{recording}");
        icmp::make_error(&mut packet, &headers, *error, source.end().ip(), *identification).expect(recording);
        check(recording, packet.bytes(), &hex(sent));
    }
}

/// `nat_mtu` step 3 and `nat6_mtu` step 3: 1440 and 1460 bytes against an MTU of 1400.
#[test]
fn a_long_packet_is_quoted_up_to_576_and_1280_bytes() {
    for (packet, len, mtu_is_at) in [
        (tcp("198.51.100.79:4920", "10.242.116.130:1194").ack().dont_fragment().payload_len(1400), 576, 24),
        (tcp("[2001:db8::5b85]:35891", "[fd00::4dce]:53").ack().payload_len(1400), 1280, 44),
    ] {
        let mut storage = Storage::new(&packet.build());
        let mut packet = storage.packet();
        let headers = parse(packet.bytes()).unwrap();
        icmp::make_error(&mut packet, &headers, IcmpError::TooBig { mtu: 1400 }, headers.destination, 1).unwrap();
        assert_eq!(packet.len(), len);
        assert_eq!(packet.bytes()[mtu_is_at..mtu_is_at + 4], 1400u32.to_be_bytes());
        assert_eq!(oracle::checksum_errors(packet.bytes()), Vec::<&str>::new());
    }
}

/// `nat_mtu` steps 4 and 8: 1440 and 1418 bytes against an MTU of 1400.
#[test]
fn a_packet_without_df_is_split_where_linux_splits_it() {
    for (packet, expected) in [
        (tcp("198.51.100.79:4920", "10.1.21.103:1194").ack().payload_len(1400), [1396, 64]),
        (udp("100.64.7.171:50429", "10.1.21.103:1194").payload_len(1390), [1396, 42]),
    ] {
        let mut lengths = vec![];
        fragment::fragment(&packet.build(), 1400, 0, &mut [0; 1400], |part| lengths.push(part.len())).unwrap();
        assert_eq!(lengths, expected);
    }
}

/// `nat_truncated`: cut-off headers, a source route, a quote of two bytes. What Linux was silent about, we can tell.
#[test]
fn what_is_cut_off_is_not_read() {
    let tcp_with_13_bytes = hex("4500002112340000400631f1cb0071520a7cefe3f5fb0050a2c660ec3468399657");
    let headers = parse(&tcp_with_13_bytes).unwrap();
    assert_eq!(headers.ports(&tcp_with_13_bytes), Some((62971, 80)));
    assert_eq!(headers.tcp_flags(&tcp_with_13_bytes), None);

    let udp_with_7_bytes = hex("4500001b12340000401131eccb0071520a7cefe3f5fb00509f082d");
    let headers = parse(&udp_with_7_bytes).unwrap();
    assert!(!headers.has_udp_header(&udp_with_7_bytes));
    let mut storage = Storage::new(&udp_with_7_bytes);
    let to_server = To("10.1.146.93:22967").rewrite();
    assert_eq!(rewrite(&mut storage.packet(), &headers, &to_server), Err(DropReason::TruncatedTransport));
    assert_eq!(storage.packet().bytes(), udp_with_7_bytes);

    let icmp_with_2_bytes = hex("450000161234000040013201cb0071520a7cefe30303");
    let headers = parse(&icmp_with_2_bytes).expect("step 24");
    assert_eq!(icmp::related(&icmp_with_2_bytes, &headers), Err(DropReason::TruncatedIcmp));

    let icmp_quoting_2_bytes = hex("4500001e12340000400131f9cb0071520a7cefe30301b7fe000000004500");
    let headers = parse(&icmp_quoting_2_bytes).expect("step 25");
    assert_eq!(icmp::related(&icmp_quoting_2_bytes, &headers), Ok(None));

    let source_routed = hex("47000028123400004011bb29cb00713a0a3c7a27830704c000026300c6281f90000c759b6f707473");
    assert!(parse(&source_routed).expect("nat_ipopts step 16").source_route);
}

fn check(recording: &str, actual: &[u8], expected: &[u8]) {
    assert!(
        actual == expected,
        "{recording}\nsent      {}\nexpected  {}\n{actual:02x?}\n{expected:02x?}",
        describe(actual),
        describe(expected),
    );
}

impl Change {
    fn rewrite(self) -> Rewrite {
        let endpoint = |text: &str| {
            let end = text.end();
            Endpoint::new(end.ip(), end.port())
        };
        match self {
            Nothing => Rewrite::default(),
            From(source) => Rewrite { source: Some(endpoint(source)), destination: None },
            To(destination) => Rewrite { source: None, destination: Some(endpoint(destination)) },
        }
    }
}

fn hex(digits: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    (0..digits.len()).step_by(2).map(digit).collect()
}
