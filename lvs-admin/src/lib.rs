//! ipvsadm's grammar and listings: text in, text out.
//!
//! An argument list becomes a [`Request`] ([`parse`]), a file of rules a list of commands ([`parse_rules`]); what a
//! director holds becomes the texts of `ipvsadm -L` and `-S` ([`list`], [`list_connections`], [`save`]) and of
//! `/proc/net/ip_vs*` ([`proc`]). What leads from one configuration to another is a list of commands ([`difference`]).
//! Whatever ipvsadm 1.31 answers by itself is answered here in its words and with its exit status ([`UsageError`]);
//! whatever it asks the kernel is left to [`lvs_core::Director::apply`], whose [`lvs_core::ControlError`] it ends with
//! status 255. Nothing here reads a file, a socket or the environment.
//!
//! ```
//! use lvs_admin::{Request, parse};
//!
//! let Ok(Request::Apply(command)) = parse(&["-a", "-t", "192.0.2.80:80", "-r", "10.0.0.2:8080", "-m"]) else {
//!     panic!("a valid command");
//! };
//! assert!(matches!(command, lvs_core::Command::AddServer(..)));
//! ```
#![forbid(unsafe_code)]

mod additions;
mod command_line;
mod difference;
mod label;
mod listing;
mod names;
mod options;
mod order;
mod packet;
mod parse;
pub mod proc;
mod request;
mod rules;
mod usage;
pub mod words;

pub use command_line::command_line;
pub use difference::{Configured, difference};
pub use listing::{list, list_connections, list_daemons, list_timeouts};
pub use names::Names;
pub use order::sort;
pub use packet::packet;
pub use parse::{parse, parse_with_names};
pub use request::{Columns, ListOptions, Listing, Request, SyncDaemon, SyncRole, UsageError};
pub use rules::{RulesError, SaveOptions, parse_rules, restore, save, split_words};
pub use usage::{usage, version};

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;
