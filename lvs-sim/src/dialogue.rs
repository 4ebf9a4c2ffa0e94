//! What is said over one TCP connection, apart from how it gets there: bytes in, bytes out, and when all is said.
//! Clients and servers alike are dialogues; write your own to try a protocol of yours through the director.

pub mod echo;
pub mod http;

/// One end of a conversation over TCP. Only called with bytes that arrived, in order.
///
/// ```
/// use lvs_sim::Dialogue;
///
/// /// Greets, and hangs up.
/// struct Greeter(&'static [u8]);
///
/// impl Dialogue for Greeter {
///     fn hear(&mut self, _bytes: &[u8]) {}
///     fn speak(&mut self, into: &mut [u8]) -> usize {
///         let count = self.0.len().min(into.len());
///         into[..count].copy_from_slice(&self.0[..count]);
///         self.0 = &self.0[count..];
///         count
///     }
///     fn has_said_all(&self) -> bool {
///         self.0.is_empty()
///     }
/// }
/// ```
pub trait Dialogue {
    /// The other end said this.
    fn hear(&mut self, bytes: &[u8]);

    /// The other end has said all.
    fn hear_end(&mut self) {}

    /// Writes what this end has to say now, as much as fits; returns how many bytes that was. 0 is nothing for now.
    fn speak(&mut self, into: &mut [u8]) -> usize;

    /// Whether this end has said all: the connection is then closed in this direction.
    fn has_said_all(&self) -> bool;

    /// Whether this end wants to hear more now; if not, the other end's bytes wait. Default yes.
    fn is_listening(&self) -> bool {
        true
    }

    /// For a client: whether it got all it wanted. Default: whether it has said all.
    fn is_satisfied(&self) -> bool {
        self.has_said_all()
    }

    /// For a client: whether something it heard was not what it must have been. Default no.
    fn is_damaged(&self) -> bool {
        false
    }

    /// For a client: the name the server gave itself, if it did. Default none.
    fn server_name(&self) -> Option<&str> {
        None
    }
}

/// Bytes waiting to be said, for dialogues whose words are known beforehand.
#[derive(Debug, Default)]
struct Script {
    bytes: Vec<u8>,
    said: usize,
}

impl Script {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, said: 0 }
    }

    fn speak(&mut self, into: &mut [u8]) -> usize {
        let rest = &self.bytes[self.said..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.said += count;
        count
    }

    fn is_said(&self) -> bool {
        self.said == self.bytes.len()
    }
}
