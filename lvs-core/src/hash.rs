//! Two hashes, two names. `keyed_hash` (ahash from the secret seed) is for tables and may differ between machines and
//! releases; nothing visible depends on it. `stable_hash` functions are Linux's own (`sh`, `dh`, `mh`, `lblc`) and must
//! agree between directors, CPUs and releases.

use core::net::IpAddr;

/// Linux `hash_32`: multiplicative hash of a 32-bit value down to `bits` bits (golden ratio 0x61C88647).
pub const fn hash32(value: u32, bits: u32) -> u32 {
    value.wrapping_mul(0x61c8_8647) >> (32 - bits)
}

/// An address folded to 32 bits: IPv4 as it is, IPv6 the XOR of its four words (host order).
pub fn fold_address(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            (bits >> 96) as u32 ^ (bits >> 64) as u32 ^ (bits >> 32) as u32 ^ bits as u32
        }
    }
}

/// SipHash-1-3 (Aumasson, Bernstein 2012; one compression round, three finalisation rounds) of the four little-endian
/// bytes of `value`, under the 128-bit key `(k0, k1)`.
pub const fn sip_hash_1_3(key: (u64, u64), value: u32) -> u64 {
    let mut v = [
        key.0 ^ 0x736f_6d65_7073_6575,
        key.1 ^ 0x646f_7261_6e64_6f6d,
        key.0 ^ 0x6c79_6765_6e65_7261,
        key.1 ^ 0x7465_6462_7974_6573,
    ];
    let last_block = 4 << 56 | value as u64; // the message's length in the top byte, then its tail
    v[3] ^= last_block;
    v = sip_round(v);
    v[0] ^= last_block;
    v[2] ^= 0xff;
    v = sip_round(sip_round(sip_round(v)));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

/// SipHash-2-4 (Aumasson, Bernstein 2012) of `message` under the 128-bit key `(k0, k1)`: a keyed hash that is the same
/// on every machine and that strangers cannot compute, for what is seen on the wire (RFC 6528).
pub fn sip_hash_2_4(key: (u64, u64), message: &[u8]) -> u64 {
    let mut v = [
        key.0 ^ 0x736f_6d65_7073_6575,
        key.1 ^ 0x646f_7261_6e64_6f6d,
        key.0 ^ 0x6c79_6765_6e65_7261,
        key.1 ^ 0x7465_6462_7974_6573,
    ];
    let mut compress = |block: u64| {
        v[3] ^= block;
        v = sip_round(sip_round(v));
        v[0] ^= block;
    };
    let mut blocks = message.chunks_exact(8);
    for block in &mut blocks {
        compress(block.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }
    let tail = blocks.remainder().iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    compress((message.len() as u64) << 56 | tail);
    v[2] ^= 0xff;
    v = sip_round(sip_round(sip_round(sip_round(v))));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

const fn sip_round([mut v0, mut v1, mut v2, mut v3]: [u64; 4]) -> [u64; 4] {
    v0 = v0.wrapping_add(v1);
    v1 = v1.rotate_left(13) ^ v0;
    v0 = v0.rotate_left(32);
    v2 = v2.wrapping_add(v3);
    v3 = v3.rotate_left(16) ^ v2;
    v0 = v0.wrapping_add(v3);
    v3 = v3.rotate_left(21) ^ v0;
    v2 = v2.wrapping_add(v1);
    v1 = v1.rotate_left(17) ^ v2;
    v2 = v2.rotate_left(32);
    [v0, v1, v2, v3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash32_and_fold_agree_with_linux() {
        let buckets = [
            ("192.0.2.1", 0, 50),
            ("192.0.2.2", 0, 148),
            ("10.1.2.3", 0, 2),
            ("203.0.113.77", 0, 57),
            ("10.1.2.3", 40_000, 166),
            ("2001:db8::1", 0, 63),
        ];
        for (address, port, bucket) in buckets {
            let folded = fold_address(address.parse().unwrap());
            assert_eq!(hash32(folded.wrapping_add(port), 8), bucket, "{address} {port}");
        }
    }

    // The reference vectors of the SipHash paper: key 00 … 0f, messages of 0 to 15 bytes 00, 01, ….
    #[test]
    fn sip_hash_2_4_agrees_with_its_paper() {
        let key = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        let message: [u8; 15] = core::array::from_fn(|index| index as u8);
        assert_eq!(sip_hash_2_4(key, &message), 0xa129_ca61_49be_45e5);
        assert_eq!(sip_hash_2_4(key, &[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(sip_hash_2_4(key, &message[..8]), 0x93f5_f579_9a93_2462);
    }

    #[test]
    fn sip_hash_1_3_agrees_with_linux() {
        let first = (2_654_435_761, 2_654_435_761);
        let second = (2_654_446_892, 2_654_446_892);
        for (key, value, low_half) in [
            (first, 0, 0x1d5a_77c2),
            (second, 0, 0xf882_433f),
            (first, 1, 0x16ec_66b2),
            (second, 1, 0x8210_aad1),
            (first, 0x0a01_0203, 0x2b29_8ba1),
            (first, 0x0a00_0052, 0xa1cf_683b),
            (second, 0x0a00_0052, 0xfa5d_46df),
        ] {
            assert_eq!(sip_hash_1_3(key, value) as u32, low_half, "{value:#x}");
        }
    }
}
