//! What every I/O backend of LVS in Rust shares: the traits a device implements ([`PacketSource`], [`PacketSink`]),
//! the [`Worker`] loop that joins devices to a director, clocks, and an in-memory device for tests.
//!
//! Nothing here knows a kind of device; `lvs-io-tun` and `lvs-io-afpacket` do.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod batch;
pub mod classify;
pub mod clock;
pub mod control;
pub mod describe;
pub mod device;
mod egress;
pub mod faults;
pub mod host;
mod host_network;
pub mod l2;
mod links;
pub mod memory;
pub mod netdev;
mod netlink;
pub mod pcap;
pub mod prefix;
pub mod segment;
pub mod share;
pub mod steer;
pub mod tap;
pub mod vnet;
pub mod worker;

pub use batch::BatchBuffers;
pub use clock::{Clock, ManualClock, MonotonicClock};
pub use control::{WorkerGone, WorkerHandle};
pub use describe::Describe;
pub use device::{Arm, BATCH, PacketSink, PacketSource, SinkOffloads};
pub use host::{Host, HostConfig, HostCounters, Transmit};
pub use memory::MemoryPort;
pub use prefix::Prefix;
pub use segment::segment;
pub use share::share;
pub use steer::Steering;
pub use worker::{ArmCounters, Counters, OnPass, Worker};
