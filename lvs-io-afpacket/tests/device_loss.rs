//! A device that goes down, or is deleted, under a running worker, and comes back. Devices called `left` and `right`,
//! joined by a cable, in a namespace of their own: the worker has `left`, the test speaks from `right`. Where
//! namespaces cannot be had, the tests say why and return.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, iter};

use lvs_core::{Direction, Director, DirectorConfig, PacketBuf, Seed};
use lvs_io::l2::MacAddress;
use lvs_io::{
    Arm, DeviceChange, DeviceLost, DeviceState, Host, HostConfig, OnDeviceLoss, OnPass, Steering, Worker, WorkerHandle,
    netdev,
};
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions};
use lvs_testkit::network::{self, Failure};
use lvs_testkit::{icmp, udp};

const DIRECTOR: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
/// The director's, which answers echo requests.
const OWN: &str = "10.9.0.80";
const OWN_V6: &str = "fd09::80";

fn isolated(test: &str, body: impl FnOnce() -> Result<(), Failure>) {
    network::isolated(test, join, body);
}

/// Two devices joined by a cable, on which nobody speaks unasked.
fn join() -> Result<(), Failure> {
    // A kernel without IPv6 has no such file.
    let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    netdev::add_veth("left", "right", File::open("/proc/self/ns/net")?.as_fd())?;
    netdev::set_up("left")?;
    Ok(netdev::set_up("right")?)
}

/// A worker on a thread of its own, and what it says of its device.
struct Running {
    handle: WorkerHandle,
    changes: Receiver<DeviceChange>,
    thread: JoinHandle<io::Result<()>>,
}

/// A worker that answers echo requests to [`OWN`] and [`OWN_V6`] by the stand-in for its host.
fn run(arm: Arm, on_loss: OnDeviceLoss) -> Result<Running, Failure> {
    let own = [OWN, OWN_V6].map(|text| text.parse().expect("an address"));
    let host = Host::new(HostConfig { local_addresses: own.to_vec(), ..HostConfig::default() }, Seed::new(1));
    let (say, changes) = channel();
    let mut worker = Worker::new(Director::new(DirectorConfig::default(), Seed::new(1)), arm, None)?
        .with_on_pass(OnPass::Route(Box::new(host)))
        .with_on_device_loss(on_loss)
        .with_on_device_change(move |change| say.send(change).expect("the test listens"));
    Ok(Running { handle: worker.handle(), changes, thread: thread::spawn(move || worker.run()) })
}

impl Running {
    /// What it says next of its device.
    fn change(&self) -> Result<DeviceState, Failure> {
        let change = self.changes.recv_timeout(PATIENCE).map_err(|_| "the worker says nothing")?;
        assert_eq!(change.side, Direction::Request);
        Ok(change.state)
    }

    fn received(&self) -> u64 {
        self.handle.counters().expect("it runs").client.received
    }

    fn stop(self) -> Result<(), Failure> {
        self.handle.stop();
        Ok(self.thread.join().expect("a worker does not panic")?)
    }
}

fn options() -> AfPacketOptions {
    AfPacketOptions { mac: Some(DIRECTOR), answers_for: own_addresses(), ..AfPacketOptions::default() }
}

fn own_addresses() -> Vec<IpAddr> {
    [OWN, OWN_V6].map(|text| text.parse().expect("an address")).to_vec()
}

/// A station at the other end of the cable.
struct Client {
    arm: Arm,
}

impl Client {
    /// It knows where the director is, or asks.
    fn new(knows: bool) -> Result<Self, Failure> {
        let addresses = ["10.9.0.1", "fd09::1"].map(|text| text.parse().expect("an address"));
        let static_neighbours =
            if knows { own_addresses().into_iter().map(|own| (own, DIRECTOR)).collect() } else { Vec::new() };
        let options = AfPacketOptions {
            mac: Some(CLIENT),
            answers_for: addresses.to_vec(),
            source_ipv4: Some(Ipv4Addr::new(10, 9, 0, 1)),
            static_neighbours,
            ..AfPacketOptions::default()
        };
        Ok(Self { arm: AfPacketDevice::open("right", &options)?.into_arm() })
    }

    fn send(&mut self, packet: &[u8], to: &str) -> io::Result<()> {
        let mut storage = [&[0; 96], packet].concat();
        self.arm.sink.send(&mut PacketBuf::new(&mut storage, 96, packet.len()), to.parse().expect("an address"))?;
        self.arm.sink.flush()
    }

    /// Whether echo requests to both addresses are answered.
    fn is_answered(&mut self) -> Result<bool, Failure> {
        for (source, own, request) in [("10.9.0.1", OWN, 8), ("fd09::1", OWN_V6, 128)] {
            self.send(&icmp(source, own, request, 0, 7).payload(b"are you there?").build(), own)?;
            if !self.hears(own.parse()?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a packet comes from this address.
    fn hears(&mut self, from: IpAddr) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            let mut came = false;
            let heard = self.arm.source.receive(&mut |packets| {
                came = packets.iter().any(|packet| match from {
                    IpAddr::V4(from) => packet.bytes().get(12..16) == Some(&from.octets()[..]),
                    IpAddr::V6(from) => packet.bytes().get(8..24) == Some(&from.octets()[..]),
                });
            });
            if came {
                return true;
            }
            // Questions about its own addresses are answered.
            let _ = self.arm.sink.flush();
            let fds = [self.arm.source.poll_fd(), self.arm.source.wake_fd()].map(|fd| fd.expect("it has one"));
            let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            if heard.is_ok_and(|count| count == 0) {
                let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
                let _ = poll(&mut fds, Some(&patience));
            }
        }
        false
    }
}

#[test]
fn a_device_that_was_down_serves_again_when_it_is_up() {
    isolated("a_device_that_was_down_serves_again_when_it_is_up", || {
        let running = run(AfPacketDevice::open("left", &options())?.into_arm(), OnDeviceLoss::Wait)?;
        let mut client = Client::new(false)?;
        assert!(client.is_answered()?);
        for _ in 0..3 {
            netdev::set_down("left")?;
            assert_eq!(running.change()?, DeviceState::Down);
            netdev::set_up("left")?;
            assert_eq!(running.change()?, DeviceState::Present);
            assert!(client.is_answered()?, "after it was down");
        }
        assert_eq!(running.handle.counters()?.client.device_lost, 3);
        running.stop()
    });
}

#[test]
fn a_device_that_was_deleted_is_used_again_when_there_is_one_of_its_name() {
    isolated("a_device_that_was_deleted_is_used_again_when_there_is_one_of_its_name", || {
        let device = AfPacketDevice::open("left", &options())?;
        let addresses = device.addresses();
        // In a group of its own, for which the device must listen.
        let added = "fd09::81:1234";
        addresses.add(added.parse()?)?;
        let running = run(device.into_arm(), OnDeviceLoss::Wait)?;
        assert!(Client::new(false)?.is_answered()?);
        for _ in 0..3 {
            netdev::delete_link("left")?;
            // The kernel takes it down first, which may or may not be seen.
            let mut states = iter::from_fn(|| running.change().ok());
            assert!(states.any(|state| state == DeviceState::Gone));
            join()?;
            // It is made before it is up, which may or may not be seen.
            assert!(states.any(|state| state == DeviceState::Present));
            assert!(Client::new(false)?.is_answered()?, "after it was deleted");
            let groups = fs::read_to_string("/proc/thread-self/net/dev_mcast")?;
            let is_heard = groups.lines().any(|line| line.contains("left") && line.contains("3333ff811234"));
            assert!(is_heard, "the group of {added}: {groups}");
        }
        running.stop()
    });
}

#[test]
fn a_device_whose_ethernet_address_changes_is_followed() {
    isolated("a_device_whose_ethernet_address_changes_is_followed", || {
        let options = AfPacketOptions { mac: None, ..options() };
        let running = run(AfPacketDevice::open("left", &options)?.into_arm(), OnDeviceLoss::Wait)?;
        assert!(Client::new(false)?.is_answered()?);
        netdev::delete_link("left")?;
        join()?;
        // The new one has an address of its own. When the worker says so it may have missed that the old one was gone.
        let mut states = iter::from_fn(|| running.change().ok());
        assert!(states.any(|state| state == DeviceState::Present));
        assert!(Client::new(false)?.is_answered()?);
        running.stop()
    });
}

#[test]
fn a_worker_that_is_to_end_without_its_device_says_why() {
    isolated("a_worker_that_is_to_end_without_its_device_says_why", || {
        for (lose, expected, text) in [
            (netdev::set_down as fn(&str) -> io::Result<()>, DeviceState::Down, "the clients' device is down"),
            (netdev::delete_link, DeviceState::Gone, "the clients' device was deleted"),
        ] {
            netdev::set_up("left")?;
            let running = run(AfPacketDevice::open("left", &options())?.into_arm(), OnDeviceLoss::End)?;
            assert!(Client::new(false)?.is_answered()?);
            lose("left")?;
            let error = running.thread.join().expect("a worker does not panic").expect_err("it ends");
            assert_eq!(error.kind(), io::ErrorKind::NetworkDown);
            let DeviceLost(change) = error.downcast::<DeviceLost>()?;
            // A device that is deleted is taken down first.
            assert!(change.state == expected || change.state == DeviceState::Down, "{change:?}");
            if change.state == expected {
                assert_eq!(DeviceLost(change).to_string(), text);
            }
            assert_eq!(running.changes.recv()?, change);
        }
        Ok(())
    });
}

#[test]
fn a_device_that_is_down_at_the_start_is_said_to_be() {
    isolated("a_device_that_is_down_at_the_start_is_said_to_be", || {
        netdev::set_down("left")?;
        let running = run(AfPacketDevice::open("left", &options())?.into_arm(), OnDeviceLoss::Wait)?;
        assert_eq!(running.change()?, DeviceState::Down);
        netdev::set_up("left")?;
        assert_eq!(running.change()?, DeviceState::Present);
        assert!(Client::new(false)?.is_answered()?);
        running.stop()
    });
}

#[test]
fn queues_that_share_a_device_share_the_next_one_of_its_name_alike() {
    isolated("queues_that_share_a_device_share_the_next_one_of_its_name_alike", || {
        let steering = Steering::new(3, Vec::new(), Seed::new(5));
        let queues = AfPacketDevice::open_all("left", &options(), &steering, None)?;
        // Without lvs_io::share: the kernel alone steers.
        let running: Vec<Running> =
            queues.into_iter().map(|queue| run(queue.into_arm(), OnDeviceLoss::Wait)).collect::<Result<_, _>>()?;
        let packets: Vec<Vec<u8>> =
            (1..=60).map(|host| udp(format!("203.0.113.{host}:7").as_str(), "198.51.100.1:53").build()).collect();
        let expected = |rounds: u64| -> Vec<u64> {
            let of_shard = |shard| packets.iter().filter(|packet| steering.shard(packet) == shard).count() as u64;
            (0..3).map(|shard| rounds * of_shard(shard)).collect()
        };
        let mut before: Vec<u64> = running.iter().map(Running::received).collect();
        for round in 0..4 {
            let mut client = Client::new(true)?;
            for packet in &packets {
                client.send(packet, OWN)?;
            }
            // All of them have come when their number has; one too many would come before the next round's.
            let received = || running.iter().map(Running::received).zip(&before).map(|(now, before)| now - before);
            let deadline = std::time::Instant::now() + PATIENCE;
            while received().sum::<u64>() < 60 && std::time::Instant::now() < deadline {
                thread::yield_now();
            }
            assert_eq!(received().collect::<Vec<_>>(), expected(1), "round {round}");
            before = running.iter().map(Running::received).collect();
            match round {
                // Down and up again, then another one.
                0 => netdev::set_down("left")?,
                _ => netdev::delete_link("left")?,
            }
            let lost = if round == 0 { DeviceState::Down } else { DeviceState::Gone };
            for running in &running {
                let mut states = iter::from_fn(|| running.change().ok());
                assert!(states.any(|state| state == lost));
            }
            if round == 0 {
                netdev::set_up("left")?
            } else {
                join()?
            }
            for running in &running {
                let mut states = iter::from_fn(|| running.change().ok());
                assert!(states.any(|state| state == DeviceState::Present));
            }
        }
        running.into_iter().try_for_each(Running::stop)
    });
}

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
