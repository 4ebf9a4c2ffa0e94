//! Packet builder, generators and naive oracles for the tests of LVS in Rust.
//!
//! Packets are built on `etherparse`, which shares no code with `lvs-core`; [`oracle`] checks what comes out by the
//! plainest arithmetic there is; [`Desk`] is a director with a clock; [`strategy`] makes packets for property tests;
//! [`describe()`] prints one in a line. With the feature `network`: namespaces of the kernel, joined by switches.
//!
//! ```
//! use lvs_testkit::{describe, tcp};
//! let packet = tcp("203.0.113.7:1024", "192.0.2.1:80").syn().payload(b"early").build();
//! assert_eq!(
//!     describe(&packet),
//!     "203.0.113.7.1024 > 192.0.2.1.80 TCP S seq=1000 ack=0 pl=5 id=4660 ttl=64 len=45"
//! );
//! ```

pub mod conversation;
mod describe;
pub mod desk;
pub mod fuzz;
#[cfg(feature = "control")]
pub mod fuzz_control;
pub mod model;
#[cfg(feature = "network")]
pub mod network;
pub mod oracle;
mod packet;
pub mod scheduler;
#[cfg(feature = "served")]
pub mod served;
mod storage;
pub mod strategy;

pub use describe::describe;
pub use desk::{Desk, Outcome};
pub use packet::{End, Packet, icmp, icmp_error, raw, sctp, tcp, udp};
pub use storage::Storage;
