//! Schedulers: which real server gets a new connection. One file each; the file list is the index.
//! A scheduler knows neither packets nor connections, only servers and who asks. Each file opens with the rule in one
//! formula. The choices are Linux's, server for server; how they are found is not: see "What a choice costs".
//!
//! # Which scheduler when
//!
//! | You have | Take | Because |
//! |---|---|---|
//! | no idea yet | [`wlc`] | IPVS's default: balances whatever lives longer than a moment, by weight |
//! | many short requests of like cost | [`rr`], [`wrr`] | even by count, blind to load; nothing is cheaper or easier to predict |
//! | long connections on like servers | [`lc`] | `wlc` without weights |
//! | few long TCP connections on unlike servers | [`sed`] | the strong servers are filled first |
//! | the same, and nobody should wait while a server idles | [`nq`] | an idle server first, then as `sed` |
//! | UDP | [`wlc`], [`wrr`], [`sh`], [`mh`] | `sed`, `nq` and `ovf` count active connections, and UDP has none |
//! | state on the servers, keyed by client | [`mh`] | a client stays with its server; few move when servers come and go |
//! | the same, to agree with a Linux director that runs it | [`sh`] | a client stays, but most move when the list changes |
//! | several directors without synchronisation | [`mh`] | equal configuration gives equal tables |
//! | caches or proxies behind a firewall mark | [`lblc`], [`lblcr`] | a destination stays with its cache; `lblcr` lets popular ones have several |
//! | the same, and nothing but the address may decide | [`dh`] | a fixed table, no fallback |
//! | a main server and stand-ins | [`fo`] | the heaviest takes all; the next when it is quiesced or over its threshold |
//! | servers to be filled one after another | [`ovf`] | weight is the number of connections before the next is used |
//! | many directors sending to the same servers | [`twos`] | random enough that they do not all run after the same server |
//! | a service to be switched off | [`none`] | refuses every new connection |
//! | another rule | your own [`Scheduler`] | register it in a [`SchedulerRegistry`]; see `examples/custom_scheduler.rs` |
//!
//! Of all of them:
//!
//! * The list of servers is **newest first**, and ties go to the first in the list: the server added last.
//! * Weight 0 (quiesced) and a passed upper threshold (overloaded) end new connections; existing ones go on.
//! * If no server can be had, Linux does not look for another scheduler, it refuses the client.
//!   The hashing ones (`sh`, `dh`, `mh`) refuse clients of a dead server although others are alive, unless told to fall
//!   back.
//! * A server that was just added has no connections, so the least-connection ones send it everything until it has
//!   caught up: see [slow start](crate::service::effective_weight).
//! * Persistence comes before the scheduler: a client with a template is not scheduled.
//!
//! # What a choice costs
//!
//! Nanoseconds for one connection as a scheduler sees it (the choice, and four counts that move: opened, active, not
//! active, closed), by number of servers; in brackets the plain linear scan of the same run, where there is one.
//! Servers have weights 1 to 5, in "steep" one has 1,000 and the others 1.
//!
//! | | 10 | 100 | 1,000 | 10,000 | scan ÷ choice at 1,000 |
//! |---|---|---|---|---|---|
//! | `rr` | 29 (23) | 37 (54) | 39 (390) | 37 (4,147) | 10.0 |
//! | `wrr` | 45 (23) | 42 (22) | 38 (23) | 40 (21) | 0.6 |
//! | `wrr steep` | 84 (38) | 60 (104) | 61 (561) | 41 (881) | 9.2 |
//! | `lc` | 68 (53) | 246 (484) | 260 (2,996) | 471 (43,802) | 11.5 |
//! | `wlc` | 80 (81) | 231 (682) | 349 (6,590) | 518 (63,751) | 18.9 |
//! | `sed` | 69 (82) | 137 (553) | 163 (4,699) | 264 (52,259) | 28.8 |
//! | `nq` | 92 (70) | 150 (705) | 140 (4,266) | 278 (56,646) | 30.4 |
//! | `fo` | 79 (58) | 44 (365) | 51 (2,762) | 45 (33,846) | 54.1 |
//! | `ovf` | 76 (30) | 50 (176) | 99 (1,731) | 113 (16,205) | 17.5 |
//! | `dh` | 27 | 20 | 22 | 25 | |
//! | `sh` | 27 | 20 | 25 | 21 | |
//! | `mh` | 37 | 49 | 28 | — | |
//! | `lblc` | 161 | 220 | 158 | 578 | |
//! | `lblcr` | 138 | 228 | 165 | 862 | |
//! | `twos` | 125 (100) | 91 (271) | 102 (2,316) | 191 (28,330) | 22.6 |
//!
//! Microseconds for adding a server at the head and deleting it again / for editing a weight:
//!
//! | | 10 | 100 | 1,000 | 10,000 |
//! |---|---|---|---|---|
//! | `rr` | 0.05 / 0.009 | 1.65 / 0.016 | 11.74 / 0.018 | 160.70 / 0.013 |
//! | `wrr` | 0.12 / 0.068 | 2.14 / 1.183 | 27.83 / 12.955 | 354.20 / 167.816 |
//! | `lc` | 0.04 / 0.010 | 3.04 / 0.016 | 21.96 / 0.015 | 316.19 / 0.014 |
//! | `wlc` | 0.04 / 0.009 | 2.01 / 0.055 | 21.57 / 0.098 | 317.27 / 0.123 |
//! | `sed` | 0.04 / 0.011 | 2.49 / 0.063 | 24.84 / 0.104 | 350.42 / 0.132 |
//! | `nq` | 0.05 / 0.010 | 2.82 / 0.092 | 13.41 / 0.139 | 393.34 / 0.142 |
//! | `fo` | 0.05 / 0.010 | 1.52 / 0.015 | 18.45 / 0.024 | 334.55 / 0.032 |
//! | `ovf` | 0.04 / 0.010 | 2.80 / 0.046 | 23.87 / 0.061 | 340.11 / 0.086 |
//! | `dh` | 1.70 / 0.004 | 1.99 / 0.005 | 5.09 / 0.003 | 37.63 / 0.005 |
//! | `sh` | 1.64 / 0.784 | 2.46 / 0.772 | 4.13 / 0.918 | 28.91 / 0.888 |
//! | `mh` | 82.47 / 44.875 | 182.37 / 50.696 | 270.50 / 121.197 | — |
//! | `lblc` | 0.12 / 0.021 | 7.22 / 0.102 | 58.75 / 0.179 | 921.59 / 0.301 |
//! | `lblcr` | 0.13 / 0.020 | 8.83 / 0.155 | 72.67 / 0.233 | 947.79 / 0.262 |
//! | `twos` | 0.04 / 0.005 | 1.18 / 0.029 | 11.85 / 0.030 | 176.29 / 0.056 |
//!
//! Made by `cargo bench -p lvs-core --bench schedule`, on a busy two-core virtual machine (AMD EPYC): single figures
//! are good to a third or so, the growth along a row and the ratio to the scan beside it are what counts. A dash: more
//! servers than `mh` has slots.
//!
//! * `rr`, `sh`, `dh`, `mh` take constant time; `rr` is logarithmic where it has to pass over a run of servers that are
//!   quiesced or overloaded.
//! * `lc`, `wlc`, `sed`, `nq`, `fo`, `ovf` and the general choice of `lblc` and `lblcr` keep a tournament tree from 64
//!   servers on: a choice reads the root, a count that moves replays one path. The plain scan stays their oracle in
//!   `tests/schedulers.rs`.
//! * `rr`, `wrr` and `twos` search a tree of weights from 64 servers on. Where Linux's walk for `wrr` is short anyway
//!   (weights 1 to 5) the tree costs some 20 ns; it bounds the long walks.
//! * `mh` builds its 4,093 slots anew when a server is added or deleted, or an edit changes somebody's number of turns.
//!   This is done in the caller's [`Scheduler::servers_changed`], where configuration is changed, never in a packet's
//!   [`Scheduler::schedule`]; on a shard it delays the packets behind that one command by as much as the table above
//!   says.

pub mod dh;
pub mod fo;
pub mod lblc;
pub mod lblcr;
pub mod lc;
pub mod mh;
pub mod none;
pub mod nq;
pub mod ovf;
pub mod rr;
pub mod sed;
pub mod sh;
pub mod twos;
pub mod wlc;
pub mod wrr;

mod destination_cache;
mod least_rank;
mod registry;
#[cfg(test)]
mod script;
mod server_ids;
mod tournament;
mod weight_tree;

use alloc::boxed::Box;

use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::rng::Seed;
use crate::service::{RealServer, SchedulerFlags, ServerId};
use crate::settings::Settings;
use crate::time::Instant;
pub use least_rank::LeastRank;
pub use registry::{SchedulerFactory, SchedulerRegistry};

/// Who asks for a server.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The time.
    pub now: Instant,
    /// The packet's protocol.
    pub protocol: Protocol,
    /// The packet's source.
    pub client: Endpoint,
    /// The packet's destination.
    pub destination: Endpoint,
    /// The service's flags, as they are now.
    pub flags: SchedulerFlags,
    /// The settings, as they are now.
    pub settings: &'a Settings,
}

/// What happened to the list of servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Everything: the scheduler was just given to a service with these servers.
    Reset,
    /// The server now at `index` is new (always 0: newest first).
    Added {
        /// Where it is.
        index: usize,
    },
    /// The server that was at `index` is gone from the list.
    Removed {
        /// Where it was.
        index: usize,
        /// Its name.
        id: ServerId,
    },
    /// The server at `index` was edited: weight, thresholds, method.
    Edited {
        /// Where it is.
        index: usize,
    },
}

/// Picks a real server for each new connection.
///
/// `servers` is always in list order, newest first, and is the same list in every call between two `servers_changed`.
/// Keep [`ServerId`]s in your state rather than indexes: indexes shift when servers come and go, and only a scheduler
/// that follows every [`Change`] may keep them. The director tells of every change before it asks for the next choice.
///
/// ```
/// use lvs_core::scheduler::{Request, Scheduler};
/// use lvs_core::service::RealServer;
///
/// /// The first server that can be had.
/// #[derive(Clone)]
/// struct First;
///
/// impl Scheduler for First {
///     fn name(&self) -> &'static str {
///         "first"
///     }
///
///     fn schedule(&mut self, _: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
///         servers.iter().position(RealServer::is_eligible)
///     }
///
///     fn boxed_clone(&self) -> Box<dyn Scheduler> {
///         Box::new(self.clone())
///     }
/// }
///
/// let mut registry = lvs_core::SchedulerRegistry::default();
/// registry.register("first", |_init| Box::new(First));
/// ```
///
/// `lvs_testkit::scheduler::check_scheduler` checks what everybody relies on.
pub trait Scheduler: Send {
    /// The name operators give. ipvsadm: `-s`.
    fn name(&self) -> &'static str;

    /// The index of the chosen server, or `None` if there is none to be had. Must not choose a server whose
    /// weight is 0.
    fn schedule(&mut self, request: &Request<'_>, servers: &[RealServer]) -> Option<usize>;

    /// Servers were added, removed or edited; `servers` is the list after the change.
    fn servers_changed(&mut self, change: Change, servers: &[RealServer]) {
        let _ = (change, servers);
    }

    /// A connection count or the overload flag of one server moved.
    fn load_changed(&mut self, index: usize, servers: &[RealServer]) {
        let _ = (index, servers);
    }

    /// Whether the scheduler's memory still names this (deleted) server: it is then not forgotten yet.
    fn remembers(&self, id: ServerId) -> bool {
        let _ = id;
        false
    }

    /// Where it stands, for a snapshot; `None`, the default, if it remembers nothing of what it chose, or need not.
    fn position(&self) -> Option<Position> {
        None
    }

    /// Goes on from where another one of its kind stood. `servers` is the list as it is now.
    fn resume(&mut self, position: Position, servers: &[RealServer]) {
        let _ = (position, servers);
    }

    /// A copy with the same state, for `explain` and for tests.
    fn boxed_clone(&self) -> Box<dyn Scheduler>;
}

/// Where a scheduler stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Position {
    /// Index of the server it chose last.
    pub last: Option<usize>,
    /// What else it goes by, in a form of its own.
    pub word: u64,
}

/// How `lc`, `wlc`, `lblc`, `lblcr` and `twos` weigh a server's connections. Linux changed its rule in a patch release.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LoadFormula {
    /// `active · 256 + total`, that is `active · 257 + inactive`: Linux 6.1.183 and later. The default.
    #[default]
    ActiveAndTotal,
    /// `active · 256 + inactive`: the documented rule, Linux before that.
    ActiveAndInactive,
}

impl LoadFormula {
    /// The load of a server, before weighing.
    pub const fn load(self, server: &RealServer) -> u32 {
        let second = match self {
            Self::ActiveAndTotal => server.total_connections,
            Self::ActiveAndInactive => server.inactive_connections(),
        };
        server.active_connections.wrapping_mul(256).wrapping_add(second)
    }
}

/// What a new scheduler is told.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerInit {
    /// A seed of its own.
    pub seed: Seed,
    /// The load formula in force.
    pub load_formula: LoadFormula,
    /// The service's address family.
    pub family: AddressFamily,
}
