//! Receive rings of both kinds and the transmit ring, between two devices joined by a cable in a namespace of their
//! own. Whatever the ring, frames come whole and in order, with room around them, and what is lost is counted. Where
//! namespaces cannot be had, the tests say why and return.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use lvs_core::wire::checksum::checksum;
use lvs_core::{ChecksumOffload, Gso, GsoKind, HEADROOM, Offload, PacketBuf, Seed};
use lvs_io::l2::MacAddress;
use lvs_io::{Arm, Steering, netdev};
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions, Delivery};
use lvs_io_tun::netns::{Rerun, rerun_test_isolated};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, socket_with};

type Failure = Box<dyn Error + Send + Sync>;

const HERE: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const THERE: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const NEXT_HOP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));

/// Runs `body` with each kind of ring, between devices called `left` and `right`. `test` is the calling test's name.
fn check(test: &str, body: impl Fn(Delivery) -> Result<(), Failure>) {
    match rerun_test_isolated(test) {
        Rerun::Inside => {
            if let Err(error) = join("left", "right") {
                eprintln!("{test} was not run: {error}");
                return;
            }
            for delivery in [Delivery::AtOnce, Delivery::BLOCKS] {
                body(delivery).unwrap_or_else(|error| panic!("{delivery:?}: {error}"));
            }
        }
        Rerun::Passed => {}
        Rerun::Denied(reason) => eprintln!("{test} was not run: {reason}"),
    }
}

/// Two devices joined by a cable, on which nobody speaks unasked.
fn join(left: &str, right: &str) -> Result<(), Failure> {
    // A kernel without IPv6 has no such file.
    let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    netdev::add_veth(left, right, File::open("/proc/self/ns/net")?.as_fd())?;
    netdev::set_up(left)?;
    Ok(netdev::set_up(right)?)
}

fn options(mac: MacAddress, delivery: Delivery) -> AfPacketOptions {
    AfPacketOptions {
        mac: Some(mac),
        delivery,
        announces: false,
        static_neighbours: vec![(NEXT_HOP, THERE)],
        ..AfPacketOptions::default()
    }
}

/// A device that sends to [`THERE`], and one that receives there.
fn pair(delivery: Delivery) -> Result<(AfPacketDevice, AfPacketDevice), Failure> {
    let sender = AfPacketDevice::open("left", &options(HERE, delivery))?;
    Ok((sender, AfPacketDevice::open("right", &options(THERE, delivery))?))
}

/// A UDP packet of so many bytes from `10.1.0.0` and `number` on, which tells it from others.
fn packet(number: u16, len: usize) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    let mut packet: Vec<u8> = (0..len).map(|index| (index as u8).wrapping_mul(31) ^ low).collect();
    let total = (len as u16).to_be_bytes();
    packet[..12].copy_from_slice(&[0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet[12..20].copy_from_slice(&[10, 1, high, low, 10, 9, 0, 2]);
    packet[24..26].copy_from_slice(&(len as u16 - 20).to_be_bytes());
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn send(arm: &mut Arm, bytes: &[u8], offload: Offload) -> std::io::Result<()> {
    let mut storage = [&[0; 96], bytes].concat();
    let mut packet = PacketBuf::new(&mut storage, 96, bytes.len());
    packet.offload = offload;
    arm.sink.send(&mut packet, NEXT_HOP)
}

/// Waits until something may have come; `false` if nothing does.
fn wait(arm: &Arm) -> bool {
    let fd = arm.source.poll_fd().expect("it has one");
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&patience)).is_ok_and(|ready| ready > 0)
}

/// The next so many packets.
fn receive(arm: &mut Arm, count: usize) -> Result<Vec<(Vec<u8>, Offload)>, Failure> {
    let mut received = Vec::new();
    while received.len() < count {
        let came = arm.source.receive(&mut |packets| {
            received.extend(packets.iter().map(|packet| (packet.bytes().to_vec(), packet.offload)));
        })?;
        if came == 0 && !wait(arm) {
            return Err(format!("{} of {count} packets came", received.len()).into());
        }
    }
    Ok(received)
}

#[test]
fn packets_of_all_sizes_come_whole_and_in_order() {
    check("packets_of_all_sizes_come_whole_and_in_order", |delivery| {
        let (sender, receiver) = pair(delivery)?;
        let (mut sender, mut receiver) = (sender.into_arm(), receiver.into_arm());
        let sent: Vec<Vec<u8>> = (0..1400).map(|number| packet(number, 46 + usize::from(number))).collect();
        for bytes in &sent {
            send(&mut sender, bytes, Offload::default())?;
        }
        sender.sink.flush()?;
        let received = receive(&mut receiver, sent.len())?;
        for (received, sent) in received.iter().zip(&sent) {
            assert_eq!(&received.0, sent);
        }
        Ok(())
    });
}

#[test]
fn a_super_packet_keeps_its_offload_context() {
    check("a_super_packet_keeps_its_offload_context", |delivery| {
        let (sender, receiver) = pair(delivery)?;
        let (mut sender, mut receiver) = (sender.into_arm(), receiver.into_arm());
        let checksum = ChecksumOffload::Partial { start: 20, offset: 6 };
        let super_packet = Offload { checksum, gso: Some(Gso { kind: GsoKind::Udp, size: 1400, ecn: false }) };
        let partial = Offload { checksum, gso: None };
        // Short ones around it: the order is kept.
        let short_super_packet = Offload { checksum, gso: Some(Gso { kind: GsoKind::Udp, size: 500, ecn: false }) };
        let mut sent = vec![(packet(0, 100), partial), (packet(20, 1028), short_super_packet)];
        for number in 1..4 {
            sent.extend([(packet(number, 60_028), super_packet), (packet(number + 10, 46), Offload::default())]);
        }
        for (bytes, offload) in &sent {
            send(&mut sender, bytes, *offload)?;
        }
        sender.sink.flush()?;
        let received = receive(&mut receiver, sent.len())?;
        for (received, sent) in received.iter().zip(&sent) {
            assert_eq!((received.0.len(), received.1), (sent.0.len(), sent.1));
            assert_eq!(received.0, sent.0);
        }
        Ok(())
    });
}

#[test]
fn a_super_packet_that_waits_is_received_though_the_device_went_down() {
    check("a_super_packet_that_waits_is_received_though_the_device_went_down", |delivery| {
        // Blocks hold super-packets themselves; nothing is read from the socket.
        if delivery != Delivery::AtOnce {
            return Ok(());
        }
        let (sender, receiver) = pair(delivery)?;
        let counters = receiver.receive_counters();
        let (mut sender, mut receiver) = (sender.into_arm(), receiver.into_arm());
        let checksum = ChecksumOffload::Partial { start: 20, offset: 6 };
        let offload = Offload { checksum, gso: Some(Gso { kind: GsoKind::Udp, size: 1400, ecn: false }) };
        send(&mut sender, &packet(1, 60_028), offload)?;
        sender.sink.flush()?;
        assert!(wait(&receiver), "nothing came");
        set_down("right")?;
        let mut received = Vec::new();
        receiver
            .source
            .receive(&mut |packets| received.extend(packets.iter().map(|packet| packet.bytes().to_vec())))?;
        assert_eq!(counters.get().unreadable, 0);
        assert!(received == [packet(1, 60_028)], "{} came", received.len());
        Ok(())
    });
}

/// Takes the device down, by a message about a link (RFC 3549 §2.3.3.1).
fn set_down(device: &str) -> Result<(), Failure> {
    // Protocol 0 of this family is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let index = netdevice::name_to_index(&socket, device)?;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    // `struct nlmsghdr`, then `struct ifinfomsg`: no flags, of those that change.
    let header = [&32u32.to_ne_bytes()[..], &libc::RTM_NEWLINK.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8]].concat();
    let link = [[0; 4], index.to_ne_bytes(), [0; 4], libc::IFF_UP.to_ne_bytes()].concat();
    net::send(&socket, &[header, link].concat(), SendFlags::empty())?;
    let mut answer = [0; 256];
    let (_, _) = net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    // `struct nlmsgerr`: a negated error number.
    match answer[16..].first_chunk().copied().map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        error => Err(format!("{device} stays up: {error:?}").into()),
    }
}

#[test]
fn what_is_written_around_a_packet_harms_no_other() {
    check("what_is_written_around_a_packet_harms_no_other", |delivery| {
        let (sender, receiver) = pair(delivery)?;
        let (mut sender, mut receiver) = (sender.into_arm(), receiver.into_arm());
        for number in 0..300 {
            send(&mut sender, &packet(number, 60), Offload::default())?;
        }
        sender.sink.flush()?;
        let mut next = 0;
        while next < 300 {
            let came = receiver.source.receive(&mut |packets| {
                let mut rooms = Vec::new();
                for held in packets.iter_mut() {
                    assert!(held.headroom() >= HEADROOM && held.tailroom() >= 500, "{held:?}");
                    assert_eq!(held.bytes(), packet(next, 60));
                    next += 1;
                    let (before, all) = (held.headroom(), held.headroom() + held.len() + held.tailroom());
                    held.grow_front(before).expect("it is free");
                    held.set_len(all).expect("it is free");
                    held.bytes_mut().fill(0xff);
                    rooms.push(held.bytes().as_ptr_range());
                }
                rooms.sort_by_key(|room| room.start);
                assert!(rooms.is_sorted_by(|room, next| room.end <= next.start), "nothing is lent twice: {rooms:?}");
            })?;
            if came == 0 && !wait(&receiver) {
                return Err(format!("{next} of 300 packets came").into());
            }
        }
        Ok(())
    });
}

#[test]
fn what_a_full_ring_loses_is_counted() {
    check("what_a_full_ring_loses_is_counted", |delivery| {
        let sender = AfPacketDevice::open("left", &options(HERE, delivery))?;
        // As small as it can be.
        let blocks = Delivery::InBlocks { block_bytes: 0, wait_max_ms: 1 };
        let delivery = if delivery == Delivery::AtOnce { delivery } else { blocks };
        let receiver = AfPacketDevice::open("right", &AfPacketOptions { ring_bytes: 0, ..options(THERE, delivery) })?;
        let counters = receiver.receive_counters();
        let (mut sender, mut receiver) = (sender.into_arm(), receiver.into_arm());
        let mut sent = 1000;
        for number in 0..sent {
            send(&mut sender, &packet(number, 60), Offload::default())?;
        }
        sender.sink.flush()?;
        let (mut numbers, start) = (Vec::new(), Instant::now());
        // What was lost is known when the next frame comes.
        while numbers.len() as u64 + receiver.source.lost() < u64::from(sent) {
            assert!(start.elapsed() < PATIENCE, "{} came, {} lost of {sent}", numbers.len(), receiver.source.lost());
            wait(&receiver);
            let mut note = |packets: &mut [PacketBuf<'_>]| {
                numbers.extend(packets.iter().map(|packet| [packet.bytes()[14], packet.bytes()[15]]));
                assert!(numbers.len() <= usize::from(sent), "frames come again");
            };
            while receiver.source.receive(&mut note)? > 0 {}
            if numbers.len() as u64 + receiver.source.lost() < u64::from(sent) {
                send(&mut sender, &packet(sent, 60), Offload::default())?;
                sender.sink.flush()?;
                sent += 1;
            }
        }
        // In order, and none twice.
        assert!(numbers.is_sorted_by(|number, next| number < next), "{numbers:?}");
        let counted = counters.get();
        assert!(numbers.len() >= 62 && counted.ring_full > 600, "{} came, {counted:?}", numbers.len());
        assert_eq!((counted.ring_full, counted.unreadable), (receiver.source.lost(), 0));
        assert_eq!(counted.stops > 0, delivery != Delivery::AtOnce, "{counted:?}");
        Ok(())
    });
}

#[test]
fn a_frame_belongs_to_its_vlan() {
    check("a_frame_belongs_to_its_vlan", |delivery| {
        let open =
            |device, mac, vlan| AfPacketDevice::open(device, &AfPacketOptions { vlan, ..options(mac, delivery) });
        let (tagged, untagged) = (open("left", HERE, Some(7))?, open("left", HERE, None)?);
        let (mut tagged, mut untagged) = (tagged.into_arm(), untagged.into_arm());
        let mut inside = open("right", THERE, Some(7))?.into_arm();
        let mut outside = open("right", THERE, None)?.into_arm();
        for number in [1, 2, 3, 4] {
            let sender = if number % 2 == 1 { &mut tagged } else { &mut untagged };
            send(sender, &packet(number, 60), Offload::default())?;
            sender.sink.flush()?;
        }
        let numbers =
            |arm| -> Result<Vec<u8>, Failure> { Ok(receive(arm, 2)?.iter().map(|(bytes, _)| bytes[15]).collect()) };
        assert_eq!((numbers(&mut inside)?, numbers(&mut outside)?), (vec![1, 3], vec![2, 4]));
        Ok(())
    });
}

#[test]
fn a_device_does_not_hear_itself() {
    check("a_device_does_not_hear_itself", |delivery| {
        let mut options = options(HERE, delivery);
        options.static_neighbours = vec![(NEXT_HOP, HERE)];
        // With the queueing discipline: past it, taps see nothing of what is sent.
        options.bypasses_qdisc = false;
        let mut device = AfPacketDevice::open("left", &options)?.into_arm();
        let mut other = AfPacketDevice::open("right", &AfPacketOptions { mac: Some(HERE), ..options })?.into_arm();
        send(&mut device, &packet(1, 60), Offload::default())?;
        device.sink.flush()?;
        send(&mut other, &packet(2, 60), Offload::default())?;
        other.sink.flush()?;
        assert_eq!(receive(&mut other, 1)?[0].0, packet(1, 60));
        assert_eq!(receive(&mut device, 1)?[0].0, packet(2, 60));
        Ok(())
    });
}

#[test]
fn each_queue_gets_the_packets_of_its_clients() {
    check("each_queue_gets_the_packets_of_its_clients", |delivery| {
        let mut sender = AfPacketDevice::open("left", &options(HERE, delivery))?.into_arm();
        let steering = Steering::new(3, Vec::new(), Seed::new(5));
        let queues = AfPacketDevice::open_all("right", &options(THERE, delivery), &steering, None)?;
        for number in 0..600 {
            send(&mut sender, &packet(number, 60), Offload::default())?;
        }
        sender.sink.flush()?;
        let mut seen = BTreeSet::new();
        for (shard, queue) in queues.into_iter().enumerate() {
            let expected = (0..600).filter(|number| steering.shard(&packet(*number, 60)) == shard).count();
            let received = receive(&mut queue.into_arm(), expected)?;
            assert!(received.iter().all(|(bytes, _)| steering.shard(bytes) == shard));
            assert!(expected > 0 && received.len() == expected, "{} of {expected}", received.len());
            seen.extend(received.into_iter().map(|(bytes, _)| bytes));
        }
        assert_eq!(seen.len(), 600);
        Ok(())
    });
}

#[test]
fn a_frame_the_kernel_refuses_is_skipped_and_counted() {
    check("a_frame_the_kernel_refuses_is_skipped_and_counted", |delivery| {
        let (sender, receiver) = pair(delivery)?;
        let counters = sender.counters();
        let (mut sender, mut receiver) = (sender.into_arm(), receiver.into_arm());
        // Longer than the device's MTU of 1500, first, in between and last.
        for (number, len) in [(1, 1900), (2, 60), (3, 1900), (4, 1900), (5, 61), (6, 62), (7, 1900)] {
            send(&mut sender, &packet(number, len), Offload::default())?;
        }
        assert!(sender.sink.flush().is_err());
        let received: Vec<u8> = receive(&mut receiver, 3)?.iter().map(|(bytes, _)| bytes[15]).collect();
        assert_eq!(received, [2, 5, 6]);
        assert_eq!(counters.get().refused, 4);
        // And all is well again.
        send(&mut sender, &packet(8, 60), Offload::default())?;
        sender.sink.flush()?;
        assert_eq!(receive(&mut receiver, 1)?[0].0, packet(8, 60));
        Ok(())
    });
}

#[test]
fn the_host_leaves_a_station_of_its_own_alone() {
    check("the_host_leaves_a_station_of_its_own_alone", |delivery| {
        let before = host_received()?;
        for mac in [Some(THERE), None] {
            let receiver = AfPacketDevice::open("right", &AfPacketOptions { mac, ..options(THERE, delivery) })?;
            let mut options = options(HERE, delivery);
            options.static_neighbours = vec![(NEXT_HOP, receiver.mac())];
            let (mut sender, mut receiver) = (AfPacketDevice::open("left", &options)?.into_arm(), receiver.into_arm());
            for number in 0..50 {
                send(&mut sender, &packet(number, 60), Offload::default())?;
            }
            sender.sink.flush()?;
            assert_eq!(receive(&mut receiver, 50)?.len(), 50);
        }
        // The kernel may still be at the last ones.
        let start = Instant::now();
        while host_received()? < before + 50 {
            assert!(start.elapsed() < PATIENCE, "{} received by the host", host_received()? - before);
            std::thread::yield_now();
        }
        assert_eq!(host_received()? - before, 50);
        Ok(())
    });
}

/// IPv4 packets the host's stack has taken in (RFC 4293: ipSystemStatsInReceives).
fn host_received() -> Result<u64, Failure> {
    let statistics = fs::read_to_string("/proc/thread-self/net/snmp")?;
    let values = statistics.lines().filter(|line| line.starts_with("Ip:")).nth(1).ok_or("no line")?;
    Ok(values.split_whitespace().nth(3).ok_or("no field")?.parse()?)
}

#[test]
fn a_group_is_no_station() {
    check("a_group_is_no_station", |delivery| {
        let denied =
            AfPacketDevice::open("left", &options(MacAddress::BROADCAST, delivery)).expect_err("it is a group");
        assert!(denied.to_string().contains("ff:ff:ff:ff:ff:ff"), "{denied}");
        Ok(())
    });
}

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
