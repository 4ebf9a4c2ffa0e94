//! The sending half: packets get their Ethernet header from the edge and leave. Short ones are gathered and sent many
//! at a time; long ones leave at once, uncopied. Also keeps the edge's timers and answers questions about addresses.
//!
//! By `sendmmsg` rather than a transmit ring, which is no faster: the kernel copies what a ring's frame holds once more
//! where the device is a veth, and a super-packet has to be copied into the ring first.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use lvs_core::{Instant, PacketBuf};
use lvs_io::l2::{Edge, EdgeCounters, LinkMessage, SendError, Sending};
use lvs_io::{Clock, MonotonicClock, PacketSink, SinkOffloads, vnet};
use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

use crate::addresses::Orders;
use crate::bell::Bell;
use crate::socket::{self, SEND_MAX};
use crate::source::FRAME_HEADROOM;

/// Frames up to this length are gathered.
const SHORT_MAX: usize = 2048;

/// Most frames of the edge's own sent at once.
const FRAMES_PER_FLUSH: usize = 1024;

pub(crate) struct Sink {
    socket: OwnedFd,
    edge: Edge,
    clock: MonotonicClock,
    /// The time, read once for the packets gathered together.
    now: Instant,
    messages: Receiver<LinkMessage>,
    bell: Arc<Bell>,
    /// What other threads want of the edge.
    orders: Arc<Orders>,
    timer: OwnedFd,
    armed: Option<Instant>,
    gathered: Gathered,
    /// Where frames of the edge's own are written.
    scratch: Box<[u8]>,
    counters: SinkCountersHandle,
}

/// What the sending half has counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SinkCounters {
    /// What the Ethernet edge did.
    pub edge: EdgeCounters,
    /// Frames the kernel refused after they had been gathered.
    pub refused: u64,
}

/// A view of the counters from outside the worker. Renewed with each batch.
#[derive(Clone, Debug, Default)]
pub struct SinkCountersHandle(Arc<Mutex<SinkCounters>>);

impl SinkCountersHandle {
    /// The counters as they were at the end of the last batch.
    pub fn get(&self) -> SinkCounters {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    pub(crate) fn new(
        socket: OwnedFd,
        edge: Edge,
        messages: Receiver<LinkMessage>,
        (bell, orders): (Arc<Bell>, Arc<Orders>),
        timer: OwnedFd,
    ) -> Self {
        let clock = MonotonicClock::new();
        Self {
            socket,
            edge,
            clock,
            now: clock.now(),
            messages,
            bell,
            orders,
            timer,
            armed: None,
            gathered: Gathered::new(),
            scratch: vec![0; FRAME_HEADROOM + usize::from(u16::MAX)].into_boxed_slice(),
            counters: SinkCountersHandle::default(),
        }
    }

    pub(crate) fn counters(&self) -> SinkCountersHandle {
        self.counters.clone()
    }

    /// Announces the addresses with the first batch.
    pub(crate) fn announce(&mut self) {
        self.edge.announce(self.now);
        self.arm();
    }

    /// Sends a whole frame, or gathers it.
    fn send_frame(&mut self, frame: &PacketBuf<'_>) -> io::Result<()> {
        let header = vnet::encode(&frame.offload, frame.bytes());
        if frame.len() > SHORT_MAX {
            // What was gathered came before.
            let before = self.gathered.send(&self.socket);
            let parts = [IoSlice::new(&header), IoSlice::new(frame.bytes())];
            socket::send_many(self.socket.as_fd(), &[parts])?;
            return before;
        }
        self.gathered.push(&header, frame.bytes());
        if self.gathered.is_full() { self.gathered.send(&self.socket) } else { Ok(()) }
    }

    /// Lets the edge work off what it has heard and what is due, and sends what it wants to say.
    fn run_edge(&mut self) -> io::Result<()> {
        self.bell.hear();
        self.orders.carry_out(&mut self.edge, self.now);
        for message in self.messages.try_iter() {
            self.edge.handle_message(self.now, &message);
        }
        if self.edge.poll_timeout().is_some_and(|due| due <= self.now) {
            self.edge.handle_timeout(self.now);
        }
        let mut outcome = Ok(());
        let mut scratch = std::mem::take(&mut self.scratch);
        for _ in 0..FRAMES_PER_FLUSH {
            let mut frame = PacketBuf::new(&mut scratch, FRAME_HEADROOM, 0);
            if self.edge.poll_transmit(&mut frame).is_none() {
                break;
            }
            outcome = outcome.and(self.send_frame(&frame));
        }
        self.scratch = scratch;
        outcome
    }

    /// Sets the timer to when the edge wants to be called.
    fn arm(&mut self) {
        let due = self.edge.poll_timeout();
        if due == self.armed {
            return;
        }
        self.armed = due;
        let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let left = due.map(|due| due.duration_since(self.now));
        // Zero would switch the timer off.
        let it_value = left.map_or(time(0, 0), |left| {
            time(i64::try_from(left.as_secs()).unwrap_or(i64::MAX), i64::from(left.subsec_nanos().max(1)))
        });
        // It cannot fail: the descriptor is a timer, the time is normal.
        let _ =
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: time(0, 0), it_value });
    }
}

impl PacketSink for Sink {
    fn send(&mut self, packet: &mut PacketBuf<'_>, next_hop: IpAddr) -> io::Result<()> {
        if self.gathered.is_empty() {
            self.now = self.clock.now();
        }
        match self.edge.send(self.now, packet, next_hop) {
            Ok(Sending::Ready) => self.send_frame(packet),
            Ok(Sending::Waits) => Ok(()),
            // Whoever lent the packet left room for the core only.
            Err(SendError::NoHeadroom) => self.send_from_scratch(packet, next_hop),
            Err(error @ SendError::WaitingFull) => Err(io::Error::new(io::ErrorKind::WouldBlock, error)),
            Err(error) => Err(io::Error::new(io::ErrorKind::HostUnreachable, error)),
        }
    }

    fn offloads(&self) -> SinkOffloads {
        // The kernel does in software what the device cannot.
        SinkOffloads { checksum: true, tcp: true, udp: true }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.now = self.clock.now();
        let heard = self.run_edge();
        let sent = self.gathered.send(&self.socket);
        self.arm();
        if let Ok(mut counters) = self.counters.0.try_lock() {
            *counters = SinkCounters { edge: self.edge.counters(), refused: self.gathered.refused };
        }
        heard.and(sent)
    }
}

impl Sink {
    /// Sends a copy of the packet that has room for the Ethernet header.
    fn send_from_scratch(&mut self, packet: &PacketBuf<'_>, next_hop: IpAddr) -> io::Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut copy = PacketBuf::new(&mut scratch, FRAME_HEADROOM, 0);
        let outcome = match copy.set_len(packet.len()) {
            None => Err(io::ErrorKind::InvalidInput.into()),
            Some(()) => {
                copy.bytes_mut().copy_from_slice(packet.bytes());
                copy.offload = packet.offload;
                match self.edge.send(self.now, &mut copy, next_hop) {
                    Ok(Sending::Ready) => self.send_frame(&copy),
                    Ok(Sending::Waits) => Ok(()),
                    Err(error) => Err(io::Error::new(io::ErrorKind::HostUnreachable, error)),
                }
            }
        };
        self.scratch = scratch;
        outcome
    }
}

/// Short frames on their way out, each with its virtio-net header.
struct Gathered {
    bytes: Box<[u8]>,
    lens: Vec<usize>,
    refused: u64,
}

const SLOT_LEN: usize = vnet::HEADER_LEN + SHORT_MAX;

impl Gathered {
    fn new() -> Self {
        Self { bytes: vec![0; SLOT_LEN * SEND_MAX].into_boxed_slice(), lens: Vec::with_capacity(SEND_MAX), refused: 0 }
    }

    fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    fn is_full(&self) -> bool {
        self.lens.len() == SEND_MAX
    }

    /// The frame has at most [`SHORT_MAX`] bytes, and there is room.
    fn push(&mut self, header: &[u8; vnet::HEADER_LEN], frame: &[u8]) {
        let slot = &mut self.bytes[self.lens.len() * SLOT_LEN..][..vnet::HEADER_LEN + frame.len()];
        let (before, behind) = slot.split_at_mut(vnet::HEADER_LEN);
        before.copy_from_slice(header);
        behind.copy_from_slice(frame);
        self.lens.push(slot.len());
    }

    /// Sends them all. A frame the kernel refuses is skipped and counted; when its queue is full, so is the rest.
    fn send(&mut self, socket: &OwnedFd) -> io::Result<()> {
        let slots = self.bytes.chunks_exact(SLOT_LEN).zip(&self.lens);
        let mut frames: [[IoSlice<'_>; 2]; SEND_MAX] = std::array::from_fn(|_| [IoSlice::new(&[]), IoSlice::new(&[])]);
        for (frame, (slot, len)) in frames.iter_mut().zip(slots) {
            let (header, bytes) = slot[..*len].split_at(vnet::HEADER_LEN);
            *frame = [IoSlice::new(header), IoSlice::new(bytes)];
        }
        let mut rest = &frames[..self.lens.len()];
        let mut outcome = Ok(());
        while !rest.is_empty() {
            let done = match socket::send_many(socket.as_fd(), rest) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => {
                    let is_full = error.kind() == io::ErrorKind::WouldBlock;
                    let refused = if is_full { rest.len() } else { 1 };
                    self.refused += refused as u64;
                    outcome = Err(error);
                    refused
                }
            };
            rest = &rest[done..];
        }
        self.lens.clear();
        outcome
    }
}
