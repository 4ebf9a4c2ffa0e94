//! Linux Virtual Server (IPVS) as a library: a *director* owns virtual addresses, picks a *real server* for each new
//! connection, remembers the connection and rewrites packets in place.
//!
//! Pure logic over byte buffers: no clock, no sockets, no files, no randomness of its own, no `unsafe`, no `std`.
//! Packets, commands and the time go in; verdicts, rewritten bytes and events come out. A run is
//! `(config, seed, [(now, packet | command | timeout)])` and replays byte for byte.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod command;
pub mod connection;
pub mod director;
pub mod drop_reason;
pub mod error;
pub mod event;
pub mod explanation;
pub mod flow;
mod forward;
mod fragment;
pub mod hash;
pub mod packet;
pub mod persistence;
pub mod rng;
pub mod scheduler;
pub mod service;
pub mod settings;
pub mod time;
pub mod verdict;
pub mod view;
pub mod wire;

pub use command::Command;
pub use director::{Director, DirectorConfig, Side};
pub use drop_reason::DropReason;
pub use error::ControlError;
pub use event::Event;
pub use explanation::Explanation;
pub use flow::{AddressFamily, Endpoint, Protocol};
pub use packet::{ChecksumOffload, Gso, GsoKind, HEADROOM, Offload, PacketBuf};
pub use rng::Seed;
pub use scheduler::{Scheduler, SchedulerRegistry};
pub use service::{ForwardMethod, Netmask, ServerConfig, ServerKey, ServiceConfig, ServiceKey};
pub use settings::Settings;
pub use time::Instant;
pub use verdict::{Direction, Verdict};
