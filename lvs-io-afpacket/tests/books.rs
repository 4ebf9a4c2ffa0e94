//! Whatever frames a device's halves see end in exactly one counter: junk, packets and messages on the way in; on the
//! way out packets for neighbours that answer, that do not, and while the device is down. Devices called `left` and
//! `right`, joined by a cable, in a namespace of their own. Where namespaces cannot be had, the test says why and
//! returns.

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use lvs_core::{ChecksumOffload, Gso, GsoKind, Offload, PacketBuf};
use lvs_io::l2::MacAddress;
use lvs_io::{Arm, netdev};
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions, SinkCounters, SourceCounters};
use lvs_testkit::network::{self, Failure};
use lvs_testkit::{tcp, udp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const HERE: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const THERE: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const KNOWN: &str = "10.9.0.2";

fn join() -> Result<(), Failure> {
    // A kernel without IPv6 has no such file.
    let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    netdev::add_veth("left", "right", File::open("/proc/self/ns/net")?.as_fd())?;
    netdev::set_up("left")?;
    Ok(netdev::set_up("right")?)
}

#[track_caller]
fn check_sink(counters: SinkCounters, taken: u64) {
    assert_eq!(counters.taken, taken, "{counters:?}");
    let ends = counters.sent + counters.refused + counters.given_up + counters.waiting;
    assert_eq!(counters.taken + counters.own(), ends, "{counters:?}");
}

#[track_caller]
fn check_source(counters: SourceCounters) {
    let ends = counters.packets + counters.messages + counters.unreadable + counters.ignored.sum();
    assert_eq!(counters.frames, ends, "{counters:?}");
}

/// Sends a packet; whether it was taken.
fn send(arm: &mut Arm, bytes: &[u8], offload: Offload, next_hop: &str) -> u64 {
    let mut storage = [&[0; 96], bytes].concat();
    let mut packet = PacketBuf::new(&mut storage, 96, bytes.len());
    packet.offload = offload;
    u64::from(arm.sink.send(&mut packet, next_hop.parse().expect("an address")).is_ok())
}

#[test]
fn every_frame_ends_in_exactly_one_counter() {
    network::isolated("every_frame_ends_in_exactly_one_counter", join, || {
        let known = vec![(KNOWN.parse()?, THERE)];
        let options = |mac, static_neighbours, answers_for: &[&str]| AfPacketOptions {
            mac: Some(mac),
            static_neighbours,
            answers_for: answers_for.iter().map(|text| text.parse::<IpAddr>().expect("an address")).collect(),
            source_ipv4: Some([10, 9, 0, 1].into()),
            ..AfPacketOptions::default()
        };
        let sender = AfPacketDevice::open("left", &options(HERE, known, &["10.9.0.1", "fd09::1"]))?;
        let receiver = AfPacketDevice::open("right", &options(THERE, Vec::new(), &[]))?;
        let (sent, received) = (sender.counters(), receiver.receive_counters());
        let (mut sender, mut receiver) = (sender.into_arm(), receiver.into_arm());
        let whole = Offload::default();
        let short = udp("10.1.0.1:7", "10.2.0.1:9").payload_len(100).build();
        let long = tcp("10.1.0.1:7", "10.2.0.1:9").payload_len(9000).build();
        let partial = ChecksumOffload::Partial { start: 20, offset: 16 };
        let super_packet =
            Offload { checksum: partial, gso: Some(Gso { kind: GsoKind::TcpV4, size: 1400, ecn: false }) };
        let mut taken = 0;
        for _ in 0..700 {
            taken += send(&mut sender, &short, whole, KNOWN);
        }
        taken += send(&mut sender, &long, super_packet, KNOWN);
        // More than the device takes, and no super-packet.
        taken += send(&mut sender, &long, whole, KNOWN);
        sender.sink.flush()?;
        check_sink(sent.get(), taken);
        // Whoever has these addresses never says so: packets wait, and give way to later ones.
        for _ in 0..600 {
            taken += send(&mut sender, &short, whole, "10.9.9.9");
        }
        for number in 0..600 {
            taken += send(&mut sender, &short, whole, &format!("10.9.{}.{}", 1 + number / 200, 1 + number % 200));
        }
        taken += send(&mut sender, &short, whole, "255.255.255.255");
        let _ = sender.sink.flush();
        check_sink(sent.get(), taken);
        assert!(sent.get().waiting > 0 && sent.get().given_up > 0 && sent.get().own() > 0, "{:?}", sent.get());
        let expected = sent.get().sent;
        while received.get().frames < expected {
            if receiver.source.receive(&mut |_| {})? == 0 && received.get().frames < expected {
                let fd = receiver.source.poll_fd().expect("a socket");
                let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
                let ready = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&patience))?;
                assert!(ready > 0, "{:?} of {expected}", received.get());
            }
        }
        check_source(received.get());
        assert_eq!(received.get().frames, expected);
        assert!(received.get().messages > 0 && received.get().packets > 700, "{:?}", received.get());

        netdev::set_down("left")?;
        for _ in 0..300 {
            taken += send(&mut sender, &short, whole, KNOWN);
        }
        taken += send(&mut sender, &long, super_packet, KNOWN);
        let _ = sender.sink.flush();
        check_sink(sent.get(), taken);
        assert!(sent.get().refused >= 300, "{:?}", sent.get());
        assert_eq!(sender.sink.lost(), sent.get().refused + sent.get().given_up);
        Ok(())
    });
}

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
