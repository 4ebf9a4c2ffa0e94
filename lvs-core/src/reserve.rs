//! Memory reserved at the start, and what is said when there is not enough of it: a machine without an operating system
//! has no other way to tell than an error.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// The allocator did not give the memory that a configuration's tables take
/// ([`crate::DirectorConfig::reserved_bytes`]). Whatever it had given is returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "there is no memory for the tables: they take {bytes} bytes; lower connections_max, templates_max or fragments_max"
)]
pub struct OutOfMemory {
    /// How much all tables take, in bytes.
    pub bytes: u64,
}

/// The allocator did not give some of it.
pub(crate) struct Refused;

/// Room for `count` items.
pub(crate) fn room<T>(count: u32) -> Result<Vec<T>, Refused> {
    let mut items = Vec::new();
    items.try_reserve_exact(count as usize).map_err(|_| Refused)?;
    Ok(items)
}

/// So many equal items.
pub(crate) fn filled<T: Clone>(item: T, count: usize) -> Result<Box<[T]>, Refused> {
    let mut items = Vec::new();
    items.try_reserve_exact(count).map_err(|_| Refused)?;
    items.resize(count, item);
    Ok(items.into_boxed_slice())
}

/// How many bytes so many items take.
pub(crate) const fn bytes_of<T>(count: u64) -> u64 {
    count * size_of::<T>() as u64
}
