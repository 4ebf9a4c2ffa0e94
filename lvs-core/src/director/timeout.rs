//! What happens by itself as time passes: connections, templates and fragments end, statistics are sampled, deleted
//! servers are forgotten. Every call does a bounded amount of work. Source: Linux IPVS, as recorded in `conformance/`.

use core::time::Duration;

use super::accounting::Count;
use super::server_timers::ServerTimer;
use super::tables::Tables;
use super::{Director, TIMEOUT_WORK_MAX};
use crate::connection::ConnectionId;
use crate::persistence::TemplateId;
use crate::service::ServerId;
use crate::time::Instant;

/// The estimator's period.
const ESTIMATOR_PERIOD: Duration = Duration::from_secs(2);
/// Ticks made up for at once after a leap of the clock; after so many idle ones every rate is zero anyway.
const ESTIMATOR_TICKS_MAX: u32 = 128;
/// A connection or template that cannot end yet, because others hang on it, is looked at again this much later.
const LATER: Duration = Duration::from_secs(60);
/// How long after a server's deletion its connections are swept: one tick of Linux's clock.
const SWEEP_DELAY: Duration = Duration::from_millis(4);
/// Ended connections that a new one may clear away before it is scheduled, so that it sees true counts.
const EXPIRE_BEFORE_SCHEDULING: u32 = 64;

/// The sweep after a server's deletion (`expire_nodest_conn`): which places of the tables are still to be looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep {
    /// When the next part of it is due.
    pub due: Instant,
    connection: u32,
    template: u32,
}

/// Ticks of the estimator under way: which places of the tables are still to be looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Estimation {
    /// When the next part of it is due.
    pub due: Instant,
    ticks: u32,
    service: u32,
    server: u32,
}

/// What ends with a connection, once nothing else hangs on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Along {
    /// Nothing: it has timed out.
    Nothing,
    /// Its template, unless that has proved itself: it has made room.
    Template,
    /// That, and the connection it belonged to.
    Holders,
}

impl Director {
    pub(super) fn next_due(&self) -> Option<Instant> {
        [
            self.flows.connections.next_deadline(),
            self.flows.templates.next_deadline(),
            self.fragments.next_deadline(),
            self.services.servers.trash_due(),
            self.tables().defence_due(),
            self.services.timers.next_due(),
            self.upkeep.estimator_due.filter(|_| self.site.config.settings.run_estimation),
            self.upkeep.estimation.map(|estimation| estimation.due),
            self.upkeep.sweep.map(|sweep| sweep.due),
            self.upkeep.probing.map(|probing| probing.due),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due, within [`TIMEOUT_WORK_MAX`] units of work; returns how many it took.
    pub(super) fn do_due(&mut self, now: Instant) -> u32 {
        let mut budget = TIMEOUT_WORK_MAX;
        self.estimate(now, &mut budget);
        self.defend(now, &mut budget);
        self.sweep_deleted(now, &mut budget);
        self.expire(now, &mut budget);
        self.serve_timers(now, &mut budget);
        self.probe_some(now, &mut budget);
        self.expire_fragments(now, &mut budget);
        if self.services.servers.trash_due().is_some_and(|due| due <= now) {
            self.sweep_trash(now, &mut budget);
        }
        TIMEOUT_WORK_MAX - budget
    }

    /// Steps of slow starts, and ends of drains.
    fn serve_timers(&mut self, now: Instant, budget: &mut u32) {
        while *budget > 0 {
            let Some((id, timer)) = self.services.timers.pop(now) else { return };
            *budget -= 1;
            match timer {
                ServerTimer::Ramp => self.step_ramp(now, id),
                ServerTimer::Drain => self.end_drain(now, id),
            }
        }
    }

    /// Clears some ended connections away before a new one is scheduled. More than this many at one moment are left
    /// to `handle_timeout`; until it has run, schedulers may count them still.
    pub(super) fn expire_some(&mut self, now: Instant) {
        let mut budget = EXPIRE_BEFORE_SCHEDULING;
        self.expire(now, &mut budget);
    }

    fn expire(&mut self, now: Instant, budget: &mut u32) {
        while let Some(id) = self.flows.connections.pop_expired(now, budget) {
            self.end_connection(now, id, Along::Nothing);
        }
        while let Some(id) = self.flows.templates.pop_expired(now, budget) {
            self.end_template(now, id);
        }
    }

    /// Ends a connection, or puts its end off while others hang on it.
    pub(super) fn end_connection(&mut self, now: Instant, id: ConnectionId, along: Along) {
        let Some(connection) = self.flows.connections.get(id) else { return };
        if connection.children > 0 {
            self.flows.connections.rearm(id, now, LATER);
            return;
        }
        let Some(connection) = self.flows.connections.remove(id) else { return };
        self.flows.full_nat.release(now, id, &connection);
        self.note_room();
        if connection.has_helper {
            self.flows.helped.remove(id);
        }
        if connection.checks_window {
            self.flows.numbers.remove(id);
        }
        if let Some(server) = connection.server {
            if connection.state.is_over() {
                self.note_over(server, false);
            }
            if connection.is_active {
                self.count_down(server, Count::Active);
            }
            self.count_down(server, Count::of(&connection));
        }
        if let Some(template) = connection.template {
            self.release_template(now, template, along);
        }
        if let Some(parent) = connection.parent {
            self.release_parent(now, parent, along);
        }
    }

    fn release_template(&mut self, now: Instant, id: TemplateId, along: Along) {
        let Some(template) = self.flows.templates.get_mut(id) else { return };
        template.children -= 1;
        if along != Along::Nothing && template.children == 0 && !template.assured {
            self.end_template(now, id);
        }
    }

    fn release_parent(&mut self, now: Instant, id: ConnectionId, along: Along) {
        let Some(left) = self.flows.connections.disown(id) else { return };
        if along == Along::Holders && left == 0 {
            self.end_connection(now, id, Along::Holders);
        } else {
            self.keep_half_open_bound(now);
        }
    }

    /// Ends a template, or puts its end off while connections hang on it: from then on it is refreshed by 60 s, not
    /// by the service's timeout, as Linux does.
    pub(super) fn end_template(&mut self, now: Instant, id: TemplateId) {
        let Some(template) = self.flows.templates.get(id) else { return };
        if template.children > 0 {
            self.flows.templates.rearm(id, now, LATER);
            return;
        }
        self.remove_template(id);
    }

    /// Ends a template, whatever hangs on it.
    pub(super) fn remove_template(&mut self, id: TemplateId) {
        let Some(template) = self.flows.templates.remove(id) else { return };
        self.note_room();
        self.count_down(template.server, Count::Template);
    }

    /// A server was deleted: where `expire_nodest_conn` says so, its connections are swept soon.
    pub(super) fn servers_left(&mut self, now: Instant) {
        if self.site.config.settings.expire_nodest_conn {
            self.upkeep.sweep = Some(Sweep { due: now + SWEEP_DELAY, connection: 0, template: 0 });
        }
    }

    fn sweep_deleted(&mut self, now: Instant, budget: &mut u32) {
        let Some(mut sweep) = self.upkeep.sweep.filter(|sweep| sweep.due <= now) else { return };
        while *budget > 0 && sweep.connection < self.flows.connections.capacity() {
            let found = self
                .flows
                .connections
                .at(sweep.connection)
                .map(|(id, connection)| (id, connection.server, connection.children));
            sweep.connection += 1;
            *budget -= 1;
            if let Some((id, server, 0)) = found {
                if self.tables().is_deleted(server) {
                    self.end_connection(now, id, Along::Holders);
                }
            }
        }
        while *budget > 0
            && sweep.connection == self.flows.connections.capacity()
            && sweep.template < self.flows.templates.capacity()
        {
            let found = self.flows.templates.at(sweep.template).map(|(id, template)| (id, template.server));
            sweep.template += 1;
            *budget -= 1;
            if let Some((id, server)) = found {
                let is_childless = self.flows.templates.get(id).is_some_and(|template| template.children == 0);
                if is_childless && self.tables().is_deleted(Some(server)) {
                    self.end_template(now, id);
                }
            }
        }
        let is_done =
            sweep.connection == self.flows.connections.capacity() && sweep.template == self.flows.templates.capacity();
        sweep.due = now;
        self.upkeep.sweep = (!is_done).then_some(sweep);
    }
}

impl Tables<'_> {
    fn is_deleted(&self, server: Option<ServerId>) -> bool {
        server.and_then(|id| self.services.servers.get(id)).is_some_and(|record| !record.is_listed())
    }
}

impl Director {
    /// The 2-second estimator: samples every counter and moves the rates. With more services and servers than one call
    /// may look at, it goes on in the next.
    fn estimate(&mut self, now: Instant, budget: &mut u32) {
        let Some(mut estimation) = self.upkeep.estimation.take().or_else(|| self.begin_estimation(now)) else { return };
        let Estimation { ticks, service, server, .. } = &mut estimation;
        while *budget > 0 && *service < self.services.table.places() {
            if let Some(service) = self.services.table.get_mut(*service) {
                (0..*ticks).for_each(|_| service.meter.tick());
                *budget = budget.saturating_sub(*ticks);
            }
            *service += 1;
        }
        while *budget > 0 && *server < self.services.servers.places() {
            // Deleted servers are not sampled.
            if let Some(record) = self.services.servers.at_mut(*server).filter(|record| record.is_listed()) {
                (0..*ticks).for_each(|_| record.meter.tick());
                *budget = budget.saturating_sub(*ticks);
            }
            *server += 1;
        }
        let is_done = *service >= self.services.table.places() && *server >= self.services.servers.places();
        self.upkeep.estimation = (!is_done).then_some(Estimation { due: now, ..estimation });
    }

    /// The ticks that are due, if any.
    fn begin_estimation(&mut self, now: Instant) -> Option<Estimation> {
        let due = self.upkeep.estimator_due.filter(|due| *due <= now)?;
        let missed = now.duration_since(due).as_nanos() / ESTIMATOR_PERIOD.as_nanos() + 1;
        let ticks = u32::try_from(missed).unwrap_or(u32::MAX).min(ESTIMATOR_TICKS_MAX);
        let next = if missed <= u128::from(ESTIMATOR_TICKS_MAX) {
            due + ESTIMATOR_PERIOD * ticks
        } else {
            now + ESTIMATOR_PERIOD
        };
        // At the end of time there is no next tick.
        self.upkeep.estimator_due = Some(next).filter(|next| *next > now);
        if !self.site.config.settings.run_estimation {
            return None;
        }
        (0..ticks).for_each(|_| self.services.totals.tick());
        Some(Estimation { due: now, ticks, service: 0, server: 0 })
    }

    /// The estimator runs from the director's first service on.
    pub(super) fn start_estimator(&mut self, now: Instant) {
        self.upkeep.estimator_due.get_or_insert(now + ESTIMATOR_PERIOD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Connection;
    use crate::flow::{Endpoint, Protocol};
    use crate::rng::Seed;
    use crate::service::ForwardMethod;
    use crate::{DirectorConfig, Settings};
    use core::net::{IpAddr, Ipv4Addr};

    fn connection(number: u32) -> Connection {
        let end = |address: u32, port| Endpoint::new(IpAddr::V4(Ipv4Addr::from_bits(address)), port);
        let (service, server) = (end(0xc000_0250, 53), end(0x0a00_0002, 53));
        Connection::new(Protocol::Udp, end(0x6440_0000 + number, 5000), service, server, ForwardMethod::Nat)
    }

    /// Each step of the wheel and each record looked at costs one unit. What is left of a million after every call, and
    /// how many units all calls together took.
    #[test]
    fn a_million_connections_that_end_within_one_tick_are_cleared_away_in_bounded_steps() {
        const COUNT: u32 = 1_000_000;
        let settings = Settings { run_estimation: false, ..Settings::default() };
        let config = DirectorConfig { connections_max: COUNT, settings, ..DirectorConfig::default() };
        let mut director = Director::new(config, Seed::new(1));
        let start = Instant::from_secs(1_000);
        director.handle_timeout(start);
        for number in 0..COUNT {
            // All of them within four milliseconds.
            let at = start + Duration::from_micros(u64::from(number % 4_000));
            director.flows.connections.insert(at, connection(number)).expect("there is room");
        }
        let end = start + Duration::from_secs(4);
        assert_eq!(director.connection_count(end), 0, "they are dead to everybody already");
        let (mut units, mut calls) = (0u64, 0);
        while director.poll_timeout().is_some_and(|due| due <= end) {
            let before = director.flows.connections.len();
            let used = director.do_due(end);
            assert!(used <= TIMEOUT_WORK_MAX, "{used}");
            assert!(before - director.flows.connections.len() <= used);
            units += u64::from(used);
            calls += 1;
        }
        assert_eq!((director.flows.connections.len(), director.poll_timeout()), (0, None));
        // A record moves down at most seven levels of the wheel before it comes out.
        assert!(units <= 8 * u64::from(COUNT), "{units}");
        assert!(calls <= units / u64::from(TIMEOUT_WORK_MAX) + 1, "{calls}");
    }
}
