//! The defences at work: evaluated once a second while one is asked for, and at once when an operator changes a mode.
//! What they decide by is `defence.rs`'s business. Source: Linux IPVS, as recorded in `conformance/`.

use crate::connection::newcomer::Newcomer;
use crate::connection::sctp::SctpState;
use crate::connection::tcp::TcpState;
use crate::connection::{Connection, State};
use crate::defence::{Available, DropEntry, is_on};
use crate::director::Director;
use crate::director::HalfOpenPolicy;
use crate::director::carry_out::end::Along;
use crate::director::tables::Tables;
use crate::persistence::Template;
use crate::time::Instant;
use core::time::Duration;

impl Director {
    /// Evaluates all modes with the places that are free now, and sets the timer for the next time.
    pub(in crate::director) fn evaluate_defence(&mut self, now: Instant) {
        let available = self.tables().available();
        let settings = &mut self.site.config.settings;
        self.defence.evaluate(settings, available);
        let is_asked_for = [settings.drop_entry, settings.drop_packet, settings.secure_tcp] != [0; 3];
        self.defence.due = is_asked_for.then_some(now + PERIOD);
        if !is_on(settings.drop_entry) {
            self.defence.drop_entry.stop();
        }
    }

    /// What is due of the defence's work: the evaluation of every second, and what `drop_entry` has still to look at.
    pub(in crate::director) fn defend(&mut self, now: Instant, budget: &mut u32) {
        if self.defence.due.is_some_and(|due| due <= now) {
            self.evaluate_defence(now);
            if is_on(self.site.config.settings.drop_entry) {
                self.defence.drop_entry.start(self.tables().places());
            }
        }
        while *budget > 0 {
            let Some(place) = self.defence.drop_entry.pick(self.tables().places()) else { return };
            *budget -= 1;
            self.drop_entry(now, place);
        }
    }
}

impl Tables<'_> {
    /// What the defences go by: the places of connections, templates, half-open connections and local ports, whichever
    /// are fewest, in places of the connection table. Where fragments wait no defence makes room.
    fn available(&self) -> Available {
        let (connections, templates) = (&self.flows.connections, &self.flows.templates);
        let half_open = connections.newcomers_len(Newcomer::HalfOpen);
        let others = [Newcomer::Unproven, Newcomer::Expected, Newcomer::Over, Newcomer::Talked];
        let others: u32 = others.into_iter().map(|kind| connections.newcomers_len(kind)).sum();
        let makes_room = self.site.config.half_open_policy == HalfOpenPolicy::EvictOldest;
        let evictable = if makes_room { half_open } else { 0 };
        let capacity = connections.capacity();
        let pool = &self.flows.full_nat.pool;
        // How many places there are, are taken, and are taken by those who give way.
        let tables = [
            (capacity, connections.len(), others + evictable),
            (templates.capacity(), templates.len(), templates.in_line_len()),
            (self.site.config.half_open_bound(), half_open, evictable),
            (self.site.config.local_ports.remembered_max, pool.leased(), 0),
        ];
        let scaled = |places: u32, of: u32| (u64::from(places) * u64::from(capacity) / u64::from(of.max(1))) as u32;
        let least = |free: &dyn Fn(u32, u32) -> u32| {
            let all =
                tables.iter().map(|(size, taken, give_way)| scaled(free(size - taken.min(size), *give_way), *size));
            all.min().unwrap_or(0).min(capacity)
        };
        Available { free: least(&|free, _| free), for_newcomers: least(&|free, give_way| free + give_way) }
    }

    /// When `defend` has something to do.
    pub(in crate::director) fn defence_due(&self) -> Option<Instant> {
        if self.defence.drop_entry.is_under_way() { Some(self.now) } else { self.defence.due }
    }

    /// Connections and templates that may be there. Linux keeps both in one table.
    fn places(&self) -> u32 {
        self.flows.connections.capacity().saturating_add(self.flows.templates.capacity())
    }
}

impl Director {
    /// Removes what is in this place if `drop_entry` takes it.
    fn drop_entry(&mut self, now: Instant, place: u32) {
        let drop_entry = &mut self.defence.drop_entry;
        let Some(place) = place.checked_sub(self.flows.connections.capacity()) else {
            let Some((id, connection)) = self.flows.connections.at(place) else { return };
            if connection.children == 0 && takes_connection(drop_entry, connection, now) {
                drop_entry.removed += 1;
                self.end_connection(now, id, Along::Holders);
            }
            return;
        };
        let Some((id, template)) = self.flows.templates.at(place) else { return };
        let service = self.services.service_of(Some(template.server));
        let is_one_packet = service.is_some_and(|service| service.config.one_packet);
        if template.children == 0 && takes_template(drop_entry, template, is_one_packet, now) {
            drop_entry.removed += 1;
            self.end_template(now, id);
        }
    }
}

fn takes_connection(drop_entry: &mut DropEntry, connection: &Connection, now: Instant) -> bool {
    match connection.state {
        State::Tcp(TcpState::SynRecv | TcpState::SynAck) => true,
        State::Sctp(SctpState::Init1 | SctpState::Init) => true,
        State::Tcp(TcpState::Established) | State::Sctp(SctpState::Established) | State::Udp => {
            is_idle(connection.deadline, connection.timeout, now) && drop_entry.takes(connection.in_packets)
        }
        State::Tcp(_) | State::Sctp(_) => false,
    }
}

fn takes_template(drop_entry: &mut DropEntry, template: &Template, is_one_packet: bool, now: Instant) -> bool {
    if is_one_packet {
        return is_idle(template.deadline, template.timeout, now) && drop_entry.takes(template.in_packets);
    }
    !template.assured
}

/// Whether the last packet came a minute ago or earlier.
fn is_idle(deadline: Instant, timeout: Duration, now: Instant) -> bool {
    now + timeout >= deadline + IDLE
}

/// How often the modes are evaluated.
const PERIOD: Duration = Duration::from_secs(1);

const IDLE: Duration = Duration::from_secs(60);
