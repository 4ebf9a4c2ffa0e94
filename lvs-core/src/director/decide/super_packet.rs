//! Super-packets into tunnels. No device we send through takes one that is encapsulated, so they are cut in software:
//! the first segment stays in the caller's buffer, the others leave through `poll_transmit`. The virtio-net header of
//! [`crate::Offload`] knows TCP and UDP behind a plain IP header only. IP in IP and GRE it cannot name at all. UDP
//! tunnels have a longer header of their own since virtio 1.4; a TUN device of Linux 6.18 hands out super-packets with
//! it (VXLAN), but refuses every one that is written to it, its own included (EINVAL).

use crate::director::decide::classify::Route;
use crate::director::outbox::PACKET_COST;
use crate::director::outbox::with_headroom;
use crate::director::tables::Tables;
use crate::drop_reason::DropReason;
use crate::packet::{HEADROOM, PacketBuf};
use crate::service::ForwardMethod;
use crate::verdict::Direction;
use crate::wire::segment::segment;
use alloc::vec::Vec;

impl Tables<'_> {
    /// Why a super-packet cannot be cut, if it has to be. Changes nothing.
    pub(in crate::director) fn refuses_super_packet(&self, packet: &PacketBuf<'_>, end: &Route) -> Option<DropReason> {
        let gso = packet.offload.gso.filter(|_| is_to_be_cut(packet, end))?;
        let segments = packet.len() / usize::from(gso.size.max(1));
        let len = packet.len() + segments * HEADERS_LEN_MAX;
        (!self.outlet.outbox.has_room(len)).then_some(DropReason::TransmitQueueFull)
    }

    /// The segments behind the first one, if the packet is a super-packet that is to be cut.
    pub(in crate::director) fn later_segments(&self, packet: &PacketBuf<'_>, end: &Route) -> Vec<Vec<u8>> {
        let mut later = Vec::new();
        if let Some(gso) =
            packet.offload.gso.filter(|_| is_to_be_cut(packet, end) && self.refuses_super_packet(packet, end).is_none())
        {
            let mut buffer = alloc::vec![0; packet.len()];
            let mut is_first = true;
            // What cannot be cut is refused when its first segment is sent.
            let _ = segment(packet.bytes(), gso, &mut buffer, |bytes| {
                if !core::mem::take(&mut is_first) {
                    later.push(with_headroom(bytes));
                }
            });
        }
        later
    }
}

/// What each further segment adds at most: IPv6, TCP with options, the tunnel, and what it costs to keep it.
const HEADERS_LEN_MAX: usize = 40 + 60 + HEADROOM + PACKET_COST;

fn is_to_be_cut(packet: &PacketBuf<'_>, end: &Route) -> bool {
    let enters_tunnel = end.path.method == ForwardMethod::Tunnel && !end.path.is_local;
    packet.offload.gso.is_some() && enters_tunnel && end.direction == Direction::Request
}
