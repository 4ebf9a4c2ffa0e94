//! A tap that keeps what a device carries in a capture. A capture that cannot go on ends, and says so once: the traffic
//! goes on without it.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use lvs_core::PacketBuf;

use super::{CaptureFile, PcapWriter};
use crate::clock::Clock;
use crate::tap::{Seen, Tap};

/// What a capture has kept, and what it has not. Every packet the tap was shown is one or the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CaptureCounters {
    /// Packets written.
    pub written: u64,
    /// Packets not written because the capture had ended before: the disk was full, say.
    pub missed: u64,
    /// Why the capture ended.
    pub ended_by: Option<io::ErrorKind>,
}

/// A view of the counters from outside the worker.
#[derive(Clone, Debug, Default)]
pub struct CaptureCountersHandle(Arc<Mutex<CaptureCounters>>);

impl CaptureCountersHandle {
    /// The counters as they are now.
    pub fn get(&self) -> CaptureCounters {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, change: impl FnOnce(&mut CaptureCounters)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A tap that writes every packet into a pcap file. Super-packets are written as they are; packets with a partial
/// checksum look damaged to who reads the file, as in any capture on the sending machine.
///
/// The first packet that cannot be written ends the capture at the packet before it ([`PcapWriter`]). The traffic goes
/// on; the packets the file lacks are counted.
///
/// ```
/// use lvs_io::pcap::{PcapTap, PcapWriter};
/// use lvs_io::{MemoryPort, MonotonicClock};
///
/// let tap = PcapTap::new(PcapWriter::new(Vec::new())?, MonotonicClock::new())
///     .with_on_end(|error| eprintln!("the capture has ended: {error}"));
/// let counters = tap.counters();
/// let (test, device) = MemoryPort::pair(16);
/// let mut arm = device.into_arm().with_tap(tap);
/// test.push([0x45]);
/// arm.source.receive(&mut |_| {})?;
/// assert_eq!(counters.get().written, 1);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct PcapTap<W> {
    writer: PcapWriter<W>,
    clock: Box<dyn Clock>,
    counters: CaptureCountersHandle,
    on_end: Box<dyn FnMut(&io::Error) + Send>,
}

impl<W: CaptureFile> PcapTap<W> {
    /// Writes into `writer`, with the times of `clock`.
    pub fn new(writer: PcapWriter<W>, clock: impl Clock + 'static) -> Self {
        Self { writer, clock: Box::new(clock), counters: CaptureCountersHandle::default(), on_end: Box::new(|_| {}) }
    }

    /// Calls `on_end` once, with the reason, when the capture ends before the traffic does. Default: nobody is told but
    /// by [`Self::counters`].
    pub fn with_on_end(mut self, on_end: impl FnMut(&io::Error) + Send + 'static) -> Self {
        self.on_end = Box::new(on_end);
        self
    }

    /// The counters, to be read while a worker has the device.
    pub fn counters(&self) -> CaptureCountersHandle {
        self.counters.clone()
    }
}

impl<W: CaptureFile + Send> Tap for PcapTap<W> {
    fn packet(&mut self, _seen: Seen, packet: &PacketBuf<'_>) {
        let has_ended = self.writer.ended_by.is_some();
        // A full disk must not stop the traffic.
        match self.writer.write(self.clock.now(), packet.bytes()) {
            Ok(()) => self.counters.count(|counters| counters.written += 1),
            Err(error) => {
                self.counters.count(|counters| {
                    counters.missed += 1;
                    counters.ended_by = Some(error.kind());
                });
                if !has_ended {
                    (self.on_end)(&error);
                }
            }
        }
    }
}

impl<W> fmt::Debug for PcapTap<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PcapTap")
    }
}
