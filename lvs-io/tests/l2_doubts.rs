//! What the Ethernet edge doubts: messages that contradict themselves, addresses that are no station's, more questions
//! than it answers. Frames are written out from RFC 826 and RFC 4861.

use std::net::{IpAddr, Ipv6Addr};

use lvs_core::wire::checksum::transport_checksum;
use lvs_core::{HEADROOM, Instant, PacketBuf};
use lvs_io::l2::{Edge, EdgeConfig, FrameReader, LINK_HEADER_MAX, MacAddress, Read, SendError, Sending};

const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const PEER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 3]);
const GROUP: MacAddress = MacAddress([3, 0, 0, 0, 0, 2]);
const ALL_NODES: &str = "ff02::1";

/// A station with a virtual address of each family, before it knows anybody.
struct Station {
    reader: FrameReader,
    edge: Edge,
}

impl Station {
    fn new() -> Self {
        let answers_for = ["10.0.0.80", "fd00::80"].map(address).to_vec();
        let edge = Edge::new(EdgeConfig { answers_for, ..EdgeConfig::new(OWN) });
        let mut station = Self { reader: FrameReader::new(OWN, None), edge };
        // What it says about groups at the start is not of interest here.
        station.transmitted();
        station
    }

    /// Takes a frame in; whether it was understood.
    fn hears(&mut self, mut frame: Vec<u8>) -> bool {
        let len = frame.len();
        match self.reader.read(&mut PacketBuf::new(&mut frame, 0, len), None) {
            Read::Message(message) => self.edge.handle_message(NOW, &message),
            Read::Packet => panic!("that is no packet"),
            Read::Ignored => return false,
        }
        true
    }

    fn send(&mut self, next_hop: IpAddr) -> Result<Option<MacAddress>, SendError> {
        let mut storage = [0x45; HEADROOM + 20];
        let mut packet = PacketBuf::new(&mut storage, HEADROOM, 20);
        match self.edge.send(NOW, &mut packet, next_hop)? {
            Sending::Waits => Ok(None),
            Sending::Ready => Ok(packet.bytes().first_chunk().map(|octets| MacAddress(*octets))),
        }
    }

    fn transmitted(&mut self) -> usize {
        let mut storage = [0; LINK_HEADER_MAX + 2048];
        let next = || self.edge.poll_transmit(&mut PacketBuf::new(&mut storage, LINK_HEADER_MAX, 0));
        std::iter::from_fn(next).count()
    }
}

const NOW: Instant = Instant::from_secs(100);

fn address(text: &str) -> IpAddr {
    text.parse().expect("a constant")
}

fn octets(address: &str) -> Vec<u8> {
    match self::address(address) {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// RFC 826: who asks (1) or answers (2), and about whom.
fn arp(operation: u8, sender: (MacAddress, &str), target: &str) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    let message = [&head[..], &sender.0.0, &octets(sender.1), &[0; 6], &octets(target)].concat();
    [&[0xff; 6][..], &PEER.0, &[8, 6], &message].concat()
}

/// RFC 4861 §4.3, §4.4: type 135 or 136, flags, target, and perhaps an option with an Ethernet address.
fn ndp(kind: u8, flags: u8, [from, to, target]: [&str; 3], option: Option<MacAddress>) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0, flags, 0, 0, 0], &octets(target)[..]].concat();
    if let Some(mac) = option {
        message.extend([kind - 134, 1]);
        message.extend(mac.0);
    }
    let checksum = transport_checksum(address(from), address(to), 58, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let head = [0x60, 0, 0, 0, 0, message.len() as u8, 58, 255];
    let ethernet = [&[0x33, 0x33, 0, 0, 0, 1][..], &PEER.0, &[0x86, 0xdd]].concat();
    [&ethernet[..], &head, &octets(from), &octets(to), &message].concat()
}

fn group_of(target: &str) -> String {
    let [.., a, b, c] = octets(target)[..] else { panic!("it has three bytes") };
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]).to_string()
}

#[test]
fn packets_for_what_is_no_station_are_not_sent_and_nobody_is_asked() {
    let mut station = Station::new();
    let nobody = ["0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "::", "ff02::1", "::1"];
    for next_hop in nobody {
        assert_eq!(station.send(address(next_hop)), Err(SendError::NoRoute), "{next_hop}");
    }
    assert_eq!((station.transmitted(), station.edge.neighbour_count()), (0, 0));
    assert_eq!(station.edge.counters().no_route, nobody.len() as u64);
}

#[test]
fn who_asks_from_an_address_that_is_no_stations_is_answered_but_not_learned() {
    for sender in ["255.255.255.255", "224.0.0.1", "127.0.0.1"] {
        let mut station = Station::new();
        assert!(station.hears(arp(1, (PEER, sender), "10.0.0.80")));
        assert_eq!((station.transmitted(), station.edge.neighbour_count()), (1, 0), "{sender}");
    }
}

#[test]
fn arp_from_a_group_or_from_no_ethernet_address_is_ignored() {
    for mac in [GROUP, MacAddress::BROADCAST, MacAddress([0; 6])] {
        for operation in [1, 2] {
            let mut station = Station::new();
            assert!(!station.hears(arp(operation, (mac, "10.0.0.2"), "10.0.0.80")), "{mac} {operation}");
            assert_eq!((station.transmitted(), station.edge.neighbour_count()), (0, 0));
            assert_eq!(station.reader.counters().malformed, 1);
        }
    }
    assert!(Station::new().hears(arp(1, (PEER, "10.0.0.2"), "10.0.0.80")));
}

#[test]
fn who_has_no_address_yet_asks_the_group_and_without_an_option() {
    let group = group_of("fd00::80");
    let question = |to: &str, option| ndp(135, 0, ["::", to, "fd00::80"], option);
    for (to, option, is_good) in [
        (group.as_str(), None, true),
        (group.as_str(), Some(PEER), false),
        ("fd00::80", None, false),
        (ALL_NODES, None, false),
    ] {
        let mut station = Station::new();
        assert_eq!(station.hears(question(to, option)), is_good, "{to} {option:?}");
        assert_eq!(station.transmitted(), usize::from(is_good));
    }
}

#[test]
fn an_answer_to_a_question_does_not_go_to_a_group() {
    let solicited_and_override = 0x60;
    let answer = |to: &str| ndp(136, solicited_and_override, ["fd00::2", to, "fd00::2"], Some(PEER));
    let mut station = Station::new();
    assert_eq!(station.send(address("fd00::2")), Ok(None));
    station.transmitted();
    assert!(!station.hears(answer(ALL_NODES)));
    assert_eq!(station.send(address("fd00::2")), Ok(None), "still not known");
    assert!(station.hears(answer(&OWN.link_local().to_string())));
    assert_eq!(station.send(address("fd00::2")), Ok(Some(PEER)));
}

#[test]
fn an_advertisement_without_override_moves_no_known_neighbour() {
    let mut station = Station::new();
    assert_eq!(station.send(address("fd00::2")), Ok(None));
    station.transmitted();
    let advertisement = |flags, mac| ndp(136, flags, ["fd00::2", ALL_NODES, "fd00::2"], Some(mac));
    let (solicited, overrides) = (0x40, 0x20);
    assert!(station.hears(ndp(136, solicited, ["fd00::2", &OWN.link_local().to_string(), "fd00::2"], Some(PEER))));
    assert_eq!(station.send(address("fd00::2")), Ok(Some(PEER)));
    assert!(station.hears(advertisement(0, OTHER)));
    assert_eq!(station.send(address("fd00::2")), Ok(Some(PEER)));
    assert!(station.hears(advertisement(overrides, OTHER)));
    assert_eq!(station.send(address("fd00::2")), Ok(Some(OTHER)));
}

#[test]
fn more_questions_than_it_answers_at_once_are_counted() {
    const ANSWERS_MAX: u64 = 64;
    let mut station = Station::new();
    for _ in 0..ANSWERS_MAX + 3 {
        assert!(station.hears(arp(1, (PEER, "10.0.0.2"), "10.0.0.80")));
    }
    assert_eq!(station.transmitted() as u64, ANSWERS_MAX);
    let counters = station.edge.counters();
    assert_eq!((counters.answered, counters.answers_full), (ANSWERS_MAX, 3));
    assert!(station.hears(arp(1, (PEER, "10.0.0.2"), "10.0.0.80")));
    assert_eq!(station.transmitted(), 1, "there is room again");
}
