//! A running `lvsd`, asked over its control socket: what `lvsadm` and the preload library are built on, for programs of
//! your own too.
//!
//! ```no_run
//! use lvs_client::Running;
//! use lvs_core::{Command, Protocol, ServiceConfig, ServiceKey};
//!
//! let mut running = Running::connect(&lvs_client::socket::path(None))?;
//! let web = ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse().unwrap());
//! running.apply(&Command::AddService(web, ServiceConfig::new("wlc")))?;
//! for service in running.services()? {
//!     println!("{:?}", service.key);
//! }
//! # Ok::<(), lvs_client::Trouble>(())
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod daemon;
mod director;
pub mod socket;

pub use director::{Running, Trouble};
