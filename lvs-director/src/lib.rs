//! `lvsd`, the LVS in Rust daemon, as a library: `main.rs` only reads the command line and calls what is here, and
//! the tests call it too.
//!
//! | module | what it is |
//! |---|---|
//! | [`args`] | the command line |
//! | [`configuration`] | the configuration file, the command line above it, and `lvsd check` |
//! | [`address_owner`] | whose the virtual addresses are |
//! | [`capacity`] | how much its directors hold, and how they defend it |
//! | [`demo`] | `lvsd demo`: real HTTP through a director, in namespaces of its own |
//! | [`run`] | `lvsd run`: a director in the foreground, on TUN or Ethernet devices |
//! | [`realserver`] | `lvsd realserver`: the other end of direct routing |
//! | [`files`] | the files that configure a running `lvsd`, read together |
//! | [`control`] | the control socket: driven while it runs |
//! | [`devices`] | its devices: TUN, or Ethernet by AF_PACKET |
//! | [`host_rules`] | how the host is kept from answering for services at its own addresses |
//! | [`rules`] | the reader of `ipvsadm-save` files |
//! | [`listing`] | a director's tables, as `ipvsadm -Ln` prints them |
//! | [`denied`] | what the operating system refused, and what helps |
//! | [`say`], [`log`] | results on standard output, all else on standard error; for people, or as JSON |
//! | [`report`] | what `lvsd run` prints of itself |
//! | [`seed`] | the secret that hashes begin with |
//! | [`web`] | what operators look at, by HTTP: metrics, JSON, a page |
//! | [`http`] | the demo's small HTTP client and server |
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod address_owner;
pub mod args;
pub mod capacity;
mod claim;
pub mod configuration;
pub mod control;
pub mod demo;
pub mod denied;
pub mod devices;
pub mod files;
pub mod host_rules;
pub mod http;
pub mod listing;
pub mod log;
mod loss;
mod notify;
pub mod pages;
mod privileges;
pub mod realserver;
pub mod report;
pub mod rules;
pub mod run;
pub mod say;
pub mod seed;
mod state;
mod supervisor;
mod threads;
mod warnings;
pub mod web;
