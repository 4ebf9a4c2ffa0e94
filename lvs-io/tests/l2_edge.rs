//! The Ethernet edge as a link sees it: frames in, frames out, the time moved by hand. Expected frames are written out
//! from RFC 826, RFC 4861 and RFC 3810; ICMPv6 checksums come from lvs-core, which the edge does not use.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use lvs_core::wire::checksum::transport_checksum;
use lvs_core::{ChecksumOffload, HEADROOM, Instant, Offload, PacketBuf};
use lvs_io::l2::{
    Edge, EdgeConfig, FrameReader, LINK_HEADER_MAX, MacAddress, NEIGHBOURS_MAX, Read, Routes, SendError, Sending, Tag,
    WAITING_BYTES_MAX, WAITING_EACH_MAX, WAITING_MAX,
};

const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const PEER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 3]);

/// The same in both families: who is who.
#[derive(Clone, Copy, Debug)]
struct Family {
    own: IpAddr,
    virtual_address: IpAddr,
    peer: IpAddr,
}

fn families() -> [Family; 2] {
    let family = |own: &str, virtual_address: &str, peer: &str| Family {
        own: own.parse().unwrap(),
        virtual_address: virtual_address.parse().unwrap(),
        peer: peer.parse().unwrap(),
    };
    [family("10.0.0.1", "10.0.0.80", "10.0.0.2"), family("fd00::1", "fd00::80", "fd00::2")]
}

fn config() -> EdgeConfig {
    EdgeConfig {
        source_ipv4: Some([10, 0, 0, 1].into()),
        source_ipv6: Some("fd00::1".parse().unwrap()),
        answers_for: families().map(|family| family.virtual_address).to_vec(),
        ..EdgeConfig::new(OWN)
    }
}

/// A station and its clock.
struct Station {
    reader: FrameReader,
    edge: Edge,
    now: Instant,
    /// What it has said about groups, when.
    reports: Vec<(Instant, Vec<u8>)>,
}

impl Station {
    fn new(config: EdgeConfig) -> Self {
        let reader = FrameReader::new(config.mac, config.vlan);
        Self { reader, edge: Edge::new(config), now: Instant::from_secs(100), reports: Vec::new() }
    }

    /// Takes a frame; the packet in it, if there is one.
    fn receive(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = frame.to_vec();
        let mut frame = PacketBuf::new(&mut bytes, 0, frame.len());
        match self.reader.read(&mut frame, None) {
            Read::Packet => Some(frame.bytes().to_vec()),
            Read::Message(message) => {
                self.edge.handle_message(self.now, &message);
                None
            }
            Read::Ignored => None,
        }
    }

    /// Sends a packet; the frame, if it can leave at once.
    fn send(&mut self, packet: &[u8], next_hop: IpAddr) -> Result<Option<Vec<u8>>, SendError> {
        let mut storage = [&[0; HEADROOM], packet].concat();
        let mut packet = PacketBuf::new(&mut storage, HEADROOM, packet.len());
        let before = packet.bytes().to_vec();
        match self.edge.send(self.now, &mut packet, next_hop) {
            Ok(Sending::Ready) => Ok(Some(packet.bytes().to_vec())),
            Ok(Sending::Waits) => Ok(None),
            Err(error) => {
                assert_eq!(packet.bytes(), before);
                Err(error)
            }
        }
    }

    /// What it has to say now; reports of groups are put aside.
    fn transmitted(&mut self) -> Vec<Vec<u8>> {
        let mut storage = vec![0; LINK_HEADER_MAX + 65_535];
        let mut frames = Vec::new();
        loop {
            let mut frame = PacketBuf::new(&mut storage, LINK_HEADER_MAX, 0);
            if self.edge.poll_transmit(&mut frame).is_none() {
                return frames;
            }
            // The next header of IPv6 is that of hop-by-hop options.
            match frame.bytes() {
                report @ [_, _, _, _, _, _, _, _, _, _, _, _, 0x86, 0xdd, _, _, _, _, _, _, 0, ..] => {
                    self.reports.push((self.now, report.to_vec()));
                }
                other => frames.push(other.to_vec()),
            }
        }
    }

    /// Lets time pass, and what is due happen when it is due.
    fn wait(&mut self, duration: Duration) -> Vec<Vec<u8>> {
        let end = self.now + duration;
        let mut frames = self.transmitted();
        while let Some(due) = self.edge.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.edge.handle_timeout(self.now);
            frames.extend(self.transmitted());
        }
        self.now = end;
        frames
    }

    /// Makes the peer known.
    fn meet(&mut self, family: Family) {
        assert_eq!(self.send(&packet(family, 0), family.peer), Ok(None));
        self.transmitted();
        self.receive(&answer(family.peer, PEER, family.own));
        assert_eq!(self.transmitted().len(), 1);
    }
}

fn frame(destination: MacAddress, source: MacAddress, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&destination.0, &source.0, &kind.to_be_bytes()[..], payload].concat()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn kind(family: Family) -> u16 {
    if family.own.is_ipv4() { 0x0800 } else { 0x86dd }
}

/// A packet of the family, recognisable by its number.
fn packet(family: Family, number: u8) -> Vec<u8> {
    let mut bytes = vec![number; 60];
    bytes[0] = if family.own.is_ipv4() { 0x45 } else { 0x60 };
    bytes[6] = 17;
    bytes
}

/// RFC 826: sender and target, each an Ethernet and an IP address.
fn arp(operation: u8, sender: (MacAddress, IpAddr), target: (MacAddress, IpAddr)) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    [&head[..], &sender.0.0, &octets(sender.1), &target.0.0, &octets(target.1)].concat()
}

/// RFC 4861 §4.3, §4.4: type 135 or 136, flags, target, and an option (1 source, 2 target) with an Ethernet address.
fn ndp(kind: u8, flags: u8, from: IpAddr, to: IpAddr, target: IpAddr, mac: MacAddress) -> Vec<u8> {
    let option = if kind == 135 { 1 } else { 2 };
    let mut message = [&[kind, 0, 0, 0, flags, 0, 0, 0], &octets(target)[..], &[option, 1], &mac.0].concat();
    let checksum = transport_checksum(from, to, 58, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let head = [0x60, 0, 0, 0, 0, message.len() as u8, 58, 255];
    [&head[..], &octets(from), &octets(to), &message].concat()
}

fn solicited_node(address: IpAddr) -> (MacAddress, IpAddr) {
    let octets = octets(address);
    let [a, b, c] = *octets.last_chunk().unwrap();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    (MacAddress([0x33, 0x33, 0xff, a, b, c]), group.into())
}

/// `asker` asks who has `target`: everybody, or the station that had it.
fn question(target: IpAddr, asker: (MacAddress, IpAddr), to: Option<MacAddress>) -> Vec<u8> {
    if target.is_ipv4() {
        let message = arp(1, asker, (to.unwrap_or(MacAddress([0; 6])), target));
        return frame(to.unwrap_or(MacAddress::BROADCAST), asker.0, 0x0806, &message);
    }
    let (mac, address) = to.map_or(solicited_node(target), |mac| (mac, target));
    frame(mac, asker.0, 0x86dd, &ndp(135, 0, asker.1, address, target, asker.0))
}

/// The station `mac` tells the asker that it has `address`.
fn answer(address: IpAddr, mac: MacAddress, asker: IpAddr) -> Vec<u8> {
    answer_to(address, mac, (OWN, asker))
}

fn answer_to(address: IpAddr, mac: MacAddress, asker: (MacAddress, IpAddr)) -> Vec<u8> {
    if address.is_ipv4() {
        return frame(asker.0, mac, 0x0806, &arp(2, (mac, address), asker));
    }
    frame(asker.0, mac, 0x86dd, &ndp(136, 0x60, address, asker.1, address, mac))
}

/// The station `mac` tells everybody that it has `address` now.
fn announcement(address: IpAddr, mac: MacAddress) -> Vec<u8> {
    if address.is_ipv4() {
        let message = arp(1, (mac, address), (MacAddress([0; 6]), address));
        return frame(MacAddress::BROADCAST, mac, 0x0806, &message);
    }
    let all: IpAddr = "ff02::1".parse().unwrap();
    frame(MacAddress([0x33, 0x33, 0, 0, 0, 1]), mac, 0x86dd, &ndp(136, 0x20, address, all, address, mac))
}

#[test]
fn a_packet_waits_until_its_neighbour_has_answered() {
    for family in families() {
        let mut station = Station::new(config());
        assert_eq!(station.send(&packet(family, 7), family.peer), Ok(None));
        assert_eq!(station.transmitted(), [question(family.peer, (OWN, family.own), None)]);
        station.receive(&answer(family.peer, PEER, family.own));
        let expected = |number| frame(PEER, OWN, kind(family), &packet(family, number));
        assert_eq!(station.transmitted(), [expected(7)]);
        // From now on it is known.
        assert_eq!(station.send(&packet(family, 8), family.peer), Ok(Some(expected(8))));
        assert!(station.transmitted().is_empty());
    }
}

#[test]
fn a_silent_neighbour_is_asked_three_times_and_then_left_alone_for_a_while() {
    for family in families() {
        let mut station = Station::new(config());
        assert_eq!(station.send(&packet(family, 1), family.peer), Ok(None));
        let asked = station.wait(Duration::from_millis(2_900));
        assert_eq!(asked, vec![question(family.peer, (OWN, family.own), None); 3]);
        assert_eq!(station.edge.counters().unreachable, 0);
        station.wait(Duration::from_millis(200));
        assert_eq!(station.edge.counters().unreachable, 1);
        assert_eq!(station.send(&packet(family, 2), family.peer), Err(SendError::Unreachable));
        assert!(station.wait(Duration::from_secs(3)).is_empty());
        assert_eq!(station.send(&packet(family, 3), family.peer), Ok(None));
        assert_eq!(station.transmitted().len(), 1);
    }
}

#[test]
fn a_neighbour_in_use_is_asked_now_and_then_whether_it_is_still_there() {
    for family in families() {
        let mut station = Station::new(config());
        station.meet(family);
        station.wait(Duration::from_millis(29_900));
        assert!(station.send(&packet(family, 1), family.peer).unwrap().is_some());
        assert!(station.transmitted().is_empty());
        // After 30 s: asked by itself, and packets go on meanwhile.
        station.wait(Duration::from_millis(200));
        assert!(station.send(&packet(family, 2), family.peer).unwrap().is_some());
        assert_eq!(station.transmitted(), [question(family.peer, (OWN, family.own), Some(PEER))]);
        station.receive(&answer(family.peer, PEER, family.own));
        assert!(station.send(&packet(family, 3), family.peer).unwrap().is_some());
        assert!(station.wait(Duration::from_secs(5)).is_empty());
    }
}

#[test]
fn a_neighbour_that_has_gone_is_looked_for_everywhere() {
    for family in families() {
        let mut station = Station::new(config());
        station.meet(family);
        station.wait(Duration::from_secs(31));
        assert!(station.send(&packet(family, 1), family.peer).unwrap().is_some());
        let asked = station.wait(Duration::from_millis(3_100));
        let own = (OWN, family.own);
        assert_eq!(asked[..3], vec![question(family.peer, own, Some(PEER)); 3]);
        assert_eq!(asked[3..], [question(family.peer, own, None)]);
        // It has another card now.
        assert_eq!(station.send(&packet(family, 2), family.peer), Ok(None));
        station.receive(&answer(family.peer, OTHER, family.own));
        assert_eq!(station.transmitted(), [frame(OTHER, OWN, kind(family), &packet(family, 2))]);
    }
}

#[test]
fn a_neighbour_nobody_needs_is_forgotten_after_a_minute() {
    for family in families() {
        let mut station = Station::new(config());
        station.meet(family);
        station.wait(Duration::from_secs(20));
        assert!(station.send(&packet(family, 1), family.peer).unwrap().is_some());
        station.wait(Duration::from_secs(59));
        assert_eq!(station.edge.neighbour_count(), 1);
        station.wait(Duration::from_secs(2));
        assert_eq!(station.edge.neighbour_count(), 0);
        assert_eq!(station.edge.poll_timeout(), None);
    }
}

#[test]
fn the_oldest_of_too_many_waiting_packets_gives_way() {
    let [family, _] = families();
    let mut station = Station::new(config());
    for number in 0..=WAITING_EACH_MAX {
        assert_eq!(station.send(&packet(family, number as u8), family.peer), Ok(None));
    }
    station.transmitted();
    station.receive(&answer(family.peer, PEER, family.own));
    let numbers: Vec<u8> = station.transmitted().iter().map(|frame| *frame.last().unwrap()).collect();
    assert_eq!(numbers, (1..=WAITING_EACH_MAX as u8).collect::<Vec<_>>());
    assert_eq!(station.edge.counters().waiting_full, 1);
}

#[test]
fn what_waits_in_all_is_bounded_in_packets_and_bytes() {
    let [family, _] = families();
    let neighbour = |index: usize| IpAddr::from([10, 1, (index / 256) as u8, (index % 256) as u8]);
    let fill = |len: usize| {
        let mut station = Station::new(config());
        let waiting = (0..2 * WAITING_MAX).take_while(|index| {
            let mut bytes = packet(family, 0);
            bytes.resize(len, 0);
            station.send(&bytes, neighbour(*index)) == Ok(None)
        });
        let count = waiting.count();
        (count, station)
    };
    assert_eq!(fill(60).0, WAITING_MAX);
    let (count, mut station) = fill(60_000);
    assert_eq!(count, WAITING_BYTES_MAX / 60_000);
    // When they have been given up there is room again.
    station.wait(Duration::from_secs(10));
    assert_eq!(station.send(&packet(family, 1), family.peer), Ok(None));
    assert_eq!(station.edge.counters().unreachable, count as u64);
}

#[test]
fn of_too_many_neighbours_the_one_unused_for_longest_gives_way_but_no_static_one() {
    let [family, _] = families();
    let mut config = config();
    config.static_neighbours = vec![(family.peer, PEER)];
    let mut station = Station::new(config);
    let neighbour = |index: usize| IpAddr::from([10, 1, (index / 256) as u8, (index % 256) as u8]);
    for index in 0..NEIGHBOURS_MAX {
        station.now = station.now + Duration::from_nanos(1);
        let _ = station.send(&packet(family, 0), neighbour(index));
    }
    assert_eq!(station.edge.neighbour_count(), NEIGHBOURS_MAX);
    assert_eq!(station.edge.counters().evicted, 1);
    let forgotten = station.transmitted();
    assert_eq!(forgotten[0], question(neighbour(0), (OWN, family.own), None));
    station.receive(&answer(neighbour(0), OTHER, family.own));
    assert!(station.transmitted().is_empty(), "nothing waits for a neighbour that was forgotten");
    assert!(station.send(&packet(family, 1), family.peer).unwrap().is_some());
}

#[test]
fn a_static_neighbour_is_never_asked_never_forgotten_and_never_moved() {
    for family in families() {
        let mut config = config();
        config.static_neighbours = vec![(family.peer, PEER)];
        let mut station = Station::new(config);
        station.receive(&announcement(family.peer, OTHER));
        station.receive(&question(family.virtual_address, (OTHER, family.peer), None));
        station.transmitted();
        assert!(station.wait(Duration::from_secs(1000)).is_empty());
        let expected = frame(PEER, OWN, kind(family), &packet(family, 1));
        assert_eq!(station.send(&packet(family, 1), family.peer), Ok(Some(expected)));
    }
}

#[test]
fn who_asks_for_a_virtual_address_is_answered_and_known_from_then_on() {
    for family in families() {
        let mut station = Station::new(config());
        let asker = (PEER, family.peer);
        station.receive(&question(family.virtual_address, asker, None));
        assert_eq!(station.transmitted(), [answer_to(family.virtual_address, OWN, asker)]);
        // Known from hearsay: used, and asked for confirmation.
        let expected = frame(PEER, OWN, kind(family), &packet(family, 1));
        assert_eq!(station.send(&packet(family, 1), family.peer), Ok(Some(expected)));
        assert_eq!(station.transmitted(), [question(family.peer, (OWN, family.own), Some(PEER))]);
        // What is asked of others is theirs to answer.
        station.receive(&question(family.own, asker, None));
        assert!(station.transmitted().is_empty());
    }
}

#[test]
fn who_checks_whether_a_virtual_address_is_free_learns_that_it_is_not() {
    let [v4, v6] = families();
    let mut station = Station::new(config());
    let asker = (PEER, IpAddr::from([0; 4]));
    station.receive(&question(v4.virtual_address, asker, None));
    assert_eq!(station.transmitted(), [answer_to(v4.virtual_address, OWN, asker)]);
    // RFC 4862 §5.4.2: from the unspecified address, without an option. RFC 4861 §7.2.4: everybody is told.
    let nobody = IpAddr::from([0; 16]);
    let (group_mac, group) = solicited_node(v6.virtual_address);
    let mut probe = ndp(135, 0, nobody, group, v6.virtual_address, PEER);
    probe.truncate(40 + 24);
    probe[5] = 24;
    probe[42..44].fill(0);
    let checksum = transport_checksum(nobody, group, 58, &probe[40..]);
    probe[42..44].copy_from_slice(&checksum.to_be_bytes());
    station.receive(&frame(group_mac, PEER, 0x86dd, &probe));
    assert_eq!(station.transmitted(), [announcement(v6.virtual_address, OWN)]);
    assert_eq!(station.edge.neighbour_count(), 0);
}

#[test]
fn a_take_over_is_announced_three_times() {
    let [v4, v6] = families();
    let mut station = Station::new(config());
    station.edge.announce(station.now);
    let round = [announcement(v4.virtual_address, OWN), announcement(v6.virtual_address, OWN)];
    assert_eq!(station.wait(Duration::from_millis(900)), round);
    assert_eq!(station.wait(Duration::from_secs(10)), [round.clone(), round].concat());
    assert_eq!(station.edge.poll_timeout(), None);
}

#[test]
fn an_address_added_later_is_announced_and_answered_for_until_it_is_removed() {
    for family in families() {
        let mut station = Station::new(EdgeConfig::new(OWN));
        let asked = question(family.virtual_address, (PEER, family.peer), None);
        station.receive(&asked);
        assert!(station.transmitted().is_empty());
        station.edge.add_address(station.now, family.virtual_address);
        assert_eq!(station.transmitted(), [announcement(family.virtual_address, OWN)]);
        station.receive(&asked);
        assert_eq!(station.transmitted().len(), 1);
        station.edge.remove_address(family.virtual_address);
        station.receive(&asked);
        assert!(
            station
                .wait(Duration::from_secs(10))
                .iter()
                .all(|frame| *frame != announcement(family.virtual_address, OWN))
        );
        assert_eq!(station.edge.counters().answered, 1);
    }
}

#[test]
fn another_station_that_claims_a_virtual_address_is_counted_and_not_believed() {
    for family in families() {
        let mut station = Station::new(config());
        station.receive(&announcement(family.virtual_address, OTHER));
        station.receive(&question(family.virtual_address, (OTHER, family.virtual_address), None));
        assert_eq!(station.edge.counters().conflicts, 2);
        assert_eq!(station.edge.neighbour_count(), 0);
        assert!(station.transmitted().is_empty());
    }
}

#[test]
fn a_neighbour_that_announces_its_move_is_followed_and_one_nobody_asked_for_is_not_learned() {
    for family in families() {
        let mut station = Station::new(config());
        station.receive(&announcement(family.peer, OTHER));
        assert_eq!(station.edge.neighbour_count(), 0);
        station.meet(family);
        station.receive(&announcement(family.peer, OTHER));
        let expected = frame(OTHER, OWN, kind(family), &packet(family, 1));
        assert_eq!(station.send(&packet(family, 1), family.peer), Ok(Some(expected)));
        // Said by whoever: it is asked.
        assert_eq!(station.transmitted(), [question(family.peer, (OWN, family.own), Some(OTHER))]);
    }
}

#[test]
fn packets_go_to_the_gateway_of_the_longest_prefix() {
    for family in families() {
        let mut routes = Routes::new();
        let far: IpAddr = if family.own.is_ipv4() { "203.0.113.7" } else { "2001:db8::7" }.parse().unwrap();
        routes.add_gateway(lvs_io::Prefix::from(far), family.peer);
        let mut station = Station::new(EdgeConfig { routes, ..config() });
        assert_eq!(station.send(&packet(family, 1), far), Ok(None));
        assert_eq!(station.transmitted(), [question(family.peer, (OWN, family.own), None)]);
        assert_eq!(station.send(&packet(family, 1), family.peer), Err(SendError::NoRoute));
        assert_eq!(station.edge.counters().no_route, 1);
        // A stranger who asks is answered, but what it says of itself is not believed: it is not on the link.
        station.receive(&question(family.virtual_address, (OTHER, family.own), None));
        assert_eq!(station.transmitted().len(), 1);
        assert_eq!(station.edge.neighbour_count(), 1);
    }
}

#[test]
fn a_station_in_a_vlan_hears_and_speaks_only_there() {
    let tagged = |frame: &[u8], tag: u16| [&frame[..12], &[0x81, 0], &tag.to_be_bytes(), &frame[12..]].concat();
    for family in families() {
        let mut station = Station::new(EdgeConfig { vlan: Some(7), ..config() });
        let asker = (PEER, family.peer);
        let asked = question(family.virtual_address, asker, None);
        for other in [asked.clone(), tagged(&asked, 8), tagged(&asked, 0)] {
            station.receive(&other);
            assert!(station.transmitted().is_empty());
        }
        assert_eq!(station.reader.counters().other_vlan, 3);
        // The upper bits are a priority.
        station.receive(&tagged(&asked, 0xe007));
        assert_eq!(station.transmitted(), [tagged(&answer_to(family.virtual_address, OWN, asker), 7)]);
        let plain = frame(OWN, PEER, kind(family), &packet(family, 1));
        assert_eq!(station.receive(&tagged(&plain, 7)), Some(packet(family, 1)));
        let sent = frame(PEER, OWN, kind(family), &packet(family, 2));
        assert_eq!(station.send(&packet(family, 2), family.peer), Ok(Some(tagged(&sent, 7))));
    }
}

#[test]
fn a_frame_with_a_service_tag_is_ignored_and_counted_whoever_took_the_tag_off() {
    for (family, vlan) in families().into_iter().flat_map(|family| [(family, None), (family, Some(7))]) {
        let mut station = Station::new(EdgeConfig { vlan, ..config() });
        let question = question(family.virtual_address, (PEER, family.peer), None);
        let packet = frame(OWN, PEER, kind(family), &packet(family, 1));
        for (vlan, untagged) in [(7, &question), (7, &packet), (0, &question), (0, &packet)] {
            let inside = [&untagged[..12], &[0x88, 0xa8, 0, vlan], &untagged[12..]].concat();
            assert_eq!(station.receive(&inside), None);
            let tag = Some(Tag { protocol: 0x88a8, control: u16::from(vlan) });
            let mut storage = untagged.clone();
            let len = storage.len();
            assert_eq!(station.reader.read(&mut PacketBuf::new(&mut storage, 0, len), tag), Read::Ignored);
        }
        assert!(station.transmitted().is_empty());
        let counters = *station.reader.counters();
        assert_eq!((counters.service_tagged, counters.other_vlan, counters.other_protocol), (8, 0, 0));
    }
}

#[test]
fn a_forwarded_packet_keeps_its_priority_and_what_the_station_says_itself_has_none() {
    let tagged = |frame: &[u8], tag: u16| [&frame[..12], &[0x81, 0], &tag.to_be_bytes(), &frame[12..]].concat();
    for family in families() {
        let mut station = Station::new(EdgeConfig { vlan: Some(7), ..config() });
        let forward = |station: &mut Station, number| {
            let came = tagged(&frame(OWN, OTHER, kind(family), &packet(family, number)), 0xb007);
            let mut storage = [&[0; HEADROOM], &came[..]].concat();
            let mut packet = PacketBuf::new(&mut storage, HEADROOM, came.len());
            assert_eq!(station.reader.read(&mut packet, None), Read::Packet);
            (station.edge.send(station.now, &mut packet, family.peer), packet.bytes().to_vec())
        };
        let leaves = |number| tagged(&frame(PEER, OWN, kind(family), &packet(family, number)), 0xb007);
        // Kept until the neighbour answers, and at once.
        assert_eq!(forward(&mut station, 1).0, Ok(Sending::Waits));
        assert_eq!(station.transmitted(), [tagged(&question(family.peer, (OWN, family.own), None), 7)]);
        station.receive(&tagged(&answer(family.peer, PEER, family.own), 7));
        assert_eq!(station.transmitted(), [leaves(1)]);
        assert_eq!(forward(&mut station, 2), (Ok(Sending::Ready), leaves(2)));
    }
}

#[test]
fn only_what_is_addressed_to_the_station_is_a_packet_for_the_director() {
    let [family, _] = families();
    let mut station = Station::new(config());
    let to = |destination, kind| frame(destination, PEER, kind, &packet(family, 1));
    assert_eq!(station.receive(&to(OWN, 0x0800)), Some(packet(family, 1)));
    for frame in [to(OTHER, 0x0800), to(MacAddress::BROADCAST, 0x0800), to(OWN, 0x88cc), to(OWN, 0x0806)] {
        assert_eq!(station.receive(&frame), None);
    }
    let counters = *station.reader.counters();
    assert_eq!((counters.for_others, counters.other_protocol, counters.malformed), (2, 1, 1));
}

#[test]
fn a_discovery_message_that_a_router_has_passed_on_or_that_is_damaged_is_ignored() {
    let [_, family] = families();
    let good = question(family.virtual_address, (PEER, family.peer), None);
    let changed = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        frame
    };
    let mut station = Station::new(config());
    // Hop limit; code; checksum; an option of length zero; a payload that ends early.
    for frame in
        [changed(14 + 7, 254), changed(14 + 41, 1), changed(14 + 42, 0), changed(14 + 65, 0), changed(14 + 5, 20)]
    {
        station.receive(&frame);
        assert!(station.transmitted().is_empty());
    }
    assert_eq!(station.reader.counters().malformed, 5);
    station.receive(&good);
    assert_eq!(station.transmitted().len(), 1);
}

#[test]
fn a_partial_checksum_counts_from_the_frames_start_while_the_packet_has_a_header() {
    let [family, _] = families();
    let mut station = Station::new(EdgeConfig { static_neighbours: vec![(family.peer, PEER)], ..config() });
    let mut storage = [&[0; HEADROOM][..], &packet(family, 1)].concat();
    let mut packet = PacketBuf::new(&mut storage, HEADROOM, 60);
    packet.offload = Offload { checksum: ChecksumOffload::Partial { start: 20, offset: 16 }, gso: None };
    assert_eq!(station.edge.send(station.now, &mut packet, family.peer), Ok(Sending::Ready));
    assert_eq!(packet.offload.checksum, ChecksumOffload::Partial { start: 34, offset: 16 });
}

#[test]
fn a_clock_that_jumps_loses_no_packet_uncounted() {
    let [family, _] = families();
    let mut station = Station::new(config());
    assert_eq!(station.send(&packet(family, 1), family.peer), Ok(None));
    station.now = Instant::ZERO;
    station.edge.handle_timeout(station.now);
    station.now = Instant::from_secs(1_000_000);
    for _ in 0..3 {
        station.edge.handle_timeout(station.now);
        station.now = station.now + Duration::from_secs(100);
    }
    assert_eq!(station.edge.counters().unreachable, 1);
}

/// An address whose group is ff02::1:ff00:n, and that group.
fn heard(n: u8) -> (IpAddr, Ipv6Addr) {
    let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into());
    (address.into(), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, n.into()))
}

/// A station that answers for the addresses of these groups, and has told so.
fn listener(numbers: impl IntoIterator<Item = u8>) -> Station {
    let answers_for = numbers.into_iter().map(|n| heard(n).0).collect();
    let mut station = Station::new(EdgeConfig { answers_for, ..EdgeConfig::new(OWN) });
    station.wait(Duration::from_secs(2));
    station
}

/// A message of Multicast Listener Discovery, in its frame.
fn discovery(from: MacAddress, source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let checksum = transport_checksum(source.into(), destination.into(), 58, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let len = 8 + message.len() as u16;
    let header = [&[0x60, 0, 0, 0], &len.to_be_bytes()[..], &[0, 1], &source.octets(), &destination.octets()].concat();
    let options = [58, 0, 5, 2, 0, 0, 1, 0];
    let [.., a, b, c, d] = destination.octets();
    frame(MacAddress([0x33, 0x33, a, b, c, d]), from, 0x86dd, &[&header[..], &options, &message].concat())
}

/// A report of version 2 with these records.
fn report(records: &[(u8, Ipv6Addr)]) -> Vec<u8> {
    let mut message = vec![143, 0, 0, 0, 0, 0, 0, records.len() as u8];
    for (kind, group) in records {
        message.extend([*kind, 0, 0, 0]);
        message.extend(group.octets());
    }
    let own = "fe80::ff:fe00:1".parse().unwrap();
    discovery(OWN, own, "ff02::16".parse().unwrap(), &message)
}

/// A query by the peer with this maximum response code; of version 1 without the last four bytes.
fn query(group: Option<Ipv6Addr>, code: u16, is_version_1: bool) -> Vec<u8> {
    let group_or_any = group.unwrap_or(Ipv6Addr::UNSPECIFIED);
    let mut message =
        [&[130, 0, 0, 0][..], &code.to_be_bytes(), &[0, 0], &group_or_any.octets(), &[2, 125, 0, 0]].concat();
    if is_version_1 {
        message.truncate(24);
    }
    let destination = group.unwrap_or("ff02::1".parse().unwrap());
    discovery(PEER, "fe80::2".parse().unwrap(), destination, &message)
}

const LISTENS: u8 = 2;
const LEAVES: u8 = 3;
const JOINS: u8 = 4;

#[test]
fn the_groups_of_its_ipv6_addresses_are_joined_twice_and_left_twice() {
    let [(one, group_1), (two, group_2)] = [1, 2].map(heard);
    let ipv4 = IpAddr::from([10, 0, 0, 80]);
    let mut station = Station::new(EdgeConfig { answers_for: vec![two, one, ipv4], ..EdgeConfig::new(OWN) });
    station.wait(Duration::from_secs(10));
    let [first, second] = station.reports.as_slice() else { panic!("{:?}", station.reports) };
    let joins = report(&[(JOINS, group_1), (JOINS, group_2)]);
    assert_eq!((&first.1, &second.1), (&joins, &joins));
    let between = second.0.duration_since(first.0);
    assert!(first.0 == Instant::from_secs(100) && between <= Duration::from_secs(1), "{between:?}");

    // An address of the same group changes nothing, nor does the first one's end.
    station.reports.clear();
    let same_group: IpAddr = "2001:db8:ffff::1".parse().unwrap();
    station.edge.add_address(station.now, same_group);
    station.edge.remove_address(one);
    station.wait(Duration::from_secs(10));
    assert_eq!(station.reports, []);
    station.edge.remove_address(same_group);
    station.wait(Duration::from_secs(10));
    let leaves = report(&[(LEAVES, group_1)]);
    assert_eq!(station.reports.iter().map(|(_, frame)| frame).collect::<Vec<_>>(), [&leaves, &leaves]);
    // A take-over is told to the switch, too; what was left is forgotten.
    station.reports.clear();
    station.edge.announce(station.now);
    station.wait(Duration::from_secs(10));
    let joins = report(&[(JOINS, group_2)]);
    assert_eq!(station.reports.iter().map(|(_, frame)| frame).collect::<Vec<_>>(), [&joins, &joins]);
    assert_eq!(station.edge.counters().group_reports, 6);
    assert_eq!(station.edge.poll_timeout(), None);
}

#[test]
fn a_group_left_and_joined_again_before_that_was_told_is_joined() {
    let (address, group) = heard(1);
    let mut station = listener([1]);
    station.reports.clear();
    station.edge.remove_address(address);
    station.edge.add_address(station.now, address);
    station.wait(Duration::from_secs(10));
    let joins = report(&[(JOINS, group)]);
    assert_eq!(station.reports.iter().map(|(_, frame)| frame).collect::<Vec<_>>(), [&joins, &joins]);
}

#[test]
fn questions_about_groups_are_answered_in_time_and_together() {
    let [group_1, group_2] = [1, 2].map(|n| heard(n).1);
    let mut delays = Vec::new();
    for _ in 0..20 {
        let mut station = listener([1, 2]);
        for _ in 0..delays.len() {
            // Each time another delay.
            station.receive(&query(None, 10, false));
            station.wait(Duration::from_secs(1));
        }
        station.reports.clear();
        let asked = station.now;
        station.receive(&query(None, 1000, false));
        station.wait(Duration::from_secs(2));
        let [(answered, frame)] = station.reports.as_slice() else { panic!("{:?}", station.reports) };
        assert_eq!(*frame, report(&[(LISTENS, group_1), (LISTENS, group_2)]));
        delays.push(answered.duration_since(asked));
    }
    assert!(delays.iter().all(|delay| *delay <= Duration::from_secs(1)), "{delays:?}");
    assert!(delays.iter().min() < Some(&Duration::from_millis(300)), "{delays:?}");
    assert!(delays.iter().max() > Some(&Duration::from_millis(700)), "{delays:?}");

    let mut station = listener([1, 2]);
    station.reports.clear();
    let asked = station.now;
    station.receive(&query(Some(group_2), 1000, false));
    station.receive(&query(Some(heard(3).1), 1000, false));
    station.receive(&query(Some(group_2), 0, false));
    station.wait(Duration::from_secs(2));
    assert_eq!(station.reports, [(asked, report(&[(LISTENS, group_2)]))]);
    assert_eq!(station.edge.counters().group_queries, 3);
}

#[test]
fn a_querier_of_version_1_is_answered_in_its_words() {
    let [group_1, group_2] = [1, 2].map(|n| heard(n).1);
    let own = "fe80::ff:fe00:1".parse().unwrap();
    let message = |kind: u8, group: Ipv6Addr, to: Ipv6Addr| {
        discovery(OWN, own, to, &[&[kind, 0, 0, 0, 0, 0, 0, 0], &group.octets()[..]].concat())
    };
    let mut station = listener([1, 2]);
    station.reports.clear();
    station.receive(&query(None, 1000, true));
    station.wait(Duration::from_secs(2));
    let mut frames: Vec<_> = station.reports.drain(..).map(|(_, frame)| frame).collect();
    frames.sort();
    assert_eq!(frames, [message(131, group_1, group_1), message(131, group_2, group_2)]);
    station.edge.remove_address(heard(1).0);
    station.wait(Duration::from_secs(10));
    let all_routers = "ff02::2".parse().unwrap();
    assert_eq!(station.reports.first().map(|(_, frame)| frame), Some(&message(132, group_1, all_routers)));
    // RFC 3810 §8.2.1: after 260 s without such a query, version 2 again.
    station.reports.clear();
    station.wait(Duration::from_secs(260));
    station.receive(&query(None, 1000, false));
    station.wait(Duration::from_secs(2));
    assert_eq!(station.reports[0].1, report(&[(LISTENS, group_2)]));
}

#[test]
fn questions_about_groups_that_were_not_asked_on_this_link_are_ignored() {
    let good = query(None, 0, false);
    let mut station = listener([1]);
    station.reports.clear();
    let changed = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        frame
    };
    let mut from_afar = discovery(PEER, "fd00::2".parse().unwrap(), "ff02::1".parse().unwrap(), &good[14 + 48..]);
    from_afar[14 + 50..14 + 52].fill(0);
    let checksum =
        transport_checksum("fd00::2".parse().unwrap(), "ff02::1".parse().unwrap(), 58, &from_afar[14 + 48..]);
    from_afar[14 + 50..14 + 52].copy_from_slice(&checksum.to_be_bytes());
    // Hop limit; no router alert; code; checksum; a message that ends early; an address that is no group.
    let unicast = query(Some("2001:db8::1".parse().unwrap()), 0, false);
    let bad = [changed(14 + 7, 2), changed(14 + 42, 1), changed(14 + 49, 1), changed(14 + 50, 7), changed(14 + 5, 33)];
    for frame in bad.into_iter().chain([from_afar, unicast]) {
        station.receive(&frame);
        station.wait(Duration::from_secs(10));
        assert_eq!(station.reports, []);
    }
    assert_eq!(station.reader.counters().malformed, 7);
    station.receive(&good);
    station.wait(Duration::from_secs(10));
    assert_eq!(station.reports.len(), 1);
}

#[test]
fn many_groups_are_told_in_reports_that_fit_every_link() {
    let mut station = listener(0..=255);
    let lens: Vec<_> = station.reports.iter().map(|(_, frame)| frame.len() - 14).collect();
    assert!(lens.iter().all(|len| *len <= 1280), "{lens:?}");
    let records = |frame: &[u8]| usize::from(u16::from_be_bytes([frame[14 + 54], frame[14 + 55]]));
    assert_eq!(station.reports.iter().map(|(_, frame)| records(frame)).sum::<usize>(), 2 * 256);
    // Questions do not pile up while nobody fetches the answers.
    station.reports.clear();
    for _ in 0..1000 {
        station.receive(&query(None, 0, true));
        station.edge.handle_timeout(station.now);
    }
    station.transmitted();
    assert_eq!(station.reports.len(), 256);
}
