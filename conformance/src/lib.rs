//! Recorded behaviour of Linux IPVS, and the runner that replays it through `lvs-core`.
//!
//! A recording ("golden", `goldens/*.json`) holds the packets and commands a Linux director was given, when, and
//! everything it emitted and printed. [`replay::replay`] builds the same laboratory around a [`lvs_core::Director`], does the
//! same things at the same (virtual) times and reports each step at which the outcome differs.
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
#![forbid(unsafe_code)]

pub mod administrator;
pub mod compare;
pub mod corpus;
pub mod datagram;
pub mod describe;
pub mod exceptions;
pub mod golden;
pub mod lab;
pub mod replay;
pub mod sysctl;
