//! The functions that would have been called without this library: found by name, behind us, once.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{FILE, mode_t, msghdr, size_t, sockaddr, socklen_t, ssize_t};

/// A function of the C library, looked up at its first use.
pub struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Next {
    const fn new(name: &'static CStr) -> Self {
        Self { name, found: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Its address.
    ///
    /// # Panics
    /// If the C library has no such function: then this library does not belong to it.
    fn address(&self) -> *mut c_void {
        let known = self.found.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: the name is a C string; RTLD_NEXT asks for the definition behind this library.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        assert!(!found.is_null(), "the C library has {:?}", self.name);
        self.found.store(found, Ordering::Relaxed);
        found
    }
}

macro_rules! next {
    ($($name:ident $text:literal ( $($argument:ident : $kind:ty),* ) -> $result:ty;)*) => {$(
        /// The C library's function of this name.
        ///
        /// # Safety
        /// As the C library asks for.
        pub unsafe fn $name($($argument: $kind),*) -> $result {
            static NEXT: Next = Next::new($text);
            // SAFETY: the C library's function of this name has this signature (its man page).
            let function: unsafe extern "C" fn($($kind),*) -> $result = unsafe { std::mem::transmute(NEXT.address()) };
            // SAFETY: the caller keeps what the C library asks for.
            unsafe { function($($argument),*) }
        }
    )*};
}

next! {
    socket c"socket" (domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    bind c"bind" (fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int;
    connect c"connect" (fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int;
    getsockname c"getsockname" (fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int;
    setsockopt c"setsockopt" (fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int;
    getsockopt c"getsockopt" (fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int;
    sendmsg c"sendmsg" (fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t;
    sendto c"sendto" (fd: c_int, bytes: *const c_void, len: size_t, flags: c_int, to: *const sockaddr, to_len: socklen_t) -> ssize_t;
    send c"send" (fd: c_int, bytes: *const c_void, len: size_t, flags: c_int) -> ssize_t;
    recvmsg c"recvmsg" (fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
    recvfrom c"recvfrom" (fd: c_int, bytes: *mut c_void, len: size_t, flags: c_int, from: *mut sockaddr, from_len: *mut socklen_t) -> ssize_t;
    recv c"recv" (fd: c_int, bytes: *mut c_void, len: size_t, flags: c_int) -> ssize_t;
    write c"write" (fd: c_int, bytes: *const c_void, len: size_t) -> ssize_t;
    close c"close" (fd: c_int) -> c_int;
    dup c"dup" (fd: c_int) -> c_int;
    dup2 c"dup2" (fd: c_int, new: c_int) -> c_int;
    dup3 c"dup3" (fd: c_int, new: c_int, flags: c_int) -> c_int;
    fcntl c"fcntl" (fd: c_int, command: c_int, argument: *mut c_void) -> c_int;
    open c"open" (path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    open64 c"open64" (path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    openat c"openat" (folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    openat64 c"openat64" (folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    access c"access" (path: *const c_char, mode: c_int) -> c_int;
    stat c"stat" (path: *const c_char, into: *mut libc::stat) -> c_int;
    fopen c"fopen" (path: *const c_char, mode: *const c_char) -> *mut FILE;
    fopen64 c"fopen64" (path: *const c_char, mode: *const c_char) -> *mut FILE;
}
