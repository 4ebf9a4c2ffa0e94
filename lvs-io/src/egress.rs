//! Makes of a packet what its way out takes: fragments of an IPv4 packet longer than the MTU, segments of a
//! super-packet the device cannot cut, complete checksums where the device completes none. Most packets need nothing
//! of this and go straight to the sink.

use std::io;
use std::net::IpAddr;

use lvs_core::wire::fragment::fragment;
use lvs_core::wire::rewrite::complete_checksum;
use lvs_core::wire::segment::segment;
use lvs_core::{ChecksumOffload, DropReason, GsoKind, HEADROOM, PacketBuf};

use crate::device::PacketSink;

/// What sending one packet came to. Each piece is in one of the counts.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// Packets the sink took.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets lost because the sink's queue was full.
    pub queue_full: u64,
    /// Packets lost for another reason.
    pub failed: u64,
    /// How many more packets these are than the one that was to be sent.
    pub cut: u64,
}

impl Sent {
    /// One packet ended in all of these.
    fn of_one(mut self) -> Self {
        let packets = self.packets + self.queue_full + self.failed;
        // Cut into nothing: lost.
        self.failed += u64::from(packets == 0);
        self.cut = packets.saturating_sub(1);
        self
    }
}

/// Sends packets by any sink, as a verdict's `mtu` obliges: a sink is not told it. [`crate::Worker`] sends by one of
/// these; whoever writes a loop of their own does as well, or fragments what is longer than the verdict's `mtu` before
/// the sink has it ([`lvs_core::wire::fragment`]): the director lets such packets pass where they may be fragmented.
///
/// ```
/// use lvs_core::{HEADROOM, PacketBuf};
/// use lvs_io::{Egress, MemoryPort};
///
/// let (test, device) = MemoryPort::pair(16);
/// let mut arm = device.into_arm();
/// // 100 bytes of UDP for a way out that takes 68, as `Verdict::Forward { next_hop, mtu, .. }` says.
/// let mut storage = [0; HEADROOM + 100];
/// let header = [0x45, 0, 0, 100, 0, 1, 0, 0, 64, 17, 0x66, 0x86, 10, 0, 0, 1, 10, 0, 0, 2];
/// storage[HEADROOM..][..20].copy_from_slice(&header);
/// let mut packet = PacketBuf::new(&mut storage, HEADROOM, 100);
/// let sent = Egress::new().send(&mut *arm.sink, &mut packet, "10.0.0.2".parse().unwrap(), 68);
/// assert_eq!((sent.packets, sent.bytes), (2, 120));
/// assert_eq!(test.pop().map(|packet| packet.bytes.len()), Some(68));
/// ```
#[derive(Debug)]
pub struct Egress {
    /// Where a piece is made.
    piece: Box<[u8]>,
    /// Where it is sent from, headroom before it.
    outgoing: Box<[u8]>,
}

impl Default for Egress {
    fn default() -> Self {
        Self::new()
    }
}

impl Egress {
    /// With room to cut packets in: 128 KiB.
    pub fn new() -> Self {
        let room = || vec![0; HEADROOM + usize::from(u16::MAX)].into_boxed_slice();
        Self { piece: room(), outgoing: room() }
    }

    /// Sends the packet, in pieces if need be: fragments of one longer than `mtu`, segments of a super-packet that the
    /// sink does not cut, and with checksums complete where it completes none. Super-packets are compared with the MTU
    /// by the director, segment by segment.
    pub fn send(&mut self, sink: &mut dyn PacketSink, packet: &mut PacketBuf<'_>, next_hop: IpAddr, mtu: u16) -> Sent {
        let mut sent = Sent::default();
        let takes = sink.offloads();
        let link_priority = packet.link_priority;
        if let Some(gso) = packet.offload.gso {
            let takes_it = match gso.kind {
                GsoKind::TcpV4 | GsoKind::TcpV6 => takes.tcp,
                GsoKind::Udp => takes.udp,
            };
            // How long the segments are was compared with the MTU by whoever let the packet pass.
            if takes_it {
                send_whole(sink, packet, next_hop, &mut sent);
            } else {
                let Self { piece, outgoing } = self;
                let outcome = segment(packet.bytes(), gso, piece, |bytes| {
                    send_piece(sink, outgoing, bytes, link_priority, next_hop, &mut sent);
                });
                sent.failed += u64::from(outcome.is_err());
            }
            return sent.of_one();
        }
        let is_too_long = packet.len() > usize::from(mtu);
        let needs_checksum = packet.offload.checksum != ChecksumOffload::Full && (is_too_long || !takes.checksum);
        let mut ready: Result<(), DropReason> = Ok(());
        if needs_checksum {
            ready = complete_checksum(packet);
        }
        if is_too_long && ready.is_ok() {
            let Self { piece, outgoing } = self;
            // What gets here has an identification already: IPv4, or IPv6 with a fragment header.
            ready = fragment(packet.bytes(), mtu.into(), 0, piece, |bytes| {
                send_piece(sink, outgoing, bytes, link_priority, next_hop, &mut sent);
            });
        } else if ready.is_ok() {
            send_whole(sink, packet, next_hop, &mut sent);
        }
        sent.failed += u64::from(ready.is_err());
        sent.of_one()
    }
}

fn send_piece(
    sink: &mut dyn PacketSink,
    outgoing: &mut [u8],
    piece: &[u8],
    link_priority: u8,
    next_hop: IpAddr,
    sent: &mut Sent,
) {
    outgoing[HEADROOM..HEADROOM + piece.len()].copy_from_slice(piece);
    let mut packet = PacketBuf::new(outgoing, HEADROOM, piece.len());
    packet.link_priority = link_priority;
    send_whole(sink, &mut packet, next_hop, sent);
}

fn send_whole(sink: &mut dyn PacketSink, packet: &mut PacketBuf<'_>, next_hop: IpAddr, sent: &mut Sent) {
    let len = packet.len() as u64;
    match sink.send(packet, next_hop) {
        Ok(()) => {
            sent.packets += 1;
            sent.bytes += len;
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => sent.queue_full += 1,
        Err(_) => sent.failed += 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::SinkOffloads;

    /// Notes what it is given: lengths and priorities.
    struct Notes(Vec<(usize, u8)>);

    impl PacketSink for Notes {
        fn send(&mut self, packet: &mut PacketBuf<'_>, _next_hop: IpAddr) -> io::Result<()> {
            self.0.push((packet.len(), packet.link_priority));
            Ok(())
        }

        fn offloads(&self) -> SinkOffloads {
            SinkOffloads::default()
        }
    }

    #[test]
    fn pieces_keep_the_priority_of_the_packet() {
        // 10.0.0.1 > 10.0.0.2, 100 bytes of UDP.
        let mut storage = [0; HEADROOM + 100];
        let header = [0x45, 0, 0, 100, 0, 1, 0, 0, 64, 17, 0x66, 0x86, 10, 0, 0, 1, 10, 0, 0, 2];
        storage[HEADROOM..HEADROOM + 20].copy_from_slice(&header);
        let mut packet = PacketBuf::new(&mut storage, HEADROOM, 100);
        packet.link_priority = 11;
        let mut notes = Notes(Vec::new());
        let _ = Egress::new().send(&mut notes, &mut packet, IpAddr::from([10, 0, 0, 2]), 68);
        assert_eq!(notes.0, [(68, 11), (52, 11)]);
    }
}
