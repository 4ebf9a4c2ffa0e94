//! What every I/O backend of LVS in Rust shares. Nothing here knows a kind of device; `lvs-io-tun` and
//! `lvs-io-afpacket` do.
//!
//! | part | what it is |
//! |---|---|
//! | [`PacketSource`], [`PacketSink`], [`Arm`] | the two halves of a device, and both together |
//! | [`Worker`], [`WorkerHandle`] | the loop that joins one or two devices to a director, and its remote control |
//! | [`Host`] | answers and routes where no host stands behind the director |
//! | [`Steering`], [`share()`] | several workers on one device, each client with one of them |
//! | [`l2`], [`netdev`] | Ethernet: ARP, Neighbor Discovery, VLANs; addresses, routes and links of the host |
//! | [`tap`], [`pcap`], [`faults`], [`classify`] | `Arm::with_…`: see, keep, spoil and mark what a device carries |
//! | [`BatchBuffers`], [`MemoryPort`] | for those who write devices, and their tests |
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod batch;
pub mod classify;
pub mod clock;
pub mod control;
pub mod counters;
pub mod describe;
pub mod device;
mod egress;
pub mod exits;
pub mod faults;
pub mod host;
mod host_network;
mod known;
pub mod l2;
mod link_watch;
mod links;
mod loss;
pub mod memory;
pub mod netdev;
mod netlink;
pub mod networks;
pub mod pcap;
pub mod prefix;
pub mod share;
pub mod steer;
pub mod tap;
mod tunnel_end;
pub mod vnet;
pub mod worker;

pub use batch::BatchBuffers;
pub use clock::{Clock, ManualClock, MonotonicClock};
pub use control::{WorkerGone, WorkerHandle};
pub use counters::{ArmCounters, Counters, JobCounters};
pub use describe::Describe;
pub use device::{Arm, BATCH, DeviceState, PacketSink, PacketSource, SinkFn, SinkOffloads};
pub use egress::{Egress, Sent};
pub use exits::{Exits, OnPass};
pub use host::{Host, HostConfig, HostCounters, Transmit};
pub use known::{AddressChange, AddressRole};
pub use link_watch::{Link, LinkWatch};
pub use loss::{DeviceChange, DeviceLost, OnDeviceLoss};
pub use memory::MemoryPort;
pub use networks::Networks;
pub use prefix::Prefix;
pub use share::share;
pub use steer::Steering;
pub use tunnel_end::EndCountersHandle;
pub use worker::Worker;

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;
