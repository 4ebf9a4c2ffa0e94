//! Echo (RFC 862): the server says what it hears. The client sends a pattern and checks each byte that comes back,
//! so one dialogue proves both directions.

use std::collections::VecDeque;

use lvs_core::Seed;
use lvs_core::rng::Rng;

use super::Dialogue;

/// The server's end.
#[derive(Debug, Default)]
pub(crate) struct EchoServer {
    waiting: VecDeque<u8>,
    is_ended: bool,
}

impl Dialogue for EchoServer {
    fn hear(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
    }

    fn hear_end(&mut self) {
        self.is_ended = true;
    }

    fn speak(&mut self, into: &mut [u8]) -> usize {
        let count = self.waiting.len().min(into.len());
        for (byte, slot) in self.waiting.drain(..count).zip(into) {
            *slot = byte;
        }
        count
    }

    fn has_said_all(&self) -> bool {
        self.is_ended && self.waiting.is_empty()
    }

    fn is_listening(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }
}

/// The client's end.
#[derive(Debug)]
pub(crate) struct EchoClient {
    len: u64,
    said: Pattern,
    heard: Pattern,
    is_ended: bool,
    is_damaged: bool,
}

impl EchoClient {
    /// Sends `len` bytes that depend on `seed` alone.
    pub(crate) fn new(len: u64, seed: Seed) -> Self {
        Self { len, said: Pattern::new(seed), heard: Pattern::new(seed), is_ended: false, is_damaged: false }
    }
}

impl Dialogue for EchoClient {
    fn hear(&mut self, bytes: &[u8]) {
        self.is_damaged |= bytes.iter().any(|byte| *byte != self.heard.next());
        self.is_damaged |= self.heard.index > self.len;
    }

    fn hear_end(&mut self) {
        self.is_ended = true;
    }

    fn speak(&mut self, into: &mut [u8]) -> usize {
        let rest = usize::try_from(self.len - self.said.index).unwrap_or(usize::MAX);
        let count = rest.min(into.len());
        into[..count].fill_with(|| self.said.next());
        count
    }

    fn has_said_all(&self) -> bool {
        self.said.index == self.len
    }

    fn is_satisfied(&self) -> bool {
        self.is_ended && !self.is_damaged && self.heard.index == self.len
    }

    fn is_damaged(&self) -> bool {
        self.is_damaged
    }
}

/// Random bytes that never repeat within a transfer, so that no misplaced segment looks right.
#[derive(Debug)]
struct Pattern {
    rng: Rng,
    index: u64,
    word: [u8; 8],
}

impl Pattern {
    fn new(seed: Seed) -> Self {
        Self { rng: Rng::new(seed), index: 0, word: [0; 8] }
    }

    fn next(&mut self) -> u8 {
        let within = (self.index % 8) as usize;
        if within == 0 {
            self.word = self.rng.next_u64().to_le_bytes();
        }
        self.index += 1;
        self.word[within]
    }
}

/// Bytes an echo server keeps before it stops reading.
const WAITING_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_satisfied_by_its_own_bytes_and_the_end() {
        let (mut client, mut server) = (EchoClient::new(1000, Seed::new(1)), EchoServer::default());
        let mut buffer = [0; 77];
        while !client.has_said_all() {
            let count = client.speak(&mut buffer);
            server.hear(&buffer[..count]);
            let count = server.speak(&mut buffer);
            client.hear(&buffer[..count]);
        }
        assert!(!client.is_satisfied());
        client.hear_end();
        assert!(client.is_satisfied());
    }

    #[test]
    fn bytes_in_the_wrong_place_are_seen() {
        let mut client = EchoClient::new(16, Seed::new(1));
        let mut said = [0; 16];
        client.speak(&mut said);
        said.swap(3, 9);
        client.hear(&said);
        assert!(client.is_damaged());
    }
}
