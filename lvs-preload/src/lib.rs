//! Lets stock programs drive `lvsd`: loaded before the C library (`LD_PRELOAD`), it takes the place of the calls by which
//! `ipvsadm` and `keepalived` reach the kernel's IPVS.
//!
//! - A generic-netlink socket becomes a connection to `lvsd`'s control socket, which speaks the same messages. Every
//!   other socket, of every other netlink family too, is left alone.
//! - `/proc/net/ip_vs*` and `/proc/sys/net/ipv4/vs/*` are read from `lvsd`, and the latter written to it.
//!
//! `lvsadm exec -- COMMAND…` sets it up. `LVS_CONTROL` names the control socket; without it `/run/lvs/control.sock` is meant.
//!
//! | file | what it decides |
//! |---|---|
//! | `hooks/sockets.rs`, `hooks/files.rs` | the C functions that programs call in place of the C library's |
//! | `next.rs` | the C library's own functions, to go on with |
//! | `registry.rs` | which descriptors are ours |
//! | `conversation.rs` | one netlink socket: requests, answers, and what happens when `lvsd` goes away |
//! | `control.rs` | the control socket: dialling, redialling |
//! | `netlink.rs` | the few bytes of netlink that this library reads or makes up |
//! | `tables.rs` | files below `/proc` that are `lvsd`'s |
//!
//! This is the one crate of the project that is `unsafe` by its nature: its callers are C programs.

mod control;
mod conversation;
mod hooks;
mod netlink;
mod next;
mod registry;
mod tables;

/// Called by the loader before the program starts.
///
/// keepalived runs scripts of its user's (MISC_CHECK, notify). They are no business of this library, so they do not
/// inherit it; keepalived's own children are forks and keep it.
extern "C" fn start() {
    let program = std::fs::read("/proc/self/comm").unwrap_or_default();
    if program.starts_with(b"keepalived") {
        // SAFETY: the loader calls this before `main`, while the process has one thread: nobody reads the environment.
        unsafe { std::env::remove_var("LD_PRELOAD") };
    }
}

// SAFETY: the section holds pointers to functions that the loader calls with C's calling convention; `start` is one and
// ignores the arguments it is given.
#[unsafe(link_section = ".init_array")]
#[used]
static START: extern "C" fn() = start;
