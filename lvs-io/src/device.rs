//! What a device is to the worker loop: a source that lends batches of packets, and a sink that takes single ones.
//! The halves are separate values, so that packets lent by a device's source can leave by the same device's sink.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use lvs_core::PacketBuf;

use crate::known::AddressChange;

/// Most packets a source lends at once.
pub const BATCH: usize = 32;

/// Whether packets can come and go by a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DeviceState {
    /// It is there and up, as far as its source knows.
    #[default]
    Present,
    /// It is there, and down.
    Down,
    /// It was deleted, or moved to another namespace.
    Gone,
}

/// The receiving half of a device.
///
/// Whoever has an event loop of their own asks the source until it has nothing, then waits until [`Self::poll_fd`] or
/// [`Self::wake_fd`] is readable or the director's timer is due; both descriptors are to be asked for again before each
/// wait, since a device that was lost comes back with others. `examples/wait_mio.rs` and `examples/wait_tokio.rs` are
/// such loops.
///
/// The source owns the packets' memory, be it a pool, a ring shared with the kernel or a queue, and leaves
/// [`lvs_core::HEADROOM`] bytes free before each packet. It sets `offload` and, where it knows one, `mark`.
pub trait PacketSource: Send {
    /// Takes the packets that wait, at most [`BATCH`], and lends them to `handle`, which is called once, or not at
    /// all if nothing waits. Never blocks. Returns how many packets there were.
    ///
    /// # Errors
    /// The device failed and will not recover. Packets that cannot be received are counted by the source instead; a
    /// device that is down or gone, and may come back, is no error but a [`Self::state`].
    fn receive(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize>;

    /// What becomes readable when packets wait; `None` if the source must be asked again and again.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>>;

    /// What becomes readable when the device wants its turn although no packet waits: a timer, or word from elsewhere.
    /// Apart from [`Self::poll_fd`], because a descriptor that stands for both would cost the kernel time for each
    /// packet. A source around another one passes this on. Default: nothing.
    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// How many packets were lost so far because they could not be received: the ring was full, or the device
    /// described them in a way nobody asked for.
    fn lost(&self) -> u64 {
        0
    }

    /// Whether the device is there, as of the last [`Self::receive`]. One that comes back is used again without
    /// anybody's help. A source around another one passes this on. Default: always there.
    fn state(&self) -> DeviceState {
        DeviceState::Present
    }

    /// Takes in that an address of the services has come or gone: for sources that look at where packets go. A source
    /// around another one passes this on. Default: it is of no interest.
    fn learn(&mut self, _change: &AddressChange) {}
}

/// Which offload contexts a sink takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SinkOffloads {
    /// Partial checksums.
    pub checksum: bool,
    /// TCP super-packets, IPv4 and IPv6.
    pub tcp: bool,
    /// UDP super-packets, IPv4 and IPv6.
    pub udp: bool,
}

/// The sending half of a device.
pub trait PacketSink: Send {
    /// Sends one packet, `offload` and all, to `next_hop` on the link. Its bytes may be changed (a link header can be
    /// written into the headroom). Never blocks. It is no longer than the way out takes, or a super-packet of which
    /// that is true of the segments: whoever sends on a verdict's word sends by [`crate::Egress`], which sees to it.
    ///
    /// # Errors
    /// `WouldBlock` if the queue is full; anything else says why this packet could not be sent. Either way the packet
    /// is lost, the caller counts it and goes on.
    fn send(&mut self, packet: &mut PacketBuf<'_>, next_hop: IpAddr) -> io::Result<()>;

    /// Which offload contexts `send` takes; what it does not take is done in software before. Default: none.
    fn offloads(&self) -> SinkOffloads {
        SinkOffloads::default()
    }

    /// Hands what `send` has gathered to the device. Called after each batch.
    ///
    /// # Errors
    /// As [`Self::send`]. What is lost of what was gathered is in [`Self::lost`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// How many packets `send` has taken that were lost afterwards: refused by the device when they were handed to it,
    /// or given up because their next hop did not answer. Frames of the device's own (ARP, Neighbor Discovery) that were
    /// refused are among them. A sink around another one passes this on. Default: none.
    fn lost(&self) -> u64 {
        0
    }
}

/// A sink that calls a function for each packet: for simulations and tests.
pub struct SinkFn<F>(pub F);

impl<F: FnMut(&[u8], IpAddr) + Send> PacketSink for SinkFn<F> {
    fn send(&mut self, packet: &mut PacketBuf<'_>, next_hop: IpAddr) -> io::Result<()> {
        (self.0)(packet.bytes(), next_hop);
        Ok(())
    }
}

impl<F> std::fmt::Debug for SinkFn<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SinkFn")
    }
}

/// One device as the worker loop holds it: its two halves.
pub struct Arm {
    /// Where packets come from.
    pub source: Box<dyn PacketSource>,
    /// Where packets go.
    pub sink: Box<dyn PacketSink>,
}

impl Arm {
    /// Puts two halves together.
    pub fn new(source: impl PacketSource + 'static, sink: impl PacketSink + 'static) -> Self {
        Self { source: Box::new(source), sink: Box::new(sink) }
    }
}

impl std::fmt::Debug for Arm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Arm")
    }
}
