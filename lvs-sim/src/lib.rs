//! A deterministic network simulator for LVS in Rust: hosts with real TCP stacks (smoltcp) around one
//! [`lvs_core::Director`], on links with delay, loss, duplication, reordering and corruption, under a virtual clock.
//!
//! The seed decides every accident: same seed, same packets, byte for byte. Nothing reads a clock, sleeps or starts a
//! thread, so minutes of network time take milliseconds, and what failed once fails again.
//!
//! ```
//! use lvs_core::{Command, Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey};
//! use lvs_sim::{Faults, HttpSite, Simulation};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut sim = Simulation::new(Seed::new(7));
//! let client = sim.client(&["198.51.100.7".parse()?]);
//! let service = ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse()?);
//! sim.apply(&Command::AddService(service, ServiceConfig::new("rr")))?;
//! for (name, address) in [("web1", "10.0.0.1"), ("web2", "10.0.0.2")] {
//!     let server = sim.server(&[address.parse()?]);
//!     sim.serve_http(server, 80, HttpSite::new(name));
//!     sim.apply(&Command::AddServer(service, ServerConfig::nat(format!("{address}:80").parse()?)))?;
//! }
//! sim.set_all_faults(Faults { loss_permille: 50, ..Faults::NONE });
//!
//! let requests = [(); 4].map(|()| sim.http_get(client, "192.0.2.80:80".parse().unwrap()));
//! sim.run_until_idle()?;
//! assert!(requests.iter().all(|request| sim.report(*request).is_complete()));
//! assert!(requests.iter().any(|request| sim.report(*request).server.as_deref() == Some("web2")));
//! # Ok(())
//! # }
//! ```
//!
//! A failing run is looked at with [`Simulation::capture`]: the packets of any link as a file for Wireshark. Power
//! cuts, commands and cut cables come with [`Simulation::after`], strangers' packets with [`Flood`] and
//! [`Simulation::inject`], protocols of your own with [`Dialogue`].
//!
//! Compile it with some optimisation, `opt-level = 1` in `[profile.dev]`: two TCP stacks that push megabytes take minutes
//! without.
//!
//! What is not real: hosts answer at once, as if thinking took no time, links lead from each host straight to the
//! director, and smoltcp's TCP has neither selective acknowledgements nor path MTU discovery.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod client;
mod conversation;
mod device;
mod dialogue;
mod director_node;
mod fin_keeper;
mod flood;
mod host;
mod link;
mod network;
mod packet;
mod pcap;
mod schedule;
mod service;
mod session;
mod simulation;
mod udp_echo;

pub use conversation::{Conversation, ConversationId, Outcome, Report};
pub use dialogue::Dialogue;
pub use dialogue::http::HttpSite;
pub use director_node::VerdictCounters;
pub use flood::Flood;
pub use link::{Faults, Link, LinkCounters};
pub use lvs_io::OnPass;
pub use packet::syn;
pub use simulation::{HostId, Simulation, StepsExhausted};

/// The README's example compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
