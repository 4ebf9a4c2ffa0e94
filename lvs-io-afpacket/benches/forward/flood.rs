//! Frames of 64 bytes, as many as one processor can send: UDP from many ports, by the transmit ring of an AF_PACKET
//! device, so that no socket of the client's kernel is in the way. What arrives is counted by the server's device.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lvs_core::PacketBuf;
use lvs_core::wire::checksum::{checksum, transport_checksum};
use lvs_io::BATCH;
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions};

use crate::director::Running;
use crate::network::{CLIENT, Failure, Network, SWALLOWER, Target, VIRTUAL, pin};

/// Where floods go.
pub const PORT: u16 = 5001;

/// Most connections a flood may consist of: one for each port.
pub const FLOWS_MAX: u16 = 60_000;
const FIRST_PORT: u16 = 1024;

/// A frame of 64 bytes, its four of checksum included.
const PACKET_LEN: usize = 46;
/// Room for what comes before a packet on its way out.
const ROOM: usize = 96;

/// What was sent and what arrived, a second.
#[derive(Clone, Copy, Default, Debug)]
pub struct Flood {
    pub sent: f64,
    pub arrived: f64,
    /// Nanoseconds of processor time for each that arrived, where a program forwards.
    pub each_ns: Option<f64>,
}

/// Floods the network, first until every connection is known, then for so long.
pub fn measure(network: &Arc<Network>, flows: u16, duration: Duration) -> Result<Flood, Failure> {
    let target = match network.target {
        Target::Server => SWALLOWER,
        Target::Virtual => VIRTUAL,
    };
    let (target, gateway) = (target.parse()?, network.gateway);
    let there = Arc::clone(network);
    network.client.run(move || {
        let arrived = || there.server.run(received);
        pin(0);
        let mut blaster = Blaster::open(target, gateway, flows)?;
        blaster.send(Until::Sent(u64::from(flows)))?;
        let processor_ns = || there.running.as_ref().map(Running::processor_ns).transpose();
        let (start, before, ns_before) = (Instant::now(), arrived()?, processor_ns()?);
        let sent = blaster.send(Until::Time(start + duration))?;
        let seconds = start.elapsed().as_secs_f64();
        let arrived = (arrived()? - before) as f64;
        let taken_ns = processor_ns()?.zip(ns_before).map(|(after, before)| (after - before) as f64);
        Ok(Flood {
            sent: sent as f64 / seconds,
            arrived: arrived / seconds,
            each_ns: taken_ns.map(|taken_ns| taken_ns / arrived),
        })
    })
}

/// When to stop.
enum Until {
    Sent(u64),
    Time(Instant),
}

struct Blaster {
    arm: lvs_io::Arm,
    gateway: IpAddr,
    packets: Vec<[u8; ROOM + PACKET_LEN]>,
    next: usize,
}

impl Blaster {
    fn open(target: Ipv4Addr, gateway: IpAddr, flows: u16) -> Result<Self, Failure> {
        let options = AfPacketOptions { announces: false, ring_bytes: 0, ..AfPacketOptions::of_host("eth0")? };
        let arm = AfPacketDevice::open("eth0", &options)?.into_arm();
        let source = CLIENT.parse()?;
        let packets = (FIRST_PORT..FIRST_PORT + flows).map(|port| packet(source, target, port)).collect();
        let mut blaster = Self { arm, gateway, packets, next: 0 };
        // The first waits until the gateway has said where it is.
        let patience = Instant::now() + Duration::from_secs(2);
        blaster.send_one()?;
        while blaster.arm.source.receive(&mut |_| {})? == 0 && Instant::now() < patience {
            blaster.arm.sink.flush()?;
            if blaster.send_one().is_ok() && blaster.next > 100 {
                break;
            }
        }
        Ok(blaster)
    }

    fn send_one(&mut self) -> Result<(), Failure> {
        let mut storage = self.packets[self.next];
        self.next = (self.next + 1) % self.packets.len();
        let mut packet = PacketBuf::new(&mut storage, ROOM, PACKET_LEN);
        Ok(self.arm.sink.send(&mut packet, self.gateway)?)
    }

    fn send(&mut self, until: Until) -> Result<u64, Failure> {
        let mut sent = 0;
        loop {
            for _ in 0..8 * BATCH {
                sent += u64::from(self.send_one().is_ok());
            }
            self.arm.sink.flush()?;
            // What the neighbours say.
            self.arm.source.receive(&mut |_| {})?;
            let is_over = match until {
                Until::Sent(count) => sent >= count,
                Until::Time(end) => Instant::now() >= end,
            };
            if is_over {
                return Ok(sent);
            }
        }
    }
}

/// An IPv4 packet with a UDP datagram, from this port.
fn packet(source: Ipv4Addr, target: Ipv4Addr, port: u16) -> [u8; ROOM + PACKET_LEN] {
    let mut packet = [0; PACKET_LEN];
    packet[..12].copy_from_slice(&[0x45, 0, 0, PACKET_LEN as u8, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&target.octets());
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet[22..24].copy_from_slice(&PORT.to_be_bytes());
    packet[24..26].copy_from_slice(&((PACKET_LEN - 20) as u16).to_be_bytes());
    let sum = transport_checksum(source.into(), target.into(), 17, &packet[20..]);
    packet[26..28].copy_from_slice(&sum.to_be_bytes());
    let mut room = [0; ROOM + PACKET_LEN];
    room[ROOM..].copy_from_slice(&packet);
    room
}

/// Packets that have come to the server's device so far.
fn received() -> Result<u64, Failure> {
    let devices = fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("eth0:")).ok_or("no device")?;
    Ok(line.split_whitespace().nth(1).ok_or("no counter")?.parse()?)
}
