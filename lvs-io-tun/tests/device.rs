//! TUN devices of the real kernel, in namespaces of their own. Where those or `/dev/net/tun` cannot be had, each test
//! says why and returns.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use lvs_core::{ChecksumOffload, GsoKind, PacketBuf};
use lvs_io::Arm;
use lvs_io_tun::{Step, TunError, TunOptions, TunQueue, netdev};
use lvs_testkit::network;

/// Runs `body` inside namespaces, with `test` being the calling test's name.
fn isolated(test: &str, body: impl FnOnce() -> Result<(), TunError>) {
    network::isolated(test, network::tun_can_be_had, || Ok(body()?));
}

/// An open device that the kernel reaches 10.9.0.0/24 and fd09::/64 by.
fn device(options: &TunOptions) -> Result<TunQueue, TunError> {
    let queue = TunQueue::open("lvst%d", options)?;
    let name = queue.name();
    netdev::set_mtu(name, 1400).expect("the MTU is set");
    netdev::set_up(name).expect("the device comes up");
    netdev::add_address(name, IpAddr::from([10, 9, 0, 1]), 24).expect("IPv4 is added");
    if netdev::has_ipv6() {
        netdev::add_address(name, "fd09::1".parse().unwrap(), 64).expect("IPv6 is added");
    }
    Ok(queue)
}

/// Waits for packets until `take` has found what it looks for.
fn receive<T>(arm: &mut Arm, mut take: impl FnMut(&mut PacketBuf<'_>) -> Option<T>) -> T {
    loop {
        let mut found = None;
        arm.source
            .receive(&mut |packets| {
                for packet in packets {
                    found = found.take().or_else(|| take(packet));
                }
            })
            .expect("the device can be read");
        if let Some(found) = found {
            return found;
        }
        let fd = arm.source.poll_fd().expect("a TUN device has a descriptor");
        wait_readable(fd);
    }
}

fn wait_readable(fd: impl AsFd) {
    use rustix::event::{PollFd, PollFlags, poll};
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).expect("poll works");
}

#[test]
fn a_datagram_sent_by_the_kernel_is_received_and_its_echo_arrives() {
    isolated("a_datagram_sent_by_the_kernel_is_received_and_its_echo_arrives", || {
        for offloads in [true, false] {
            let versions = if netdev::has_ipv6() { 2 } else { 1 };
            let both = [("10.9.0.1:700", "10.9.0.2:900"), ("[fd09::1]:700", "[fd09::2]:900")];
            for (own, peer) in &both[..versions] {
                let mut arm = device(&TunOptions { offloads, ..TunOptions::default() })?.into_arm();
                let socket = UdpSocket::bind(own).expect("the address is there at once");
                socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                socket.send_to(b"hello", peer).expect("the route leads into the device");
                let mut echo = receive(&mut arm, |packet| {
                    packet.bytes().ends_with(b"hello").then(|| (packet.bytes().to_vec(), packet.offload))
                });
                // Swapping addresses and ports keeps the checksum right, complete or not.
                swap_direction(&mut echo.0);
                let len = echo.0.len();
                let mut packet = PacketBuf::new(&mut echo.0, 0, len);
                packet.offload = echo.1;
                arm.sink.send(&mut packet, Ipv4Addr::UNSPECIFIED.into()).expect("the kernel takes it");
                let mut answer = [0; 16];
                let (len, from) = socket
                    .recv_from(&mut answer)
                    .unwrap_or_else(|error| panic!("the echo of {peer} arrives, offloads {offloads}: {error}"));
                assert_eq!((&answer[..len], from), (b"hello".as_slice(), peer.parse().unwrap()));
            }
        }
        Ok(())
    });
}

fn swap_direction(packet: &mut [u8]) {
    let (addresses, address_len, ports) = if packet[0] >> 4 == 4 { (12, 4, 20) } else { (8, 16, 40) };
    let (source, target) = packet[addresses..addresses + 2 * address_len].split_at_mut(address_len);
    source.swap_with_slice(target);
    packet.swap(ports, ports + 2);
    packet.swap(ports + 1, ports + 3);
}

#[test]
fn a_bulk_tcp_sender_hands_over_super_packets() {
    isolated("a_bulk_tcp_sender_hands_over_super_packets", || {
        let queue = device(&TunOptions::default())?;
        if !queue.offloads().tcp {
            eprintln!("this kernel has no TCP offload for TUN devices");
            return Ok(());
        }
        let mut arm = queue.into_arm();
        // The device is a mirror: the connection to 10.9.0.2 comes back as one from 10.9.0.2 to the listener.
        let listener = TcpListener::bind("10.9.0.1:800").expect("the address is there");
        let reader = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection comes");
            let mut all = Vec::new();
            stream.read_to_end(&mut all).map(|_| all)
        });
        let writer = std::thread::spawn(move || {
            let mut stream = TcpStream::connect("10.9.0.2:800").expect("the connection opens");
            stream.write_all(&vec![7; 1 << 20]).expect("everything is sent");
        });
        let mut largest = 0;
        while !reader.is_finished() {
            let mut mirrored = Vec::new();
            arm.source
                .receive(&mut |packets| {
                    for packet in packets {
                        if packet.bytes()[0] >> 4 != 4 {
                            continue;
                        }
                        if let Some(gso) = packet.offload.gso {
                            assert_eq!(gso.kind, GsoKind::TcpV4);
                            assert!(matches!(
                                packet.offload.checksum,
                                ChecksumOffload::Partial { start: 20, offset: 16 }
                            ));
                            assert!(usize::from(gso.size) <= 1360, "a segment fits the MTU");
                            largest = largest.max(packet.len());
                        }
                        let bytes = packet.bytes_mut();
                        let (source, target) = bytes[12..20].split_at_mut(4);
                        source.swap_with_slice(target);
                        mirrored.push((packet.bytes().to_vec(), packet.offload));
                    }
                })
                .expect("the device can be read");
            for (mut bytes, offload) in mirrored {
                let len = bytes.len();
                let mut packet = PacketBuf::new(&mut bytes, 0, len);
                packet.offload = offload;
                arm.sink.send(&mut packet, Ipv4Addr::UNSPECIFIED.into()).expect("the kernel takes it");
            }
        }
        writer.join().unwrap();
        assert_eq!(reader.join().unwrap().expect("the stream ends well").len(), 1 << 20);
        assert!(largest > 10_000, "largest packet: {largest} bytes");
        Ok(())
    });
}

#[test]
fn several_queues_share_one_device() {
    isolated("several_queues_share_one_device", || {
        let queues = TunQueue::open_all("lvst%d", &TunOptions { queues: 3, ..TunOptions::default() })?;
        let names: Vec<&str> = queues.iter().map(TunQueue::name).collect();
        assert_eq!(names, ["lvst0"; 3]);
        Ok(())
    });
}

#[test]
fn a_queue_can_be_taken_over_as_a_descriptor() {
    isolated("a_queue_can_be_taken_over_as_a_descriptor", || {
        let file = std::fs::File::open("/dev/net/tun").map_err(|source| TunError {
            device: String::new(),
            step: Step::Open,
            source,
        })?;
        let error = TunQueue::from_fd(file.into()).expect_err("it is attached to no device");
        assert_eq!(error.step, Step::Inspect);
        let queue = TunQueue::open("given", &TunOptions::default())?;
        let again = TunQueue::from_fd(queue.into_fd())?;
        assert_eq!(again.name(), "given");
        assert!(again.offloads().header);
        Ok(())
    });
}

#[test]
fn a_device_in_use_is_refused_with_advice() {
    isolated("a_device_in_use_is_refused_with_advice", || {
        let _queue = TunQueue::open("busy", &TunOptions::default())?;
        let error = TunQueue::open("busy", &TunOptions::default()).expect_err("it has one queue");
        assert_eq!(error.step, Step::Attach);
        assert!(error.to_string().contains("another process holds the device"), "{error}");
        Ok(())
    });
}

#[test]
fn a_bad_name_is_refused_before_anything_is_opened() {
    for name in ["", "a-name-too-long-", "with/slash", "with space", "."] {
        let error = TunQueue::open(name, &TunOptions::default()).expect_err("not a name");
        assert_eq!(error.step, Step::Name, "{name}");
    }
}

#[test]
fn what_the_kernel_refuses_is_said_with_the_name() {
    isolated("what_the_kernel_refuses_is_said_with_the_name", || {
        let error = netdev::set_up("nosuch").expect_err("there is none");
        assert!(error.to_string().starts_with("cannot bring nosuch up: "), "{error}");
        let queue = device(&TunOptions::default())?;
        let error = netdev::add_address(queue.name(), IpAddr::from([10, 9, 0, 1]), 24).expect_err("it is there");
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        netdev::add_route(IpAddr::from([192, 0, 2, 0]), 24, queue.name()).expect("a route is added");
        if netdev::has_ipv6() {
            netdev::add_route("2001:db8::".parse().unwrap(), 32, queue.name()).expect("a route is added");
        }
        let error = netdev::add_route(IpAddr::from([192, 0, 2, 0]), 24, queue.name()).expect_err("it is there");
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        Ok(())
    });
}
