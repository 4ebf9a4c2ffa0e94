//! Linux Virtual Server (IPVS) as a library: a *director* owns virtual addresses, picks a *real server* for each new
//! connection, remembers the connection and rewrites packets in place.
//!
//! Pure logic over byte buffers: no clock, no sockets, no files, no randomness of its own, no `unsafe`, no `std`.
//! Packets, commands and the time go in; verdicts, rewritten bytes and events come out. A run is
//! `(config, seed, [(now, packet | command | timeout)])` and replays byte for byte.
//!
//! # A NAT director
//!
//! ```
//! use lvs_core::{Command, Director, DirectorConfig, HEADROOM, Instant, PacketBuf, Protocol, Seed, Verdict};
//! use lvs_core::{ServerConfig, ServiceConfig, ServiceKey};
//!
//! let mut director = Director::new(DirectorConfig::default(), Seed::new(0x5eed));
//! let web = ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse().unwrap());
//! director.apply(Instant::ZERO, &Command::AddService(web, ServiceConfig::new("rr"))).unwrap();
//! let server = ServerConfig::nat("10.0.0.2:8080".parse().unwrap());
//! director.apply(Instant::ZERO, &Command::AddServer(web, server)).unwrap();
//!
//! // A SYN from 198.51.100.7:1024 to 192.0.2.80:80, as a device would deliver it.
//! let syn: [u8; 40] = [
//!     0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0x8e, 0x44, 198, 51, 100, 7, 192, 0, 2, 80, // IPv4
//!     4, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0xbf, 0x06, 0, 0, // TCP
//! ];
//! let mut storage = [0; HEADROOM + 40];
//! storage[HEADROOM..].copy_from_slice(&syn);
//! let mut packet = PacketBuf::new(&mut storage, HEADROOM, syn.len());
//!
//! let verdict = director.handle_packet(Instant::ZERO, &mut packet);
//! assert!(matches!(verdict, Verdict::Forward { next_hop, .. } if next_hop.to_string() == "10.0.0.2"));
//! assert_eq!(packet.bytes()[16..20], [10, 0, 0, 2]); // rewritten in place, checksums kept right
//! assert_eq!(director.connection_count(Instant::ZERO), 1);
//! ```
//!
//! # The contract
//!
//! - Call [`Director::handle_packet`] (or [`Director::handle_batch`]) for every packet, [`Director::handle_timeout`]
//!   when [`Director::poll_timeout`] says so, [`Director::apply`] for changes, and do what the [`Verdict`] says.
//!   After each, empty [`Director::poll_transmit`] and [`Director::poll_event`].
//! - Nothing else moves time, and nothing else decides: the same calls give the same bytes, on every machine.
//! - [`Verdict::Pass`] and [`Verdict::Drop`] leave the packet's bytes as they came; every drop has a [`DropReason`]
//!   and is counted.
//! - A packet of a known connection costs no allocation. Every table has a bound in [`DirectorConfig`].
//! - [`Director::explain`] tells, step by step, what would happen to a packet and why, and changes nothing.
//!
//! # How much memory
//!
//! A director reserves the memory of its tables when it is made; [`DirectorConfig::reserved_bytes`] says how much that is
//! for a configuration, almost all of it for connections. On a 64-bit machine it is 257 bytes a connection and 20 MB for
//! the default of 65,536 (`cargo test -p lvs-core --test reserve -- --nocapture` prints both, as the allocator counts
//! them). What comes later is allocated when it comes: services and servers, payload of fragments up to
//! `fragment_bytes_max`, events up to `events_max`, what FullNAT, helpers and persistence keep beside a connection.
//!
//! For a small machine set `connections_max`, `templates_max`, `fragments_max` and `fragment_bytes_max`, compare
//! `reserved_bytes` with what the machine has, and make the director by [`Director::try_new`], which reports that the
//! allocator does not give as much; [`Director::new`] panics. A hundred connections fit into 64 KiB.
//!
//! # Limits
//!
//! - A packet is as long as its IP header says: at most 65,535 bytes (IPv6: 65,575). A super-packet that is longer and
//!   says 0 (BIG TCP) is [`DropReason::MalformedIp`]: set the devices' `gso_max_size` and `gro_max_size` to 65,536.
//! - From IPv6 to IPv4 (NAT64) go packets without extension headers but a fragment header. Those with hop-by-hop or
//!   destination options or a finished routing header, which RFC 7915 §5.1 skips, are [`DropReason::NotForwardable`].
//! - A timer is filed in steps, so [`Director::poll_timeout`] may be up to 17 ms late. Until then what has ended has ended
//!   all the same: no packet matches it and no listing shows it. But it has its place in its table, and its server counts
//!   it; [`Director::explain`] sees what `handle_packet` would see.
//! - A part of a datagram that is missing cannot be told from the same part of the next datagram with the same
//!   identification (RFC 4963): what comes first is taken.
//!
//! # Where things are
//!
//! | module | what |
//! |---|---|
//! | [`director`] | the director, its configuration and verbs |
//! | [`packet`], [`verdict`], [`drop_reason`] | what goes in with a packet and what comes out |
//! | [`service`], [`command`], [`settings`], [`error`] | what an operator configures, in ipvsadm's words |
//! | [`local_address`] | the director's own endpoints towards servers, for FullNAT |
//! | [`scheduler`] | which server gets a new connection; bring your own |
//! | [`connection`] | protocol states and timeouts |
//! | [`persistence`], [`helper`] | engines and helpers that read payloads: SIP, FTP; bring your own helper |
//! | [`view`], [`event`], [`explanation`] | reading the tables, being told, asking why |
//! | [`snapshot`] | connections and what is counted, as bytes that outlive a restart |
//! | [`answer_limit`] | how many ICMP errors and RSTs may be sent |
//! | [`fragment`] | putting fragmented datagrams together, within bounds |
//! | [`tunnel`] | IPIP, GRE and GUE, both ends: a real server without kernel tunnels can use it |
//! | [`wire`] | parsing, rewriting and checksums, useful by themselves |
//! | [`time`], [`rng`], [`flow`], [`hash`] | the words they all share |
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod answer_limit;
mod client_group;
pub mod command;
pub mod connection;
mod defence;
pub mod director;
pub mod drop_reason;
pub mod error;
pub mod event;
pub mod explanation;
pub mod flow;
mod forward;
pub mod fragment;
pub mod hash;
pub mod helper;
pub mod local_address;
pub mod packet;
pub mod persistence;
mod reserve;
pub mod rng;
pub mod scheduler;
pub mod service;
pub mod settings;
pub mod snapshot;
pub mod time;
pub mod tunnel;
pub mod verdict;
pub mod view;
pub mod wire;

pub use command::{AfterDrain, Command};
pub use director::{Director, DirectorConfig, HalfOpenPolicy, Side};
pub use drop_reason::DropReason;
pub use error::ControlError;
pub use event::Event;
pub use explanation::Explanation;
pub use flow::{AddressFamily, Endpoint, Protocol};
pub use helper::{Helper, HelperRegistry};
pub use packet::{ChecksumOffload, Gso, GsoKind, HEADROOM, Offload, PacketBuf};
pub use reserve::OutOfMemory;
pub use rng::Seed;
pub use scheduler::{Scheduler, SchedulerRegistry};
pub use service::{
    ForwardMethod, Netmask, OnServerGone, ServerConfig, ServerKey, ServiceConfig, ServiceKey, ServiceTimeouts,
};
pub use settings::Settings;
pub use time::Instant;
pub use verdict::{Direction, Verdict};

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;
