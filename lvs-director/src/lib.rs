//! `lvsd`, the LVS in Rust daemon, as a library: `main.rs` only reads the command line and calls what is here, and
//! the tests call it too.
//!
//! | module | what it is |
//! |---|---|
//! | [`args`] | the command line |
//! | [`capacity`] | how much its directors hold, and how they defend it |
//! | [`demo`] | `lvsd demo`: real HTTP through a director, in namespaces of its own |
//! | [`run`] | `lvsd run`: a director in the foreground, on TUN or Ethernet devices |
//! | [`realserver`] | `lvsd realserver`: the other end of direct routing |
//! | [`control`] | the control socket: driven while it runs |
//! | [`devices`] | its devices: TUN, or Ethernet by AF_PACKET |
//! | [`rules`] | the reader of `ipvsadm-save` files |
//! | [`listing`] | a director's tables, as `ipvsadm -Ln` prints them |
//! | [`denied`] | what the operating system refused, and what helps |
//! | [`say`] | results on standard output, all else on standard error |
//! | [`http`] | the demo's small HTTP client and server |
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod args;
pub mod capacity;
mod claim;
pub mod control;
pub mod demo;
pub mod denied;
pub mod devices;
pub mod http;
pub mod listing;
mod loss;
pub mod realserver;
pub mod rules;
pub mod run;
pub mod say;
mod threads;
mod warnings;
