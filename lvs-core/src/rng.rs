//! Randomness, as the caller seeds it. One seed gives one sequence, on every machine and in every release.
//! Used where Linux draws random numbers (`twos`, `drop_entry`) and for IP identifications of packets the director
//! makes.

/// The secret a director starts from. There is no default: the embedder chooses it
/// (from the system's random source in production, a constant in tests).
///
/// ```
/// use lvs_core::Seed;
/// let seed = Seed::new(0x5eed);
/// assert_eq!(seed, Seed::new(0x5eed));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed(u64);

impl Seed {
    /// A seed from 64 bits.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// An independent seed for one purpose: the same `(seed, purpose)` always gives the same one.
    pub const fn derive(self, purpose: u64) -> Self {
        Self(mix(self.0 ^ mix(purpose.wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }

    pub(crate) const fn value(self) -> u64 {
        self.0
    }
}

/// A small deterministic generator (SplitMix64; Steele, Lea, Flood 2014). Not for cryptography.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that starts from `seed`.
    pub const fn new(seed: Seed) -> Self {
        Self(seed.0)
    }

    /// Where it stands: [`Rng::new`] with this as its seed goes on from here.
    pub const fn position(&self) -> Seed {
        Seed(self.0)
    }

    /// The next 64 random bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A uniform integer in `0..=max` (multiply-shift; the bias is below 2⁻³² for `max < 2³²`).
    pub const fn up_to(&mut self, max: u32) -> u32 {
        let product = (self.next_u64() >> 32) * (max as u64 + 1);
        (product >> 32) as u32
    }
}

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
