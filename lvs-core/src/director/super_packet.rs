//! Super-packets into tunnels. No device we send through takes one that is encapsulated, so they are cut in software:
//! the first segment stays in the caller's buffer, the others leave through `poll_transmit`. The virtio-net header of
//! [`crate::Offload`] knows TCP and UDP behind a plain IP header only. IP in IP and GRE it cannot name at all. UDP
//! tunnels have a longer header of their own since virtio 1.4; a TUN device of Linux 6.18 hands out super-packets with
//! it (VXLAN), but refuses every one that is written to it, its own included (EINVAL).

use alloc::vec::Vec;

use super::Director;
use super::look::FlowEnd;
use super::outbox::{PACKET_COST, with_headroom};
use super::tables::Tables;
use crate::drop_reason::DropReason;
use crate::forward;
use crate::packet::{HEADROOM, PacketBuf};
use crate::service::ForwardMethod;
use crate::verdict::{Direction, Verdict};
use crate::wire::parse::parse;
use crate::wire::segment::segment;

impl Tables<'_> {
    /// Why a super-packet cannot be cut, if it has to be. Changes nothing.
    pub(super) fn refuses_super_packet(&self, packet: &PacketBuf<'_>, end: &FlowEnd) -> Option<DropReason> {
        let gso = packet.offload.gso.filter(|_| is_to_be_cut(packet, end))?;
        let segments = packet.len() / usize::from(gso.size.max(1));
        let len = packet.len() + segments * HEADERS_LEN_MAX;
        (!self.outlet.outbox.has_room(len)).then_some(DropReason::TransmitQueueFull)
    }

    /// The segments behind the first one, if the packet is a super-packet that is to be cut.
    pub(super) fn later_segments(&self, packet: &PacketBuf<'_>, end: &FlowEnd) -> Vec<Vec<u8>> {
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

impl Director {
    /// Sends the segments behind the first one, which went its way.
    pub(super) fn send_segments(&mut self, segments: Vec<Vec<u8>>, end: &FlowEnd) {
        for mut storage in segments {
            let len = storage.len() - HEADROOM;
            let mut packet = PacketBuf::new(&mut storage, HEADROOM, len);
            let mut path = end.path;
            path.identification = self.tables().identification();
            let verdict = match parse(packet.bytes()) {
                Ok(headers) => forward::request(&mut packet, &headers, &path),
                Err(reason) => Verdict::Drop(reason),
            };
            let place = (packet.start(), packet.len());
            self.outlet.answers += 1;
            self.transmit_later(storage, place, 0, verdict);
        }
    }

    /// Leaves a packet for `poll_transmit`; counts one that is not to be sent.
    pub(super) fn transmit_later(&mut self, storage: Vec<u8>, place: (usize, usize), mark: u32, verdict: Verdict) {
        if matches!(verdict, Verdict::Reply { .. }) {
            self.spend_answer(&storage[place.0..place.0 + place.1]);
        }
        let outcome = match verdict {
            Verdict::Drop(reason) => Err(reason),
            verdict => self.outlet.outbox.push(storage, place, mark, verdict),
        };
        if let Err(reason) = outcome {
            self.count_drop(reason);
        }
    }
}

/// What each further segment adds at most: IPv6, TCP with options, the tunnel, and what it costs to keep it.
const HEADERS_LEN_MAX: usize = 40 + 60 + HEADROOM + PACKET_COST;

fn is_to_be_cut(packet: &PacketBuf<'_>, end: &FlowEnd) -> bool {
    let enters_tunnel = end.path.method == ForwardMethod::Tunnel && !end.path.is_local;
    packet.offload.gso.is_some() && enters_tunnel && end.direction == Direction::Request
}
