//! Memory shared with the kernel: one mapping, unmapped when dropped. Knows nothing of what lies in it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// A shared mapping of a descriptor, from its start.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread; `Mapping` hands out its address only to its owner.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `len` bytes, readable and writable, and never swapped out if that is allowed.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choosing overlaps nothing of ours.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("a mapping is never at address zero unless asked for");
        Ok(Self { start, len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The first byte. Valid for reads and writes of [`Self::len`] bytes as long as `self` lives.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `len` are those of a mapping made in `new` and unmapped only here; what was lent from it
        // borrowed its owner and is gone. The kernel keeps the pages itself as long as it needs them.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
