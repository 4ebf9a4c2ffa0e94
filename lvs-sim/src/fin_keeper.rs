//! Sends a FIN again that the stack has forgotten: smoltcp 0.14 stops the retransmission timer at the third duplicate
//! acknowledgement, and where nothing but the FIN is unacknowledged it then never sends it again. On links that
//! duplicate and reorder, connections would stay half closed for ever (RFC 9293 §3.8.1 wants it sent until
//! acknowledged).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use lvs_core::Instant;
use smoltcp::iface::SocketSet;
use smoltcp::socket::{Socket, tcp};
use smoltcp::wire::TcpSeqNumber;

use crate::packet::{make_fin, tcp_segment};

/// The FINs a host has sent and not seen acknowledged, by their source and destination.
#[derive(Debug, Default)]
pub(crate) struct FinKeeper {
    kept: BTreeMap<(SocketAddr, SocketAddr), Fin>,
}

#[derive(Debug)]
struct Fin {
    /// Sent last in this direction, made into a FIN: the acknowledgement must be up to date to be accepted.
    packet: Vec<u8>,
    sequence_number: TcpSeqNumber,
    again_at: Instant,
}

impl FinKeeper {
    /// Looks at a packet the stack has sent.
    pub(crate) fn note(&mut self, now: Instant, packet: &[u8]) {
        let Some(segment) = tcp_segment(packet) else { return };
        let ends = (segment.source, segment.target);
        let packet = packet.to_vec();
        if segment.fin {
            let sequence_number = segment.sequence_number;
            self.kept.insert(ends, Fin { packet, sequence_number, again_at: now + AGAIN_AFTER });
        } else if let Some(fin) = self.kept.get_mut(&ends) {
            fin.packet = packet;
            make_fin(&mut fin.packet, &segment, fin.sequence_number);
        }
    }

    /// Forgets what has been acknowledged, and sends again what is overdue.
    pub(crate) fn advance(&mut self, now: Instant, sockets: &SocketSet<'static>, mut send: impl FnMut(Vec<u8>)) {
        if self.kept.is_empty() {
            return;
        }
        let waiting: Vec<_> = sockets.iter().filter_map(|(_, socket)| waits_for_fin_ack(socket)).collect();
        self.kept.retain(|ends, _| waiting.contains(ends));
        for fin in self.kept.values_mut().filter(|fin| fin.again_at <= now) {
            fin.again_at = now + AGAIN_AFTER;
            send(fin.packet.clone());
        }
    }

    pub(crate) fn wakes(&self) -> Option<Instant> {
        self.kept.values().map(|fin| fin.again_at).min()
    }
}

/// The ends of a connection whose FIN is sent and not acknowledged.
fn waits_for_fin_ack(socket: &Socket<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let Socket::Tcp(socket) = socket else { return None };
    let is_waiting = matches!(socket.state(), tcp::State::FinWait1 | tcp::State::Closing | tcp::State::LastAck);
    let ends = (socket.local_endpoint()?.into(), socket.remote_endpoint()?.into());
    is_waiting.then_some(ends)
}

/// Longer than smoltcp's longest retransmission timeout (10 s): it goes first where it can.
const AGAIN_AFTER: Duration = Duration::from_secs(11);
