//! Drains: a server gets nothing new, its connections get a deadline, and what remains then is closed. What is over by
//! its state and only waits to be forgotten (TIME_WAIT, CLOSE) does not remain.
//! Closing is answering: the next segment of either side is turned into RSTs for both (`decide/server_gone.rs`), with numbers read
//! from that very segment. So nothing need be remembered of any connection, and a silent one is made to speak
//! (`upkeep/silent.rs`).

use crate::command::AfterDrain;
use crate::director::Director;
use crate::director::carry_out::accounting::Count;
use crate::director::server_timers::ServerTimer;
use crate::director::tables::Tables;
use crate::error::ControlError;
use crate::event::Event;
use crate::service::server_table::Drain;
use crate::service::{DrainConfig, ServerId, ServerKey, ServiceKey};
use crate::time::Instant;

impl Director {
    pub(in crate::director) fn drain(
        &mut self,
        now: Instant,
        key: &ServiceKey,
        server: &ServerKey,
        drain: DrainConfig,
    ) -> Result<(), ControlError> {
        let (index, position, id) = self.services.locate(key, server)?;
        self.set_drain(now, id, Some(drain));
        self.refresh_weight(now, index, position);
        self.tell_if_drained(id);
        Ok(())
    }

    /// Takes a server out of service, or puts it back; the caller brings its weight up to date.
    pub(in crate::director) fn set_drain(&mut self, now: Instant, id: ServerId, drain: Option<DrainConfig>) {
        let deadline = drain.map(|drain| now + drain.deadline);
        if let Some(record) = self.services.servers.get_mut(id) {
            record.config.drain = drain;
            record.drain =
                drain.map(|drain| Drain { deadline: now + drain.deadline, then: drain.then, is_told: false });
        }
        self.services.timers.set(id, ServerTimer::Drain, deadline);
    }

    /// Tells of a drained server's last connection.
    pub(in crate::director) fn tell_if_drained(&mut self, id: ServerId) {
        if self.services.servers.get(id).is_some_and(|record| record.drain.is_some())
            && self.tables().open_connections_of(id) == 0
        {
            self.tell_drained(id, 0);
        }
    }

    /// One more of a server's connections is over and waits to be forgotten, or one less.
    pub(in crate::director) fn note_over(&mut self, id: ServerId, is_over: bool) {
        let Some(record) = self.services.servers.get_mut(id) else { return };
        record.over = if is_over { record.over + 1 } else { record.over - 1 };
        if is_over {
            self.tell_if_drained(id);
        }
    }

    /// The drain's time is over.
    pub(in crate::director) fn end_drain(&mut self, now: Instant, id: ServerId) {
        let remaining = self.tables().open_connections_of(id);
        self.tell_drained(id, remaining);
        let drain = self.services.servers.get(id).and_then(|record| record.drain);
        if remaining > 0 && drain.is_some_and(|drain| drain.then == AfterDrain::Reset) {
            self.start_probing(now);
        }
    }

    fn tell_drained(&mut self, id: ServerId, remaining: u32) {
        let Some(record) = self.services.servers.get_mut(id) else { return };
        let (service, server) = (record.service, record.config.key);
        let Some(drain) = record.drain.as_mut().filter(|drain| !drain.is_told) else { return };
        drain.is_told = true;
        self.services.timers.set(id, ServerTimer::Drain, None);
        self.outlet.events.push(Event::Drained { service, server, remaining });
    }
}

impl Tables<'_> {
    /// A server's connections but those that are over.
    fn open_connections_of(&self, id: ServerId) -> u32 {
        let Some(record) = self.services.servers.get(id) else { return 0 };
        let total = self.services.counts(id).map_or(0, |counts| counts.total_connections);
        total.saturating_sub(record.over)
    }
}

impl Director {
    /// A count of this server went down.
    pub(in crate::director) fn note_count_down(&mut self, id: ServerId, count: Count) {
        if matches!(count, Count::Connection) {
            self.tell_if_drained(id);
        }
    }
}
