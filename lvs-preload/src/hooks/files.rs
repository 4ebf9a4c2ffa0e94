//! Files and descriptors: those of IPVS below `/proc` are `lvsd`'s. A file that is read is a copy in memory, made when it
//! is opened; a setting that is written reaches `lvsd` at each write.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::{AsRawFd, IntoRawFd};

use libc::{FILE, mode_t, size_t, ssize_t};
use rustix::io::Errno;

use super::{fail, result};
use crate::next;
use crate::registry::{self, Ours};
use crate::tables::{self, Table};

/// `close(2)`.
#[unsafe(no_mangle)]
pub extern "C" fn close(fd: c_int) -> c_int {
    registry::remove(fd);
    // SAFETY: the program closes its own descriptor.
    unsafe { next::close(fd) }
}

/// `dup(2)`.
#[unsafe(no_mangle)]
pub extern "C" fn dup(fd: c_int) -> c_int {
    // SAFETY: arguments as the program gave them.
    copied(fd, unsafe { next::dup(fd) })
}

/// `dup2(2)`.
#[unsafe(no_mangle)]
pub extern "C" fn dup2(fd: c_int, new: c_int) -> c_int {
    // SAFETY: arguments as the program gave them.
    let outcome = unsafe { next::dup2(fd, new) };
    if fd == new { outcome } else { copied(fd, outcome) }
}

/// `dup3(2)`.
#[unsafe(no_mangle)]
pub extern "C" fn dup3(fd: c_int, new: c_int, flags: c_int) -> c_int {
    // SAFETY: arguments as the program gave them.
    copied(fd, unsafe { next::dup3(fd, new, flags) })
}

/// `fcntl(2)`. Its third argument, where there is none, is not looked at.
///
/// # Safety
/// As `fcntl` asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: arguments as the program gave them.
    let outcome = unsafe { next::fcntl(fd, command, argument) };
    if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) { copied(fd, outcome) } else { outcome }
}

/// The same under the name that programs for large files use.
///
/// # Safety
/// As `fcntl` asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl64(fd: c_int, command: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: arguments as the program gave them.
    unsafe { fcntl(fd, command, argument) }
}

/// `write(2)`: to a setting, its new value. `EINVAL` if `lvsd` refuses it.
///
/// # Safety
/// `bytes` holds `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, len: size_t) -> ssize_t {
    match registry::get(fd) {
        // SAFETY: the caller gives `len` bytes.
        Some(Ours::Setting(name)) => unsafe { write_setting(&name, bytes.cast(), len) },
        Some(Ours::Socket(_)) => fail(Errno::OPNOTSUPP) as ssize_t,
        // SAFETY: arguments as the program gave them.
        None => unsafe { next::write(fd, bytes, len) },
    }
}

/// `open(2)`.
///
/// # Safety
/// `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: as the caller promises.
    match unsafe { table(path) } {
        Some(table) => open_table(&table, flags),
        // SAFETY: arguments as the program gave them.
        None => unsafe { next::open(path, flags, mode) },
    }
}

/// `open64(2)`.
///
/// # Safety
/// `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: as the caller promises.
    match unsafe { table(path) } {
        Some(table) => open_table(&table, flags),
        // SAFETY: arguments as the program gave them.
        None => unsafe { next::open64(path, flags, mode) },
    }
}

/// `openat(2)`.
///
/// # Safety
/// `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: as the caller promises.
    match unsafe { table(path) } {
        Some(table) => open_table(&table, flags),
        // SAFETY: arguments as the program gave them.
        None => unsafe { next::openat(folder, path, flags, mode) },
    }
}

/// `openat64(2)`.
///
/// # Safety
/// `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat64(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: as the caller promises.
    match unsafe { table(path) } {
        Some(table) => open_table(&table, flags),
        // SAFETY: arguments as the program gave them.
        None => unsafe { next::openat64(folder, path, flags, mode) },
    }
}

/// `access(2)`: what is ours can be read, and settings written. Who may do so is `lvsd`'s to say.
///
/// # Safety
/// `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn access(path: *const c_char, mode: c_int) -> c_int {
    // SAFETY: as the caller promises.
    match unsafe { table(path) } {
        Some(Table::Setting(_)) if mode & libc::X_OK == 0 => 0,
        Some(Table::Listing(_)) if mode & (libc::X_OK | libc::W_OK) == 0 => 0,
        Some(_) => fail(Errno::ACCESS),
        // SAFETY: arguments as the program gave them.
        None => unsafe { next::access(path, mode) },
    }
}

/// `stat(2)`: a regular file of no length, as files below `/proc` are.
///
/// # Safety
/// `path` is a C string, `into` takes a `struct stat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stat(path: *const c_char, into: *mut libc::stat) -> c_int {
    // SAFETY: as the caller promises.
    let Some(table) = (unsafe { table(path) }) else {
        // SAFETY: arguments as the program gave them.
        return unsafe { next::stat(path, into) };
    };
    // SAFETY: `struct stat` is plain numbers; all zero is valid.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    stat.st_mode = libc::S_IFREG | if matches!(table, Table::Setting(_)) { 0o644 } else { 0o444 };
    stat.st_nlink = 1;
    // SAFETY: the caller gives room for one.
    unsafe { into.write(stat) };
    0
}

/// `fopen(3)`.
///
/// # Safety
/// `path` and `mode` are C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: as the caller promises.
    match unsafe { table(path) } {
        // SAFETY: as the caller promises.
        Some(table) => unsafe { open_stream(&table, mode) },
        // SAFETY: arguments as the program gave them.
        None => unsafe { next::fopen(path, mode) },
    }
}

/// `fopen64(3)`.
///
/// # Safety
/// `path` and `mode` are C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: as the caller promises.
    match unsafe { table(path) } {
        // SAFETY: as the caller promises.
        Some(table) => unsafe { open_stream(&table, mode) },
        // SAFETY: arguments as the program gave them.
        None => unsafe { next::fopen64(path, mode) },
    }
}

/// Notes that `new`, if the call succeeded, is another name of `fd`.
fn copied(fd: c_int, new: c_int) -> c_int {
    if new >= 0 {
        registry::copy(fd, new);
    }
    new
}

/// # Safety
/// `path` is a C string or null.
unsafe fn table(path: *const c_char) -> Option<Table> {
    if path.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    tables::named(unsafe { CStr::from_ptr(path) }.to_bytes())
}

/// A descriptor for one of our files.
fn open_table(table: &Table, flags: c_int) -> c_int {
    result((|| {
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let setting = match table {
            Table::Setting(name) if writes => Some(name),
            Table::Listing(_) if writes => return Err(Errno::ACCESS),
            _ => None,
        };
        let reads = flags & libc::O_ACCMODE != libc::O_WRONLY;
        let text = if reads { tables::read(table)? } else { Vec::new() };
        let file = tables::in_memory(&text, flags & libc::O_CLOEXEC != 0)?;
        if let Some(name) = setting
            && !registry::insert(file.as_raw_fd(), Ours::Setting(name.as_str().into()))
        {
            return Err(Errno::MFILE);
        }
        Ok(file.into_raw_fd())
    })())
}

/// A stream for one of our files.
///
/// # Safety
/// `mode` is a C string.
unsafe fn open_stream(table: &Table, mode: *const c_char) -> *mut FILE {
    // SAFETY: as the caller promises.
    let mode_text = unsafe { CStr::from_ptr(mode) }.to_bytes();
    let cloexec = if mode_text.contains(&b'e') { libc::O_CLOEXEC } else { 0 };
    if mode_text.first() == Some(&b'r') && !mode_text.contains(&b'+') {
        let fd = open_table(table, libc::O_RDONLY | cloexec);
        // SAFETY: the descriptor is open and nobody else's; `mode` is a C string.
        return if fd < 0 { std::ptr::null_mut() } else { unsafe { libc::fdopen(fd, mode) } };
    }
    let Table::Setting(name) = table else {
        fail(Errno::ACCESS);
        return std::ptr::null_mut();
    };
    // The C library writes its streams by system calls of its own; a stream with functions of ours comes back here.
    let cookie = Box::into_raw(Box::new(name.clone()));
    let functions = CookieFunctions { read: None, write: Some(cookie_write), seek: None, close: Some(cookie_close) };
    // SAFETY: the functions expect the cookie they are given; the mode only writes.
    unsafe { fopencookie(cookie.cast(), c"w".as_ptr(), functions) }
}

/// # Safety
/// `bytes` holds `len` bytes.
unsafe fn write_setting(name: &str, bytes: *const u8, len: usize) -> ssize_t {
    // SAFETY: as the caller promises; a slice of nothing may not be made of null.
    let text = if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(bytes, len) } };
    match tables::write(name, text) {
        Ok(()) => ssize_t::try_from(len).unwrap_or(ssize_t::MAX),
        Err(error) => fail(error) as ssize_t,
    }
}

unsafe extern "C" fn cookie_write(cookie: *mut c_void, bytes: *const c_char, len: size_t) -> ssize_t {
    // SAFETY: the cookie is the boxed name given to `fopencookie`, alive until the stream is closed.
    let name = unsafe { &*cookie.cast::<String>() };
    // SAFETY: the C library gives `len` bytes. 0 is how a stream's function says that it failed.
    unsafe { write_setting(name, bytes.cast(), len) }.max(0)
}

unsafe extern "C" fn cookie_close(cookie: *mut c_void) -> c_int {
    // SAFETY: the cookie is the boxed name given to `fopencookie`; the stream ends with this call.
    drop(unsafe { Box::from_raw(cookie.cast::<String>()) });
    0
}

/// `cookie_io_functions_t` (fopencookie(3)).
#[repr(C)]
struct CookieFunctions {
    read: Option<unsafe extern "C" fn(*mut c_void, *mut c_char, size_t) -> ssize_t>,
    write: Option<unsafe extern "C" fn(*mut c_void, *const c_char, size_t) -> ssize_t>,
    seek: Option<unsafe extern "C" fn(*mut c_void, *mut libc::off64_t, c_int) -> c_int>,
    close: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
}

unsafe extern "C" {
    /// fopencookie(3).
    fn fopencookie(cookie: *mut c_void, mode: *const c_char, functions: CookieFunctions) -> *mut FILE;
}
