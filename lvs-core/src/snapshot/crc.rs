//! CRC-32C (Castagnoli; RFC 3720 §12.1), eight bytes at a time. Own lines: the crates that have it bring tables of many
//! other polynomials or need `std`, and this crate keeps to three dependencies.

/// The checksum of `bytes`.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let mut next = 0;
        let first = crc.to_le_bytes();
        for (at, byte) in word.iter().enumerate() {
            let byte = if at < 4 { byte ^ first[at] } else { *byte };
            next ^= TABLES[7 - at][byte as usize];
        }
        crc = next;
    }
    for byte in words.remainder() {
        crc = crc >> 8 ^ TABLES[0][(crc as u8 ^ byte) as usize];
    }
    !crc
}

/// `TABLES[n][byte]`: what `byte` comes to, `n` bytes later.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ REVERSED } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut later = 1;
    while later < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[later - 1][byte];
            tables[later][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        later += 1;
    }
    tables
}

/// The polynomial, its lowest bit first.
const REVERSED: u32 = 0x82f6_3b78;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_3720_come_out() {
        let ascending: [u8; 32] = core::array::from_fn(|at| at as u8);
        let sums = [&b"123456789"[..], &[0; 32], &[0xff; 32], &ascending].map(crc32c);
        assert_eq!(sums, [0xe306_9283, 0x8a91_36aa, 0x62a8_ab43, 0x46dd_794e]);
    }
}
