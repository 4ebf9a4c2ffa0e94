//! A device made of memory, for tests and simulations: two ports, and what one sends the other receives, in order.
//! Keeps bytes, offload context and mark; a full queue refuses, as a device's does.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use lvs_core::{Offload, PacketBuf};

use crate::batch::BatchBuffers;
use crate::device::{Arm, BATCH, PacketSink, PacketSource, SinkOffloads};

/// A packet on its way through memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryPacket {
    /// From the IP header on.
    pub bytes: Vec<u8>,
    /// Checksum and segmentation context.
    pub offload: Offload,
    /// Firewall mark.
    pub mark: u32,
    /// Whom it was sent to on the link; `None` if the test did not say.
    pub next_hop: Option<IpAddr>,
}

impl MemoryPacket {
    /// An ordinary packet of these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), offload: Offload::default(), mark: 0, next_hop: None }
    }
}

#[derive(Debug)]
struct Queue {
    packets: VecDeque<MemoryPacket>,
    capacity: usize,
}

type SharedQueue = Arc<Mutex<Queue>>;

/// One end of an in-memory link.
///
/// ```
/// use lvs_io::MemoryPort;
///
/// let (test, device) = MemoryPort::pair(16);
/// test.push([0x45, 0, 0, 20]);
/// let mut arm = device.into_arm();
/// let count = arm.source.receive(&mut |packets| assert_eq!(packets[0].bytes(), [0x45, 0, 0, 20])).unwrap();
/// assert_eq!(count, 1);
/// ```
#[derive(Clone, Debug)]
pub struct MemoryPort {
    incoming: SharedQueue,
    outgoing: SharedQueue,
}

impl MemoryPort {
    /// A link whose two queues hold `capacity` packets each.
    pub fn pair(capacity: usize) -> (Self, Self) {
        let queue = || Arc::new(Mutex::new(Queue { packets: VecDeque::new(), capacity }));
        let (there, back) = (queue(), queue());
        (Self { incoming: back.clone(), outgoing: there.clone() }, Self { incoming: there, outgoing: back })
    }

    /// Sends an ordinary packet of these bytes; `false` if the queue is full.
    pub fn push(&self, bytes: impl Into<Vec<u8>>) -> bool {
        self.push_packet(MemoryPacket::new(bytes))
    }

    /// Sends a packet; `false` if the queue is full.
    pub fn push_packet(&self, packet: MemoryPacket) -> bool {
        push(&self.outgoing, packet)
    }

    /// Takes the next packet that came.
    pub fn pop(&self) -> Option<MemoryPacket> {
        lock(&self.incoming).packets.pop_front()
    }

    /// This end as a device for a worker, one that takes every offload context.
    pub fn into_arm(self) -> Arm {
        self.into_arm_with(SinkOffloads { checksum: true, tcp: true, udp: true })
    }

    /// This end as a device for a worker, one that takes these offload contexts.
    pub fn into_arm_with(self, offloads: SinkOffloads) -> Arm {
        let buffers = BatchBuffers::new(BATCH, usize::from(u16::MAX));
        Arm::new(MemorySource { queue: self.incoming, buffers }, MemorySink { queue: self.outgoing, offloads })
    }
}

struct MemorySource {
    queue: SharedQueue,
    buffers: BatchBuffers,
}

struct MemorySink {
    queue: SharedQueue,
    offloads: SinkOffloads,
}

impl PacketSource for MemorySource {
    fn receive(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize> {
        let mut queue = lock(&self.queue);
        while let Some(slot) = self.buffers.next_slot() {
            let Some(packet) = queue.packets.pop_front() else { break };
            let len = packet.bytes.len().min(slot.len());
            slot[..len].copy_from_slice(&packet.bytes[..len]);
            self.buffers.commit(len, packet.offload, packet.mark);
        }
        drop(queue);
        Ok(self.buffers.lend(handle))
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl PacketSink for MemorySink {
    fn send(&mut self, packet: &mut PacketBuf<'_>, next_hop: IpAddr) -> io::Result<()> {
        let copy = MemoryPacket {
            bytes: packet.bytes().to_vec(),
            offload: packet.offload,
            mark: packet.mark,
            next_hop: Some(next_hop),
        };
        if push(&self.queue, copy) { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn offloads(&self) -> SinkOffloads {
        self.offloads
    }
}

fn push(queue: &SharedQueue, packet: MemoryPacket) -> bool {
    let mut queue = lock(queue);
    if queue.packets.len() >= queue.capacity {
        return false;
    }
    queue.packets.push_back(packet);
    true
}

/// A panic elsewhere leaves a queue of whole packets: still good.
fn lock(queue: &SharedQueue) -> std::sync::MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}
