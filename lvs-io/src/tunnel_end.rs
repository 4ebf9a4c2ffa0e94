//! The real server's end of a tunnel, for kernels without one: a device that lends only what came through a tunnel for
//! given addresses, taken out of it. A [`crate::Worker`] whose director has no services then hands it to the host.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use lvs_core::tunnel::{Accepts, EndCounters, Ending, Joined, TunnelEnd};
use lvs_core::{PacketBuf, Seed};

use crate::clock::{Clock, MonotonicClock};
use crate::device::{Arm, BATCH, DeviceState, PacketSource};
use crate::known::AddressChange;

/// What a device at the end of tunnels has counted, to be read while a worker has it. Renewed with each batch.
#[derive(Clone, Debug, Default)]
pub struct EndCountersHandle(Arc<Mutex<EndCounters>>);

impl EndCountersHandle {
    /// The counters as they were at the end of the last batch.
    pub fn get(&self) -> EndCounters {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arm {
    /// The device at the end of a tunnel: what comes through one that `accepts` names, for one of `addresses`, is lent
    /// without its outer headers, put together if it came in parts. Everything else is left to the host, which receives
    /// it too.
    ///
    /// The host receives the outer packets as well and, where nothing of its own takes them, tells their sender that
    /// the protocol or port is unreachable, which the director passes on to the client. Raw sockets of those protocols
    /// and a UDP socket on GUE's port that nobody reads keep it quiet. Anybody may send: for an end that names its peers
    /// see [`Self::behind_tunnel_end`].
    ///
    /// ```
    /// use lvs_core::tunnel::Accepts;
    /// use lvs_core::{Director, DirectorConfig, Seed};
    /// use lvs_io::{MemoryPort, OnPass, Worker};
    ///
    /// let (network, device) = MemoryPort::pair(16);
    /// let (host, to_host) = MemoryPort::pair(16);
    /// let accepts = Accepts { ipip: true, ..Accepts::default() };
    /// let arm = device.into_arm().with_tunnel_end(accepts, vec!["192.0.2.1".parse().unwrap()]);
    /// let nobody = Director::new(DirectorConfig::default(), Seed::new(1));
    /// let mut worker = Worker::new(nobody, arm, None)?.with_on_pass(OnPass::ToHost(to_host.into_arm().sink));
    /// network.push([
    ///     0x45, 0, 0, 50, 0, 0, 0, 0, 64, 4, 0x65, 0xc9, 10, 0, 0, 254, 10, 0, 0, 2, // outside
    ///     0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0x7c, 0xc6, 203, 0, 113, 7, 192, 0, 2, 1, // inside
    ///     4, 0, 0, 80, 0, 10, 0, 0, b'h', b'i',
    /// ]);
    /// worker.turn()?;
    /// assert_eq!(host.pop().expect("the inner packet").bytes[16..20], [192, 0, 2, 1]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn with_tunnel_end(self, accepts: Accepts, addresses: Vec<IpAddr>) -> Self {
        self.with_counted_tunnel_end(accepts, addresses, MonotonicClock::new()).0
    }

    /// As [`Self::with_tunnel_end`], with the worker's own clock, by which parts are given up, and with the counters.
    pub fn with_counted_tunnel_end(
        self,
        accepts: Accepts,
        addresses: Vec<IpAddr>,
        clock: impl Clock + 'static,
    ) -> (Self, EndCountersHandle) {
        // Nobody outside may guess where a part is filed.
        let seed = Seed::new(RandomState::new().build_hasher().finish());
        self.behind_tunnel_end(TunnelEnd::new(accepts, addresses, seed), clock)
    }

    /// As [`Self::with_counted_tunnel_end`], with an end made for the purpose ([`TunnelEnd::with_peers`]).
    pub fn behind_tunnel_end(self, end: TunnelEnd, clock: impl Clock + 'static) -> (Self, EndCountersHandle) {
        let counters = EndCountersHandle::default();
        let source = Unwrapping { inner: self.source, end, clock: Box::new(clock), counters: counters.clone() };
        (Self { source: Box::new(source), sink: self.sink }, counters)
    }
}

struct Unwrapping {
    inner: Box<dyn PacketSource>,
    end: TunnelEnd,
    clock: Box<dyn Clock>,
    counters: EndCountersHandle,
}

impl PacketSource for Unwrapping {
    fn receive(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize> {
        let now = self.clock.now();
        self.end.handle_timeout(now);
        // What the last batch completed comes first, in a batch of its own: it lies in other memory.
        let mut joined: Vec<Joined> = std::iter::from_fn(|| self.end.poll_joined()).take(BATCH).collect();
        let outcome = if joined.is_empty() {
            let Self { inner, end, .. } = self;
            inner.receive(&mut |packets| {
                let mut count = 0;
                for index in 0..packets.len() {
                    if end.handle_packet(now, &mut packets[index]) == Ending::TakenOut {
                        packets.swap(count, index);
                        count += 1;
                    }
                }
                if count > 0 {
                    handle(&mut packets[..count]);
                }
            })
        } else {
            handle(&mut joined.iter_mut().map(Joined::packet).collect::<Vec<_>>());
            Ok(joined.len())
        };
        *self.counters.0.lock().unwrap_or_else(PoisonError::into_inner) = self.end.counters();
        outcome
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
