//! The keyed hash that spreads clients over shards. Made of what a classic BPF program can do too, so that a kernel can
//! steer alike: 32-bit words, multiplied, added, shifted, and taken together by exclusive or.
//!
//! First a sum: each half word of the address by a secret factor of its own, from a secret start. For two addresses
//! the sums are equal, or apart by any given number, under some 2⁻¹⁶ of the secrets at the most (multiply-shift hashing,
//! Dietzfelbinger 1996): no difference of addresses has an effect that all secrets share. Then MurmurHash3's finaliser
//! (Appleby 2011), by which every bit of the sum moves every bit of the hash.

use std::net::IpAddr;

use lvs_core::Seed;
use lvs_core::rng::Rng;

/// The hash of one secret.
///
/// ```
/// use lvs_core::Seed;
/// use lvs_io::steer::AddressHash;
///
/// let client = "203.0.113.7".parse().unwrap();
/// assert_eq!(AddressHash::new(Seed::new(7)).of(client), AddressHash::new(Seed::new(7)).of(client));
/// assert_ne!(AddressHash::new(Seed::new(7)).of(client), AddressHash::new(Seed::new(8)).of(client));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressHash {
    /// What the sum starts from.
    pub start: u32,
    /// By what the halves of an address's words are multiplied, the first half of the header's first word first: two
    /// for IPv4, eight for IPv6. Odd, so that two addresses that differ in one half never have the same sum.
    pub factors: [u32; 8],
}

impl AddressHash {
    /// The hash of a secret. The same seed makes the same hash.
    pub fn new(seed: Seed) -> Self {
        let mut rng = Rng::new(seed);
        Self { start: rng.next_u64() as u32, factors: [0; 8].map(|_| rng.next_u64() as u32 | 1) }
    }

    /// The hash of an address.
    pub fn of(&self, address: IpAddr) -> u32 {
        match address {
            IpAddr::V4(address) => {
                let bits = address.to_bits();
                self.mixed([(bits >> 16) as u16, bits as u16])
            }
            IpAddr::V6(address) => self.mixed(address.segments()),
        }
    }

    fn mixed<const N: usize>(&self, halves: [u16; N]) -> u32 {
        let products = halves.iter().zip(self.factors).map(|(half, factor)| u32::from(*half).wrapping_mul(factor));
        let mut hash = products.fold(self.start, u32::wrapping_add);
        for (shift, factor) in SHIFTS.into_iter().zip(MIX) {
            hash = (hash ^ hash >> shift).wrapping_mul(factor);
        }
        hash ^ hash >> SHIFTS[2]
    }
}

/// The factors of the finaliser, behind the first and the second shift.
pub const MIX: [u32; 2] = [0x85eb_ca6b, 0xc2b2_ae35];
/// By how much the sum is shifted right and taken together with itself.
pub const SHIFTS: [u32; 3] = [16, 13, 16];
