//! Who forwards in the director's namespace: the kernel, a null forwarder or a director.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command as Program, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use lvs_core::{
    Command, Director, DirectorConfig, ForwardMethod, Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey,
};
use lvs_io::l2::MacAddress;
use lvs_io::{Arm, BATCH, Worker, WorkerHandle, netdev};
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions, Delivery};
use lvs_io_tun::{TunOptions, TunQueue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::Pid;

use crate::network::{CLIENT, Failure, SERVER, STATION, SWALLOWER, SWALLOWER_MAC, VIRTUAL, pin};
use crate::{Job, Ring, Way, flood, transfer};

/// Something that runs until it is dropped.
pub struct Running {
    end: End,
    /// The thread that forwards.
    thread: Pid,
}

enum End {
    Director(WorkerHandle),
    Null(Arc<AtomicBool>),
}

impl Drop for Running {
    fn drop(&mut self) {
        match &self.end {
            End::Director(handle) => handle.stop(),
            End::Null(is_stopped) => is_stopped.store(true, Ordering::Relaxed),
        }
    }
}

impl Running {
    /// Starts `forward` in a thread of its own, on a processor of its own.
    fn start(end: End, forward: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<Self, Failure> {
        let (give, thread) = mpsc::channel();
        thread::spawn(move || {
            pin(1);
            give.send(rustix::thread::gettid())?;
            Ok::<(), Failure>(forward()?)
        });
        Ok(Self { end, thread: thread.recv()? })
    }

    /// Nanoseconds of processor time it has taken, with what the kernel did meanwhile.
    pub fn processor_ns(&self) -> Result<u64, Failure> {
        let thread = self.thread.as_raw_nonzero();
        let times = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"))?;
        Ok(times.split_whitespace().next().ok_or("no time")?.parse()?)
    }
}

/// Starts whoever forwards, in the calling thread's namespace.
pub fn forward(way: Way) -> Result<Option<Running>, Failure> {
    let host_forwards = !matches!(way, Way::AfPacket(..));
    fs::write("/proc/sys/net/ipv4/ip_forward", if host_forwards { "1" } else { "0" })?;
    match way {
        Way::Routing => Ok(None),
        Way::Nftables => nftables().map(|()| None),
        Way::AfPacket(job, ring) => {
            let arms = vec![ethernet(0, ring)?, ethernet(1, ring)?];
            if job == Job::Null { null_between(arms) } else { direct(job, arms) }.map(Some)
        }
        Way::Tun(job) => {
            let queue = TunQueue::open("lvs0", &TunOptions::default())?;
            netdev::set_up("lvs0")?;
            netdev::divert("eth1", "lvs0", 80)?;
            let arms = vec![queue.into_arm()];
            if job == Job::Null {
                netdev::divert("eth0", "lvs0", 81)?;
                return null_between(arms).map(Some);
            }
            netdev::add_route(VIRTUAL.parse()?, 32, "lvs0")?;
            if job == Job::DirectRouting {
                // What comes from the director keeps its destination: to the servers with it, by another table.
                netdev::divert("lvs0", "eth1", 82)?;
                netdev::set_neighbour("eth1", VIRTUAL.parse()?, SWALLOWER_MAC)?;
            }
            direct(job, arms).map(Some)
        }
    }
}

/// One of the two devices, with a station of its own on it.
fn ethernet(index: usize, ring: Ring) -> Result<Arm, Failure> {
    let device = ["eth0", "eth1"][index];
    let mut options = AfPacketOptions {
        mac: Some(MacAddress([2, 0, 0, 0, 1, index as u8])),
        answers_for: vec![STATION[index].parse()?],
        delivery: if ring == Ring::Blocks { Delivery::BLOCKS } else { Delivery::AtOnce },
        ..AfPacketOptions::of_host(device)?
    };
    if index == 1 {
        options.static_neighbours.push((SWALLOWER.parse()?, SWALLOWER_MAC));
    }
    Ok(AfPacketDevice::open(device, &options)?.into_arm())
}

fn direct(job: Job, arms: Vec<Arm>) -> Result<Running, Failure> {
    let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
    let ports = [(Protocol::Udp, flood::PORT), (Protocol::Udp, transfer::ECHO), (Protocol::Tcp, transfer::BULK)];
    for (protocol, port) in ports {
        let service = ServiceKey::address(protocol, SocketAddr::new(VIRTUAL.parse()?, port));
        director.apply(lvs_core::Instant::ZERO, &Command::AddService(service, ServiceConfig::new("rr")))?;
        let server = if port == flood::PORT { SWALLOWER } else { SERVER };
        let mut server = ServerConfig::nat(SocketAddr::new(server.parse()?, port));
        if job == Job::DirectRouting {
            server.forward = ForwardMethod::DirectRouting;
        }
        director.apply(lvs_core::Instant::ZERO, &Command::AddServer(service, server))?;
    }
    let mut arms = arms.into_iter();
    let mut worker = Worker::new(director, arms.next().ok_or("a device")?, arms.next())?;
    let handle = worker.handle();
    Running::start(End::Director(handle), move || worker.run())
}

/// Hands what comes by one device to the other, and the other way round; or back, where there is only one.
fn null_between(mut arms: Vec<Arm>) -> Result<Running, Failure> {
    let is_stopped = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&is_stopped);
    // Who is behind each device: the flood's end and the server, or the client.
    let behind: [IpAddr; 2] = [CLIENT.parse()?, SERVER.parse()?];
    let swallower: IpAddr = SWALLOWER.parse()?;
    Running::start(End::Null(is_stopped), move || {
        while !stopped.load(Ordering::Relaxed) {
            let mut count = 0;
            for from in 0..arms.len() {
                let to = arms.len() - 1 - from;
                let (left, right) = arms.split_at_mut(1);
                let (source, sink) = match (from, to) {
                    (0, 0) => (&mut left[0].source, &mut left[0].sink),
                    (0, _) => (&mut left[0].source, &mut right[0].sink),
                    _ => (&mut right[0].source, &mut left[0].sink),
                };
                // Several batches at once, as a worker takes them.
                for _ in 0..4 {
                    let got = source.receive(&mut |packets| {
                        for packet in packets {
                            // The last byte of the destination tells the two apart.
                            let is_flood = packet.bytes().get(19) == Some(&99);
                            let next_hop = if is_flood { swallower } else { behind[to] };
                            let _ = sink.send(packet, next_hop);
                        }
                    })?;
                    count += got;
                    if got < BATCH {
                        break;
                    }
                }
                let _ = sink.flush();
            }
            if count == 0 {
                let fds = arms.iter().flat_map(|arm| [arm.source.poll_fd(), arm.source.wake_fd()]).flatten();
                let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
                poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 }))?;
            }
        }
        Ok(())
    })
}

fn nftables() -> Result<(), Failure> {
    let rules = format!(
        "table ip lvs {{ chain in {{ type nat hook prerouting priority -100; \
         ip daddr {VIRTUAL} udp dport {} dnat to {SWALLOWER}; ip daddr {VIRTUAL} dnat to {SERVER}; }}; }}",
        flood::PORT
    );
    let mut nft = Program::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
    nft.stdin.take().ok_or("no input")?.write_all(rules.as_bytes())?;
    if nft.wait()?.success() { Ok(()) } else { Err("nft refused the rules".into()) }
}
