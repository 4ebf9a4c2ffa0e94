//! A dialogue over a TCP socket: carries bytes between the two, and closes the socket when all is said.

use smoltcp::socket::tcp;

use crate::dialogue::Dialogue;

/// One end of a TCP connection and what is said there.
pub(crate) struct Session {
    pub(crate) dialogue: Box<dyn Dialogue>,
    pub(crate) bytes_said: u64,
    pub(crate) bytes_heard: u64,
    has_heard_end: bool,
    has_closed: bool,
}

impl Session {
    pub(crate) fn new(dialogue: Box<dyn Dialogue>) -> Self {
        Self { dialogue, bytes_said: 0, bytes_heard: 0, has_heard_end: false, has_closed: false }
    }

    /// Carries what can be carried now; returns whether anything was.
    pub(crate) fn advance(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        let heard = self.hear(socket);
        let said = self.say(socket);
        // The FIN travels alone, after everything else was acknowledged: smoltcp 0.14 overlooks one in a segment whose
        // bytes it has already, and two such stacks would wait for each other.
        let has_arrived = socket.may_send() && socket.send_queue() == 0;
        let closes = !self.has_closed && has_arrived && self.dialogue.has_said_all();
        if closes {
            self.has_closed = true;
            socket.close();
        }
        heard | said | closes
    }

    /// Whether the other end has said all, and yet not all that was wanted.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.has_heard_end && self.has_closed && !self.dialogue.is_satisfied()
    }

    fn hear(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        let before = self.bytes_heard;
        while socket.can_recv() && self.dialogue.is_listening() {
            let dialogue = &mut self.dialogue;
            let heard = socket.recv(|bytes| {
                dialogue.hear(bytes);
                (bytes.len(), bytes.len() as u64)
            });
            self.bytes_heard += heard.unwrap_or(0);
        }
        let ends = !self.has_heard_end && !socket.can_recv() && other_end_closed(socket.state());
        if ends {
            self.has_heard_end = true;
            self.dialogue.hear_end();
        }
        ends || self.bytes_heard != before
    }

    fn say(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        let before = self.bytes_said;
        while socket.can_send() {
            let dialogue = &mut self.dialogue;
            let said = socket.send(|into| {
                let count = dialogue.speak(into);
                (count, count as u64)
            });
            match said {
                Ok(count @ 1..) => self.bytes_said += count,
                _ => break,
            }
        }
        self.bytes_said != before
    }
}

/// Whether the peer's FIN has arrived (RFC 9293 §3.3.2).
fn other_end_closed(state: tcp::State) -> bool {
    use tcp::State::{CloseWait, Closing, LastAck, TimeWait};
    matches!(state, CloseWait | Closing | LastAck | TimeWait)
}

/// A TCP socket, as every host here makes it.
pub(crate) fn tcp_socket() -> tcp::Socket<'static> {
    let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
    let mut socket = tcp::Socket::new(buffer(RECEIVE_LEN), buffer(SEND_LEN));
    // Delayed acknowledgements and Nagle's algorithm only make virtual latencies harder to read.
    socket.set_ack_delay(None);
    socket.set_nagle_enabled(false);
    socket
}

/// Room for what arrives. More than a sender has on its way, so that the window does not close while the reader reads:
/// smoltcp 0.14 forgets to retransmit when the third duplicate acknowledgement meets a closed window.
const RECEIVE_LEN: usize = 48 * 1024;
/// Room for what is on its way.
const SEND_LEN: usize = 16 * 1024;
