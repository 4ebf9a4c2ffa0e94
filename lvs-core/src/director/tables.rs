//! What a director keeps, in groups, and the view of it that decisions read: nothing that takes [`Tables`] can change
//! anything.

use super::Director;
use crate::answer_limit::AnswerLimit;
use crate::connection::followed::FollowedTable;
use crate::connection::table::ConnectionTable;
use crate::defence::Defence;
use crate::director::carry_out::accounting::EventQueue;
use crate::director::config::DirectorConfig;
use crate::director::fragments::FragmentTable;
use crate::director::full_nat::FullNat;
use crate::director::outbox::Outbox;
use crate::director::schedulers::Schedulers;
use crate::director::services::Services;
use crate::director::upkeep::estimator::Estimation;
use crate::director::upkeep::silent::Probing;
use crate::director::upkeep::sweep::Sweep;
use crate::drop_reason::DropReason;
use crate::helper::table::HelpedTable;
use crate::persistence::TemplateTable;
use crate::rng::Seed;
use crate::time::Instant;

/// Who the director is.
pub(super) struct Site {
    pub config: DirectorConfig,
    pub seed: Seed,
    /// Makes the identifications of packets the director makes itself unguessable.
    pub identification_secret: u64,
}

/// What the director remembers of flows.
pub(super) struct Flows {
    pub connections: ConnectionTable,
    /// What protocol helpers keep of some of them.
    pub helped: HelpedTable,
    pub templates: TemplateTable,
    pub full_nat: FullNat,
    /// Numbers of the connections that are followed.
    pub followed: FollowedTable,
}

/// What leaves by another door than the packet that is handled, and what is counted of all packets.
pub(super) struct Outlet {
    /// Packets on their way to `poll_transmit`.
    pub outbox: Outbox,
    pub events: EventQueue,
    pub drops: [u64; DropReason::ALL.len()],
    pub full_announced: [bool; 4],
    /// Packets the director has made itself: gives their identifications.
    pub answers: u64,
    pub answer_limit: AnswerLimit,
    pub reply_conflicts: u64,
    pub disbelieved: u64,
}

/// Work that goes on by itself.
#[derive(Default)]
pub(super) struct Upkeep {
    pub estimator_due: Option<Instant>,
    /// What one call of the estimator could not finish.
    pub estimation: Option<Estimation>,
    /// The sweep of deleted servers' connections, while one is under way (`expire_nodest_conn`).
    pub sweep: Option<Sweep>,
    /// The walk over silent connections at the end of a drain, while one is under way.
    pub probing: Option<Probing>,
}

/// All that a decision may read.
#[derive(Clone, Copy)]
pub(super) struct Tables<'a> {
    pub site: &'a Site,
    pub services: &'a Services,
    pub flows: &'a Flows,
    pub fragments: &'a FragmentTable,
    pub defence: &'a Defence,
    pub outlet: &'a Outlet,
    pub now: Instant,
}

impl Director {
    #[inline(always)]
    pub(super) fn tables(&self) -> Tables<'_> {
        let Self { site, services, flows, fragments, defence, outlet, clock, .. } = self;
        Tables { site, services, flows, fragments, defence, outlet, now: clock.now }
    }

    /// The same, and the schedulers, which remember whom they have chosen.
    #[inline(always)]
    pub(super) fn apart(&mut self) -> (Tables<'_>, &mut Schedulers) {
        let Self { site, services, schedulers, flows, fragments, defence, outlet, clock, .. } = self;
        (Tables { site, services, flows, fragments, defence, outlet, now: clock.now }, schedulers)
    }
}
