//! TCP as far as a director reads it: flags, and where the checksum is (RFC 9293 §3.1).

/// Shortest TCP header, in bytes.
pub const HEADER_LEN: usize = 20;

/// Offset of the checksum in the TCP header.
pub const CHECKSUM: usize = 16;

/// The flags of a segment, as in byte 13 of its header.
///
/// ```
/// use lvs_core::wire::tcp::TcpFlags;
/// let flags = TcpFlags(TcpFlags::SYN | TcpFlags::ACK);
/// assert!(flags.syn() && flags.ack() && !flags.rst());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// The sender has no more data.
    pub const FIN: u8 = 0x01;
    /// A connection is opened.
    pub const SYN: u8 = 0x02;
    /// The connection is reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;

    /// Whether all bits of `flags` are set.
    pub const fn has(self, flags: u8) -> bool {
        self.0 & flags == flags
    }

    /// Whether FIN is set.
    pub const fn fin(self) -> bool {
        self.has(Self::FIN)
    }

    /// Whether SYN is set.
    pub const fn syn(self) -> bool {
        self.has(Self::SYN)
    }

    /// Whether RST is set.
    pub const fn rst(self) -> bool {
        self.has(Self::RST)
    }

    /// Whether ACK is set.
    pub const fn ack(self) -> bool {
        self.has(Self::ACK)
    }

    /// Whether URG is set.
    pub const fn urg(self) -> bool {
        self.has(Self::URG)
    }
}
