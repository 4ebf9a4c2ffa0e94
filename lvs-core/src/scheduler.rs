//! Schedulers: which real server gets a new connection. One file each; the file list is the index.
//! A scheduler knows neither packets nor connections, only servers and who asks.

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
mod max_tree;
mod registry;
#[cfg(test)]
mod script;
mod server_ids;
mod tournament;

use alloc::boxed::Box;

use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::rng::Seed;
use crate::service::{RealServer, SchedulerFlags, ServerId};
use crate::settings::Settings;
use crate::time::Instant;
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
/// Keep [`ServerId`]s in your state, not indexes: indexes shift when servers come and go.
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

    /// A copy with the same state, for `explain` and for tests.
    fn boxed_clone(&self) -> Box<dyn Scheduler>;
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
