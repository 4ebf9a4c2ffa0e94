//! The C functions that programs call in place of the C library's. Each asks whether it is about something of ours, and
//! otherwise goes on with the C library's own.

mod files;
mod sockets;

use std::ffi::c_int;

use rustix::io::Errno;

/// Sets `errno` and gives what a failed call returns.
fn fail(error: Errno) -> c_int {
    // SAFETY: the C library gives the calling thread's own errno, which is valid to write.
    unsafe { *libc::__errno_location() = error.raw_os_error() };
    -1
}

/// A call's return value: the number, or -1 and `errno`.
fn result(outcome: Result<c_int, Errno>) -> c_int {
    outcome.unwrap_or_else(fail)
}
