//! TUN devices for LVS in Rust: opened by name or from a descriptor, IPv4 and IPv6, several queues, and super-packets
//! of up to 64 KiB passed through unsplit. Linux only.
//!
//! [`TunQueue`] is the device; [`netdev`] gives it addresses and routes, [`netns`] puts it into a namespace of its own.
#![deny(missing_docs)]

mod error;
mod halves;
pub mod netns;
mod queue;
mod sys;

pub use lvs_io::netdev;

pub use error::{Step, TunError};
pub use queue::{TunOffloads, TunOptions, TunQueue};

/// The README's example compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
