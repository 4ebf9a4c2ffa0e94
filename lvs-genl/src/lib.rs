//! The control protocol of LVS in Rust: the messages of Linux's IPVS generic-netlink family, both ways, so that stock
//! ipvsadm and keepalived drive a director that is no kernel's. Bytes in, bytes out: no sockets, no threads, no `std`.
//!
//! ```
//! use lvs_core::{Command, Director, DirectorConfig, Instant, Protocol, Seed, ServiceConfig, ServiceKey};
//! use lvs_genl::client::{Client, Reply};
//! use lvs_genl::convert::Request;
//! use lvs_genl::server::{Access, Master, Session, SyncDaemons};
//!
//! let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
//! let mut daemons = SyncDaemons::default();
//! let mut table = Master::new(&mut director, &mut daemons, Instant::ZERO);
//!
//! let web = ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse().unwrap());
//! let mut client = Client::new(4711);
//! let add = Request::of_command(&Command::AddService(web, ServiceConfig::new("rr"))).unwrap();
//!
//! let mut session = Session::new(Access::Full);
//! session.receive(&client.request(&add)).unwrap();
//! let mut answer = Vec::new();
//! session.next_datagram(&mut table, &mut answer);
//! assert_eq!(client.replies(&answer).next(), Some(Ok(Reply::Ack)));
//! assert!(director.service(Instant::ZERO, &web).is_some());
//! ```
//!
//! # Where things are
//!
//! | module | what |
//! |---|---|
//! | [`wire`] | messages and attributes, of any family |
//! | [`ctrl`] | how families are found |
//! | [`ipvs`] | the IPVS family, attribute by attribute |
//! | [`additions`] | attributes for what IPVS never had |
//! | [`lvs`] | a family of our own: drains, settings, connections |
//! | [`convert`] | messages to commands, configurations and views, and back |
//! | [`server`] | the director's end: sessions, and the table behind them |
//! | [`client`] | the asking end |
//! | [`errno`] | why a request is refused |
//!
//! The framing is written here because the netlink crates there are (`netlink-packet-core` 0.9, `neli` 0.7) need `std`.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod additions;
pub mod client;
pub mod convert;
pub mod ctrl;
pub mod errno;
pub mod ipvs;
pub mod lvs;
pub mod server;
pub mod wire;

pub use errno::Errno;

/// The examples of the crate's README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
