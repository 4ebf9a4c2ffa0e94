//! Taps: somebody who looks at every packet a device receives or sends, without changing anything. Two are here:
//! [`Trace`] writes a line for each, [`crate::pcap::PcapTap`] keeps them in a file for Wireshark. For finding out what
//! goes on, not for production: a tap is shared between the device's halves behind a lock.

use std::fmt;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use lvs_core::PacketBuf;

use crate::describe::Describe;
use crate::device::{Arm, DeviceState, PacketSink, PacketSource, SinkOffloads};
use crate::known::AddressChange;

/// Whether a device received or sent a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Received, before the director saw it.
    Received,
    /// Sent, in the form the device was given.
    Sent,
}

/// Looks at packets.
pub trait Tap: Send {
    /// Is shown a packet.
    fn packet(&mut self, seen: Seen, packet: &PacketBuf<'_>);
}

impl Arm {
    /// The device with a tap on both halves.
    ///
    /// ```
    /// use lvs_io::{MemoryPort, tap::Trace};
    /// let (test, device) = MemoryPort::pair(16);
    /// let arm = device.into_arm().with_tap(Trace::new("client", std::io::stderr()));
    /// ```
    pub fn with_tap(self, tap: impl Tap + 'static) -> Self {
        let tap: SharedTap = Arc::new(Mutex::new(tap));
        Self {
            source: Box::new(TappedSource { inner: self.source, tap: Arc::clone(&tap) }),
            sink: Box::new(TappedSink { inner: self.sink, tap }),
        }
    }
}

type SharedTap = Arc<Mutex<dyn Tap>>;

struct TappedSource {
    inner: Box<dyn PacketSource>,
    tap: SharedTap,
}

struct TappedSink {
    inner: Box<dyn PacketSink>,
    tap: SharedTap,
}

impl PacketSource for TappedSource {
    fn receive(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize> {
        let tap = &self.tap;
        self.inner.receive(&mut |packets| {
            for packet in packets.iter() {
                show(tap, Seen::Received, packet);
            }
            handle(packets);
        })
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.poll_fd()
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.wake_fd()
    }

    fn lost(&self) -> u64 {
        self.inner.lost()
    }

    fn state(&self) -> DeviceState {
        self.inner.state()
    }

    fn learn(&mut self, change: &AddressChange) {
        self.inner.learn(change);
    }
}

impl PacketSink for TappedSink {
    fn send(&mut self, packet: &mut PacketBuf<'_>, next_hop: IpAddr) -> io::Result<()> {
        show(&self.tap, Seen::Sent, packet);
        self.inner.send(packet, next_hop)
    }

    fn offloads(&self) -> SinkOffloads {
        self.inner.offloads()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }

    fn lost(&self) -> u64 {
        self.inner.lost()
    }
}

fn show(tap: &SharedTap, seen: Seen, packet: &PacketBuf<'_>) {
    // A tap that panicked elsewhere may have half a line written; the next is whole again.
    tap.lock().unwrap_or_else(PoisonError::into_inner).packet(seen, packet);
}

/// A tap that writes one line for each packet: the device's name, `<` or `>`, what [`Describe`] says, and the offload
/// context where there is one. Lines that cannot be written are lost.
pub struct Trace<W> {
    name: String,
    into: W,
}

impl<W: Write> Trace<W> {
    /// A trace of the device called `name`.
    pub fn new(name: impl Into<String>, into: W) -> Self {
        Self { name: name.into(), into }
    }
}

impl<W: Write + Send> Tap for Trace<W> {
    fn packet(&mut self, seen: Seen, packet: &PacketBuf<'_>) {
        let sign = match seen {
            Seen::Received => '<',
            Seen::Sent => '>',
        };
        let mut line = format!("{} {sign} {}", self.name, Describe(packet.bytes()));
        if let Some(gso) = packet.offload.gso {
            line.push_str(&format!(", in segments of {}", gso.size));
        }
        if packet.mark != 0 {
            line.push_str(&format!(", mark {}", packet.mark));
        }
        line.push('\n');
        let _ = self.into.write_all(line.as_bytes());
    }
}

impl<W> fmt::Debug for Trace<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("name", &self.name).finish_non_exhaustive()
    }
}
