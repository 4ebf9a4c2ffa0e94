//! What happens by itself as time passes: connections, templates and fragments end, statistics are sampled, deleted
//! servers are forgotten. Every call does a bounded amount of work. Source: Linux IPVS, as recorded in `conformance/`.

pub(super) mod estimator;
pub(super) mod flood_defence;
pub(super) mod silent;
pub(super) mod sweep;

use crate::director::Director;
use crate::director::TIMEOUT_WORK_MAX;
use crate::director::carry_out::end::Along;
use crate::director::server_timers::ServerTimer;
use crate::time::Instant;

/// Ended connections that a new one may clear away before it is scheduled, so that it sees true counts.
const EXPIRE_BEFORE_SCHEDULING: u32 = 64;

impl Director {
    pub(in crate::director) fn next_due(&self) -> Option<Instant> {
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
    pub(in crate::director) fn run_timers(&mut self, now: Instant) -> u32 {
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
    pub(in crate::director) fn expire_some(&mut self, now: Instant) {
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
    use core::time::Duration;

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
            let used = director.run_timers(end);
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
