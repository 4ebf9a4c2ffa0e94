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
