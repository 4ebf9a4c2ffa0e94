//! `lvsd`, the LVS in Rust daemon, as a library: `main.rs` only reads the command line and calls what is here, and
//! the tests call it too.
//!
//! | module | what it is |
//! |---|---|
//! | [`args`] | the command line |
//! | [`demo`] | `lvsd demo`: real HTTP through a director, in namespaces of its own |
//! | [`denied`] | what the operating system refused, and what helps |
//! | [`http`] | the demo's small HTTP client and server |
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod args;
pub mod demo;
pub mod denied;
pub mod http;
