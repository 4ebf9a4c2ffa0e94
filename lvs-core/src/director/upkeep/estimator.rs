//! The 2-second estimator: samples every counter and moves the rates.

use crate::director::Director;
use crate::time::Instant;
use core::time::Duration;

/// The estimator's period.
const ESTIMATOR_PERIOD: Duration = Duration::from_secs(2);

/// Ticks made up for at once after a leap of the clock; after so many idle ones every rate is zero anyway.
const ESTIMATOR_TICKS_MAX: u32 = 128;

/// Ticks of the estimator under way: which places of the tables are still to be looked at.
#[derive(Clone, Copy, Debug)]
pub(in crate::director) struct Estimation {
    /// When the next part of it is due.
    pub due: Instant,
    ticks: u32,
    service: u32,
    server: u32,
}

impl Director {
    /// The 2-second estimator: samples every counter and moves the rates. With more services and servers than one call
    /// may look at, it goes on in the next.
    pub(in crate::director) fn estimate(&mut self, now: Instant, budget: &mut u32) {
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
    pub(in crate::director) fn start_estimator(&mut self, now: Instant) {
        self.upkeep.estimator_due.get_or_insert(now + ESTIMATOR_PERIOD);
    }
}
