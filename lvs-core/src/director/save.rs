//! A snapshot is taken: what each step of it writes. Looks only, so that packets may be handled between two steps.

use crate::connection::{Connection, ConnectionId};
use crate::director::Director;
use crate::service::server_table::{Place, ServerRecord};
use crate::service::table::Service;
use crate::service::{ServerId, stats::Meter};
use crate::snapshot::codec::Writer;
use crate::snapshot::rows::{Beside, ConnectionRow, ServerRow, ServiceRow, TemplateRow, TotalsRow, Usual};
use crate::snapshot::{Kind, Resumed, Snapshot, Stage};
use crate::time::Instant;

impl Director {
    /// Writes the next piece of a snapshot into the beginning of `into`, which should have [`Snapshot::CHUNK`] bytes, and
    /// returns how long it is; 0 when the snapshot is whole. Looks at [`Snapshot::ENTRIES_PER_STEP`] entries at most.
    /// What a snapshot holds, and what becomes of changes between two steps: see [`crate::snapshot`].
    ///
    /// # Panics
    /// If `into` has less than 1,024 bytes, which not every row fits into.
    pub fn save(&self, now: Instant, snapshot: &mut Snapshot, into: &mut [u8]) -> usize {
        assert!(into.len() >= CHUNK_MIN, "a snapshot takes a buffer of at least 1,024 bytes");
        let now = self.clock.time_at(now);
        self.look_for_new_servers(snapshot);
        match snapshot.stage {
            Stage::Beginning => snapshot.begin(into),
            Stage::Totals => {
                snapshot.stage = Stage::Servers { again: None };
                snapshot.servers = Some(self.services.servers.revision);
                snapshot.block(Kind::Totals, into, |to| {
                    self.totals(now).write(to);
                })
            }
            Stage::Servers { again } => {
                let next = match again {
                    None => (Stage::Services, 0),
                    Some((Resumed::Templates, place)) => (Stage::Templates, place),
                    Some((Resumed::Connections, place)) => (Stage::Connections, place),
                };
                let places = self.services.servers.places();
                pass(snapshot, (Kind::Servers, places), next, into, |place, to| {
                    let id = ServerId(place);
                    self.services.servers.get(id).is_none_or(|record| self.server_row(now, id, record).write(to))
                })
            }
            Stage::Services => {
                let places = self.services.table.places();
                pass(snapshot, (Kind::Services, places), (Stage::Templates, 0), into, |place, to| {
                    self.services.table.get(place).is_none_or(|service| self.write_service(place, service, to))
                })
            }
            Stage::Templates => {
                let templates = &self.flows.templates;
                let next = (Stage::Connections, 0);
                pass(snapshot, (Kind::Templates, templates.places()), next, into, |place, to| {
                    let live = templates.at(place).filter(|(_, template)| template.deadline > now);
                    live.is_none_or(|(id, template)| TemplateRow::write(to, id.handle(), template, now))
                })
            }
            Stage::Connections => {
                let connections = &self.flows.connections;
                let next = (Stage::End, 0);
                pass(snapshot, (Kind::Connections, connections.places()), next, into, |place, to| {
                    let live = connections.at(place).filter(|(_, connection)| connection.deadline > now);
                    live.is_none_or(|(id, connection)| self.write_connection(now, id, connection, to))
                })
            }
            Stage::End => snapshot.end(into),
            Stage::Over => 0,
        }
    }

    /// Has servers said again, if some came or went since.
    fn look_for_new_servers(&self, snapshot: &mut Snapshot) {
        let resumed = match snapshot.stage {
            Stage::Templates => Resumed::Templates,
            Stage::Connections => Resumed::Connections,
            _ => return,
        };
        let revision = Some(self.services.servers.revision);
        if !core::mem::take(&mut snapshot.goes_on) && snapshot.servers != revision {
            snapshot.stage = Stage::Servers { again: Some((resumed, snapshot.place)) };
            (snapshot.servers, snapshot.place, snapshot.goes_on) = (revision, 0, true);
        }
    }

    fn totals(&self, now: Instant) -> TotalsRow {
        TotalsRow {
            meter: self.services.totals.words(),
            answers: self.outlet.answers,
            sample_in: self.upkeep.estimator_due.map(|due| due.duration_since(now)),
        }
    }

    fn server_row(&self, now: Instant, id: ServerId, record: &ServerRecord) -> ServerRow {
        let counts = self.services.counts(id);
        ServerRow {
            number: id.0,
            service: record.service,
            key: record.config.key,
            forward: record.config.forward,
            is_listed: matches!(record.place, Place::Listed { .. }),
            is_overloaded: counts.is_some_and(|counts| counts.is_overloaded),
            last_weight: counts.map_or(0, |counts| counts.last_weight),
            factor: record.factor,
            ramp: record.ramp_since.map(|since| now.duration_since(since)),
            meter: record.meter.words(),
        }
    }

    fn write_service(&self, place: u32, service: &Service, to: &mut Writer<'_>) -> bool {
        let (scheduler, position) = self.schedulers.position(place);
        let position = position.unwrap_or_default();
        let last = position.last.and_then(|last| service.servers.get(last)).map(|server| server.id.0);
        let name = scheduler.as_bytes();
        let scheduler = &name[..name.len().min(NAME_MAX)];
        let meter: [u64; Meter::WORDS] = service.meter.words();
        ServiceRow { service: service.key, meter, scheduler, last, word: position.word }.write(to)
    }

    fn write_connection(&self, now: Instant, id: ConnectionId, connection: &Connection, to: &mut Writer<'_>) -> bool {
        let record = connection.server.and_then(|id| self.services.servers.get(id));
        let usual = record.map(|record| Usual::of(&record.service, record.config.key));
        let helped = self.flows.helped.get(id).filter(|_| connection.has_helper);
        let beside = Beside {
            translation: connection.local.and_then(|_| self.flows.full_nat.translation(id)),
            helped: helped.map(|helped| (helped.notes.0, helped.counts)),
        };
        ConnectionRow::write(to, id.0, connection, usual, &beside, now)
    }
}

/// One step of a pass over the `places` of a table. `write` writes what is in a place, and says whether there was room.
fn pass(
    snapshot: &mut Snapshot,
    (kind, places): (Kind, u32),
    (stage, place): (Stage, u32),
    into: &mut [u8],
    mut write: impl FnMut(u32, &mut Writer<'_>) -> bool,
) -> usize {
    let mut at = snapshot.place;
    let end = places.min(at.saturating_add(Snapshot::ENTRIES_PER_STEP));
    let len = snapshot.block(kind, into, |to| {
        while at < end && write(at, to) {
            at += 1;
        }
    });
    snapshot.place = at;
    if at >= places {
        (snapshot.stage, snapshot.place) = (stage, place);
    }
    len
}

/// No row is longer, its block's frame included.
const CHUNK_MIN: usize = 1_024;
/// As much of a scheduler's name as is said.
const NAME_MAX: usize = 255;
