//! Datagrams in progress, with the way of those whose first part has been seen.

use crate::director::decide::classify::Route;
use crate::fragment::FragmentMemory;
use crate::reserve::Refused;
use crate::rng::Seed;
use crate::time::Instant;

/// Datagrams in progress.
#[derive(Debug)]
pub(in crate::director) struct FragmentTable {
    pub memory: FragmentMemory<Route>,
}

impl FragmentTable {
    /// # Errors
    /// There is no memory for it.
    pub fn try_new(capacity: u32, bytes_max: u32, seed: Seed) -> Result<Self, Refused> {
        Ok(Self { memory: FragmentMemory::try_new(capacity, bytes_max, seed)? })
    }

    /// How many bytes are reserved for so many datagrams.
    pub fn bytes(capacity: u32) -> u64 {
        FragmentMemory::<Route>::bytes(capacity)
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.memory.next_deadline()
    }
}
