//! Recorded behaviour of Linux IPVS, and the runner that replays it through `lvs-core`.
//!
//! A recording ("golden", `goldens/*.json`) holds the packets and commands a Linux director was given, when, and
//! everything it emitted and printed. [`replay::replay`] builds the same laboratory around a [`lvs_core::Director`],
//! does the same things at the same (virtual) times and reports each step at which the outcome differs.
//!
//! ```
//! use lvs_conformance::golden::Golden;
//! use lvs_conformance::replay::replay;
//!
//! # fn main() -> Result<(), String> {
//! let golden = Golden::parse(r#"{"name": "small", "topic": "nat", "about": "one request", "format": 1,
//!     "net": {"vips": ["10.0.0.1"], "rs": ["10.1.0.1"], "client_mtu": 1500, "rs_mtu": 1500,
//!             "cip4": "192.0.2.1", "cip6": "2001:db8:c::1", "dip4": "10.1.255.254", "dip6": "fd01::ff"},
//!     "sysctl": {}, "setup": ["-A -u 10.0.0.1:53 -s rr", "-a -u 10.0.0.1:53 -r 10.1.0.1:53 -m"],
//!     "steps": [{"from": "client", "t_ms": 1, "packet": "4500001c000100004011aec8c00002070a0000010400003500082fa1",
//!         "out": [{"to": "rs", "rs": 0, "packet": "4500001c000100003f11afc7c00002070a0100010400003500082fa0"}]}]}"#)?;
//! let failures = replay(&golden)?;
//! assert!(failures.is_empty(), "{failures:?}");
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it decides |
//! |---|---|
//! | [`golden`] | what a recording says |
//! | [`lab`] | how the recorder's network looks around a director |
//! | [`administrator`], [`sysctl`] | what ipvsadm, sysctls and /proc are here |
//! | [`replay`] | when things happen |
//! | [`compare`] | what counts as the same |
//! | [`datagram`] | which datagram fragments make |
//! | [`describe`] | how packets look in a report |
//! | [`exceptions`] | which steps are not compared, and why |
//! | [`corpus`] | which recordings there are |
//! | [`netlink`] | recorded conversations of the control plane, held against `lvs-genl` |
#![forbid(unsafe_code)]

pub mod administrator;
pub mod compare;
pub mod corpus;
pub mod datagram;
pub mod describe;
pub mod exceptions;
pub mod golden;
pub mod lab;
pub mod netlink;
pub mod replay;
pub mod sysctl;
