//! AF_PACKET sockets for LVS in Rust: a director on an Ethernet device, beside the host's own stack. Memory-mapped
//! receive rings, super-packets of up to 64 KiB passed through unsplit, ARP and Neighbor Discovery for the virtual
//! addresses. Linux only; needs CAP_NET_RAW.
//!
//! [`AfPacketDevice`] is the device, [`AfPacketOptions`] says who the director is on its link. The kernel keeps
//! receiving what the director receives: it must own no virtual address and forward nothing ([`check`]). [`Delivery`]
//! is the choice between a short delay and less work for each packet; the crate's README has the figures.
#![deny(missing_docs)]

mod addresses;
mod bell;
pub mod check;
mod device;
mod error;
mod fanout;
mod guard;
mod mmap;
mod open;
mod ring;
mod sink;
mod socket;
mod source;

pub use addresses::AddressesHandle;
pub use device::{AfPacketDevice, AfPacketOptions};
pub use error::{AfPacketError, Step};
pub use ring::Delivery;
pub use sink::{SinkCounters, SinkCountersHandle};
pub use socket::{netns_cookie, receive_nothing};
pub use source::{SourceCounters, SourceCountersHandle};

/// The README's example compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
