//! What a device in a VLAN hears, and what it says, beside a TAP device: its file takes and gives whole frames, tags
//! and all, while packet sockets see them as the kernel hands them on, with the outermost tag taken off. Where there
//! are no TAP devices to be had, the tests say why and return.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use lvs_core::{
    Command, Director, DirectorConfig, ForwardMethod, Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey,
};
use lvs_io::l2::MacAddress;
use lvs_io::{PacketSource, Worker, netdev};
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions, Delivery, SourceCountersHandle};
use lvs_testkit::network::{self, Failure};
use lvs_testkit::udp;
use smoltcp::phy::{Device, Medium, RxToken, TunTapInterface, TxToken};
use smoltcp::time::Instant as TapTime;

const DIRECTOR: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const SERVER: MacAddress = MacAddress([2, 0, 0, 0, 0, 3]);

const VIRTUAL: &str = "10.9.0.80:80";
const CLIENT_AT: &str = "10.9.0.100:1000";
const SERVER_AT: &str = "10.9.0.11:8080";

const IPV4: [u8; 2] = [8, 0];
const ARP: [u8; 2] = [8, 6];

/// A tag, as it lies in a frame.
type Tag = [u8; 4];

/// 802.1Q, VLAN 7, with priority 5 and priority 3.
const URGENT: Tag = [0x81, 0, 0xa0, 7];
const CASUAL: Tag = [0x81, 0, 0x60, 7];
/// 802.1ad, VLAN 7.
const SERVICE: Tag = [0x88, 0xa8, 0xa0, 7];

/// Runs `body` with each kind of ring, on the TAP device itself and on the far end of a cable behind a bridge. `test`
/// is the calling test's name.
fn check(test: &str, body: impl Fn(&mut Tap, &str, Delivery) -> Result<(), Failure>) {
    network::isolated(
        test,
        || Tap::open("probe").map(drop),
        || {
            network::add_switch("bridge")?;
            netdev::add_veth("near", "far", File::open("/proc/self/ns/net")?.as_fd())?;
            netdev::set_bridge("near", "bridge")?;
            ["near", "far"].into_iter().try_for_each(netdev::set_up)?;
            for (device, delivery) in ["tap", "far"].into_iter().flat_map(|device| RINGS.map(|ring| (device, ring))) {
                let mut tap = Tap::open("tap")?;
                if device == "far" {
                    netdev::set_bridge("tap", "bridge")?;
                }
                body(&mut tap, device, delivery).map_err(|error| format!("{device}, {delivery:?}: {error}"))?;
            }
            Ok(())
        },
    );
}

const RINGS: [Delivery; 2] = [Delivery::AtOnce, Delivery::BLOCKS];

/// What is sent comes in by the TAP device, what goes out by it is received.
struct Tap(TunTapInterface);

impl Tap {
    fn open(name: &str) -> Result<Self, Failure> {
        // Nobody speaks unasked. A kernel without IPv6 has no such file.
        let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        let tap = TunTapInterface::new(name, Medium::Ethernet)?;
        netdev::set_up(name)?;
        Ok(Self(tap))
    }

    fn send(&mut self, frame: &[u8]) {
        let token = self.0.transmit(TapTime::ZERO).expect("there is always one");
        token.consume(frame.len(), |room| room.copy_from_slice(frame));
    }

    /// The director's next frame, if there is one. A bridge speaks for itself, of groups.
    fn receive(&mut self) -> Option<Vec<u8>> {
        let (token, _) = self.0.receive(TapTime::ZERO)?;
        Some(token.consume(<[u8]>::to_vec)).filter(|frame| frame[6..12] == DIRECTOR.0)
    }
}

fn frame(to: MacAddress, from: MacAddress, tags: &[Tag], kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
    [&to.0, &from.0, &tags.concat()[..], &kind, packet].concat()
}

fn options(vlan: Option<u16>, delivery: Delivery) -> AfPacketOptions {
    let neighbours = [(CLIENT_AT, CLIENT), (SERVER_AT, SERVER)];
    AfPacketOptions {
        answers_for: vec![endpoint(VIRTUAL).ip()],
        static_neighbours: neighbours.map(|(at, mac)| (endpoint(at).ip(), mac)).to_vec(),
        mac: Some(DIRECTOR),
        vlan,
        announces: false,
        delivery,
        ..AfPacketOptions::default()
    }
}

#[test]
fn a_service_tag_is_no_vlan_of_the_directors() {
    check("a_service_tag_is_no_vlan_of_the_directors", |tap, name, delivery| {
        let tagged: [&[Tag]; 5] = [&[SERVICE], &[SERVICE, URGENT], &[URGENT, SERVICE], &[URGENT], &[]];
        for (vlan, ours) in [(Some(7), 3), (None, 4)] {
            let device = AfPacketDevice::open(name, &options(vlan, delivery))?;
            let counters = device.receive_counters();
            let mut source = device.into_arm().source;
            for (number, tags) in (0..).zip(tagged) {
                let packet = udp(CLIENT_AT, VIRTUAL).payload(&[number]).build();
                tap.send(&frame(DIRECTOR, CLIENT, tags, IPV4, &packet));
            }
            let mut came = Vec::new();
            let start = Instant::now();
            // What a bridge says itself may be in another VLAN too.
            while came.is_empty() || ignored(&counters).0 < 3 || ignored(&counters).1 < 1 {
                assert!(start.elapsed() < PATIENCE, "{came:?}, {name}, {delivery:?}: {:?}", counters.get());
                receive_numbers(&mut *source, &mut came)?;
            }
            assert_eq!((came, ignored(&counters).0), (vec![ours], 3), "{vlan:?}, {name}, {delivery:?}");
        }
        Ok(())
    });
}

/// The payloads' first bytes.
fn receive_numbers(source: &mut dyn PacketSource, numbers: &mut Vec<u8>) -> Result<(), Failure> {
    source.receive(&mut |packets| numbers.extend(packets.iter().map(|packet| packet.bytes()[28])))?;
    thread::yield_now();
    Ok(())
}

/// How many frames had a service tag, and how many were in another VLAN.
fn ignored(counters: &SourceCountersHandle) -> (u64, u64) {
    let counted = counters.get().ignored;
    (counted.service_tagged, counted.other_vlan)
}

#[test]
fn a_director_in_a_vlan_keeps_each_packets_priority_and_answers_nobody_outside() {
    check("a_director_in_a_vlan_keeps_each_packets_priority_and_answers_nobody_outside", |tap, name, delivery| {
        let device = AfPacketDevice::open(name, &options(Some(7), delivery))?;
        let counters = device.receive_counters();
        let mut worker = Worker::new(director()?, device.into_arm(), None)?;
        let question = udp(CLIENT_AT, VIRTUAL).payload(b"question");
        let elsewhere: [&[Tag]; 3] = [&[], &[[0x81, 0, 0, 8]], &[SERVICE]];
        for tags in elsewhere {
            tap.send(&frame(DIRECTOR, CLIENT, tags, IPV4, &question.build()));
            tap.send(&frame(MacAddress::BROADCAST, CLIENT, tags, ARP, &who_has_the_virtual_address()));
        }
        // What the director says of its own accord has no priority.
        tap.send(&frame(MacAddress::BROADCAST, CLIENT, &[URGENT], ARP, &who_has_the_virtual_address()));
        let answered = next_frame(&mut worker, tap)?;
        let here = [&[0, 1, 8, 0, 6, 4, 0, 2], &DIRECTOR.0[..], &[10, 9, 0, 80], &CLIENT.0, &[10, 9, 0, 100]].concat();
        assert_eq!(answered, frame(CLIENT, DIRECTOR, &[[0x81, 0, 0, 7]], ARP, &here), "{name}, {delivery:?}");

        tap.send(&frame(DIRECTOR, CLIENT, &[URGENT], IPV4, &question.build()));
        let balanced = udp(CLIENT_AT, SERVER_AT).hop_limit(63).payload(b"question").build();
        assert_eq!(
            next_frame(&mut worker, tap)?,
            frame(SERVER, DIRECTOR, &[URGENT], IPV4, &balanced),
            "{name}, {delivery:?}"
        );

        tap.send(&frame(DIRECTOR, SERVER, &[CASUAL], IPV4, &udp(SERVER_AT, CLIENT_AT).payload(b"answer").build()));
        let translated = udp(VIRTUAL, CLIENT_AT).hop_limit(63).payload(b"answer").build();
        assert_eq!(
            next_frame(&mut worker, tap)?,
            frame(CLIENT, DIRECTOR, &[CASUAL], IPV4, &translated),
            "{name}, {delivery:?}"
        );

        let (service_tagged, other_vlan) = ignored(&counters);
        assert!(service_tagged == 2 && other_vlan >= 4, "{name}, {delivery:?}: {:?}", counters.get());
        Ok(())
    });
}

/// One that balances by NAT.
fn director() -> Result<Director, Failure> {
    let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
    let service = ServiceKey::address(Protocol::Udp, endpoint(VIRTUAL));
    director.apply(lvs_core::Instant::ZERO, &Command::AddService(service, ServiceConfig::new("rr")))?;
    let server = ServerConfig::new(endpoint(SERVER_AT), ForwardMethod::Nat);
    director.apply(lvs_core::Instant::ZERO, &Command::AddServer(service, server))?;
    Ok(director)
}

/// RFC 826: what the client asks.
fn who_has_the_virtual_address() -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 1], &CLIENT.0[..], &[10, 9, 0, 100], &[0; 6], &[10, 9, 0, 80]].concat()
}

/// What the director sends next.
fn next_frame(worker: &mut Worker, tap: &mut Tap) -> Result<Vec<u8>, Failure> {
    let start = Instant::now();
    loop {
        worker.turn()?;
        if let Some(frame) = tap.receive() {
            return Ok(frame);
        }
        if start.elapsed() > PATIENCE {
            return Err("no frame came".into());
        }
        thread::yield_now();
    }
}

fn endpoint(text: &str) -> std::net::SocketAddr {
    text.parse().expect("a constant")
}

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
