//! SCTP as far as a director reads it: the chunk types that move its state machine, and the CRC32c that covers the
//! whole packet (RFC 9260 §3, §6.8). The CRC covers no addresses: only a changed port makes it wrong.

/// Length of the SCTP common header, in bytes.
pub const HEADER_LEN: usize = 12;

/// Offset of the CRC32c in the common header.
pub const CHECKSUM: usize = 8;

/// Chunk type INIT.
pub const INIT: u8 = 1;
/// Chunk type INIT ACK.
pub const INIT_ACK: u8 = 2;
/// Chunk type ABORT.
pub const ABORT: u8 = 6;
/// Chunk type COOKIE ECHO.
pub const COOKIE_ECHO: u8 = 10;
/// Chunk type COOKIE ACK.
pub const COOKIE_ACK: u8 = 11;
/// Chunk type SHUTDOWN COMPLETE.
pub const SHUTDOWN_COMPLETE: u8 = 14;

/// The chunk types a director looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunks {
    /// Type of the first chunk.
    pub first: u8,
    /// Type of the second chunk; read only behind a COOKIE ECHO or COOKIE ACK, where an ABORT may hide, as IPVS does.
    pub second: Option<u8>,
}

impl Chunks {
    /// Reads the chunks of an SCTP packet (from its common header on); `None` if the first chunk's header is cut off.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let chunks = packet.get(HEADER_LEN..)?;
        let &[first, _, len_high, len_low] = chunks.first_chunk()?;
        let len = usize::from(u16::from_be_bytes([len_high, len_low]));
        let bundled = matches!(first, COOKIE_ECHO | COOKIE_ACK) && len >= 4;
        // RFC 9260 §3.2: chunks are padded to a multiple of four bytes, which their length does not count.
        let second = chunks.get(len.next_multiple_of(4)..).and_then(|rest| rest.first_chunk::<4>());
        Some(Self { first, second: second.filter(|_| bundled).map(|header| header[0]) })
    }

    /// Whether the packet aborts its association: as first chunk or behind a cookie.
    pub fn abort(self) -> bool {
        self.first == ABORT || self.second == Some(ABORT)
    }
}

/// The CRC32c (Castagnoli) of `bytes`; SCTP sends it least significant byte first (RFC 9260, Appendix A).
///
/// ```
/// assert_eq!(lvs_core::wire::sctp::crc32c(b"123456789"), 0xe306_9283); // RFC 3720, Appendix B.4 uses the same CRC
/// ```
pub fn crc32c(bytes: &[u8]) -> u32 {
    !extend(!0, bytes)
}

/// The CRC32c of an SCTP packet, its checksum field taken as zero. The packet is at least a common header long.
pub fn packet_crc32c(packet: &[u8]) -> u32 {
    let (before, rest) = packet.split_at(CHECKSUM.min(packet.len()));
    let after = rest.get(4..).unwrap_or(&[]);
    !extend(extend(extend(!0, before), &[0; 4]), after)
}

/// Whether the CRC32c of an SCTP packet is right.
pub fn is_intact(packet: &[u8]) -> bool {
    let field = packet.get(CHECKSUM..).and_then(|rest| rest.first_chunk::<4>());
    field.is_some_and(|field| u32::from_le_bytes(*field) == packet_crc32c(packet))
}

/// Continues a CRC over `bytes`, eight at a time (slicing by 8: one table for each distance from the end).
fn extend(mut crc: u32, bytes: &[u8]) -> u32 {
    let mut blocks = bytes.chunks_exact(8);
    for block in &mut blocks {
        let low = crc ^ u32::from_le_bytes([block[0], block[1], block[2], block[3]]);
        let [a, b, c, d] = low.to_le_bytes();
        crc = TABLES[7][usize::from(a)]
            ^ TABLES[6][usize::from(b)]
            ^ TABLES[5][usize::from(c)]
            ^ TABLES[4][usize::from(d)]
            ^ TABLES[3][usize::from(block[4])]
            ^ TABLES[2][usize::from(block[5])]
            ^ TABLES[1][usize::from(block[6])]
            ^ TABLES[0][usize::from(block[7])];
    }
    for &byte in blocks.remainder() {
        crc = TABLES[0][usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    }
    crc
}

/// The Castagnoli polynomial, bits reversed (RFC 9260, Appendix A).
const POLYNOMIAL: u32 = 0x82f6_3b78;

static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut distance = 1;
    while distance < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[distance - 1][byte];
            tables[distance][byte] = tables[0][(crc & 0xff) as usize] ^ crc >> 8;
            byte += 1;
        }
        distance += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_matches_the_published_vectors() {
        // RFC 3720, Appendix B.4 (written there least significant byte first).
        assert_eq!(crc32c(&[0; 32]), 0xaa36_918a_u32.swap_bytes());
        assert_eq!(crc32c(&[0xff; 32]), 0x43ab_a862_u32.swap_bytes());
        let ascending: [u8; 32] = core::array::from_fn(|index| index as u8);
        assert_eq!(crc32c(&ascending), 0x4e79_dd46_u32.swap_bytes());
    }

    #[test]
    fn the_field_itself_counts_as_zero() {
        let mut packet: [u8; 37] = core::array::from_fn(|index| index as u8);
        let with_field = packet_crc32c(&packet);
        packet[CHECKSUM..CHECKSUM + 4].fill(0);
        assert_eq!(with_field, crc32c(&packet));
    }

    #[test]
    fn an_abort_is_seen_behind_a_cookie_only() {
        let mut packet = [0u8; 24];
        packet[12..20].copy_from_slice(&[COOKIE_ACK, 0, 0, 4, ABORT, 0, 0, 4]);
        assert_eq!(Chunks::read(&packet), Some(Chunks { first: COOKIE_ACK, second: Some(ABORT) }));
        packet[12] = INIT;
        assert_eq!(Chunks::read(&packet), Some(Chunks { first: INIT, second: None }));
        // An odd length: the second chunk starts at the next multiple of four.
        packet[12..24].copy_from_slice(&[COOKIE_ECHO, 0, 0, 5, 0, 0, 0, 0, ABORT, 0, 0, 4]);
        assert!(Chunks::read(&packet).is_some_and(Chunks::abort));
        assert_eq!(Chunks::read(&packet[..15]), None);
    }
}
