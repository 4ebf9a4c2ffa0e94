//! Echo over UDP (RFC 862): a server that sends each datagram back, and a client that asks one by one and asks again
//! when nothing comes.

use std::net::SocketAddr;

use lvs_core::Instant;
use smoltcp::socket::udp;

use crate::client::RETRY_AFTER;
use crate::conversation::Outcome;

/// Sends back whatever has arrived; returns whether there was something.
pub(crate) fn echo(socket: &mut udp::Socket<'_>) -> bool {
    let mut progress = false;
    while socket.can_send() {
        let Ok((bytes, from)) = socket.recv() else { break };
        let bytes = bytes.to_vec();
        // From the address the client asked, which need not be the host's first one. A full buffer loses the answer,
        // as UDP may.
        let _ = socket.send_slice(&bytes, from);
        progress = true;
    }
    progress
}

/// A UDP socket with room for many datagrams.
pub(crate) fn udp_socket() -> udp::Socket<'static> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 128 * 1024]);
    udp::Socket::new(buffer(), buffer())
}

/// The client's end: each datagram is numbered, and answered before the next one is sent.
#[derive(Debug)]
pub(crate) struct UdpClient {
    to: SocketAddr,
    count: u32,
    len: usize,
    answered: u32,
    sends_at: Instant,
    is_damaged: bool,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

impl UdpClient {
    pub(crate) fn new(to: SocketAddr, count: u32, len: usize) -> Self {
        let (sends_at, len) = (Instant::ZERO, len.max(NUMBER_LEN));
        Self { to, count, len, answered: 0, sends_at, is_damaged: false, bytes_sent: 0, bytes_received: 0 }
    }

    pub(crate) fn advance(&mut self, now: Instant, socket: &mut udp::Socket<'_>) -> bool {
        let mut progress = false;
        while let Ok((bytes, _)) = socket.recv() {
            progress = true;
            self.hear(now, bytes);
        }
        if self.answered < self.count && now >= self.sends_at {
            let datagram = datagram(self.answered, self.len);
            if socket.send_slice(&datagram, self.to).is_ok() {
                self.bytes_sent += datagram.len() as u64;
            }
            self.sends_at = now + RETRY_AFTER;
            progress = true;
        }
        progress
    }

    fn hear(&mut self, now: Instant, bytes: &[u8]) {
        let number = bytes.first_chunk().map_or(u32::MAX, |number| u32::from_be_bytes(*number));
        if bytes != datagram(number, self.len) || number > self.answered {
            self.is_damaged = true;
        } else if number == self.answered {
            // Smaller numbers are answers to earlier tries, late or twice.
            self.bytes_received += bytes.len() as u64;
            self.answered += 1;
            self.sends_at = now;
        }
    }

    pub(crate) fn outcome(&self) -> Outcome {
        if self.is_damaged {
            Outcome::Damaged
        } else if self.answered == self.count {
            Outcome::Complete
        } else {
            Outcome::Running
        }
    }

    pub(crate) fn wakes(&self) -> Instant {
        self.sends_at
    }
}

/// The datagram of a number: the number, then bytes that follow from it.
fn datagram(number: u32, len: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((NUMBER_LEN..len).map(|index| (number as usize + index * 7) as u8));
    bytes
}

/// Bytes of a datagram's number.
const NUMBER_LEN: usize = 4;
