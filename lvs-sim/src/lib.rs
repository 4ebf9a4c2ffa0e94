//! A deterministic network simulator for LVS in Rust: hosts with real TCP stacks (smoltcp) around one
//! [`lvs_core::Director`], on links with delay, loss, duplication, reordering and corruption, under a virtual clock.
//!
//! The seed decides every accident: same seed, same packets, byte for byte. Nothing reads a clock, sleeps or starts a
//! thread, so minutes of network time take milliseconds, and what failed once fails again.
//!
//! ```
//! use lvs_core::Seed;
//! use lvs_sim::{Faults, HttpSite, Simulation};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut sim = Simulation::new(Seed::new(7));
//! let client = sim.client(&["198.51.100.7".parse()?]);
//! let web = sim.server(&["10.0.0.2".parse()?]);
//! sim.serve_http(web, 80, HttpSite::new("web1"));
//! sim.set_all_faults(Faults { loss_permille: 50, ..Faults::NONE });
//!
//! let request = sim.http_get(client, "10.0.0.2:80".parse()?);
//! sim.run_until_idle()?;
//!
//! assert!(sim.report(request).is_complete());
//! assert_eq!(sim.report(request).server.as_deref(), Some("web1"));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod client;
mod conversation;
mod device;
pub mod dialogue;
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
