//! The real server's end of a tunnel, for kernels without one: a device that lends only what came through a tunnel for
//! given addresses, taken out of it. A [`crate::Worker`] whose director has no services then hands it to the host.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use lvs_core::PacketBuf;
use lvs_core::tunnel::{Accepts, decapsulate};
use lvs_core::wire::parse::parse;

use crate::device::{Arm, PacketSource};

impl Arm {
    /// The device at the end of a tunnel: what comes through one that `accepts` names, for one of `addresses`, is lent
    /// without its outer headers. Everything else is left to the host, which receives it too.
    ///
    /// The host receives the outer packets as well and, where nothing of its own takes them, tells their sender that the
    /// protocol or port is unreachable, which the director passes on to the client. Raw sockets of those protocols and a UDP
    /// socket on GUE's port that nobody reads keep it quiet. Who sent the outer packet is not looked at: let a packet
    /// filter do that.
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
        Self { source: Box::new(TunnelEnd { inner: self.source, accepts, addresses }), sink: self.sink }
    }
}

struct TunnelEnd {
    inner: Box<dyn PacketSource>,
    accepts: Accepts,
    addresses: Vec<IpAddr>,
}

impl PacketSource for TunnelEnd {
    fn receive(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize> {
        let Self { inner, accepts, addresses } = self;
        inner.receive(&mut |packets| {
            let mut count = 0;
            for index in 0..packets.len() {
                if is_taken_out(&mut packets[index], accepts, addresses) {
                    packets.swap(count, index);
                    count += 1;
                }
            }
            if count > 0 {
                handle(&mut packets[..count]);
            }
        })
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.poll_fd()
    }

    fn lost(&self) -> u64 {
        self.inner.lost()
    }
}

fn is_taken_out(packet: &mut PacketBuf<'_>, accepts: &Accepts, addresses: &[IpAddr]) -> bool {
    // Whatever else comes out of a tunnel is nobody's business here.
    matches!(decapsulate(packet, accepts), Ok(Some(_)))
        && parse(packet.bytes()).is_ok_and(|inner| addresses.contains(&inner.destination))
}
