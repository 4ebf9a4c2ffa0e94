//! A snapshot is loaded: what it says is added to what the rules say. Nothing of it is believed that this director's
//! bounds do not allow.

use alloc::vec::Vec;
use core::time::Duration;

use ahash::RandomState;
use hashbrown::HashMap;

use crate::connection::newcomer::Newcomer;
use crate::connection::{Connection, ConnectionId};
use crate::director::Director;
use crate::director::carry_out::accounting::Count;
use crate::helper::Notes;
use crate::helper::table::Helped;
use crate::persistence::TemplateId;
use crate::scheduler::Position;
use crate::service::server_table::{Place, ServerRecord};
use crate::service::stats::Meter;
use crate::service::{ForwardMethod, RealServer, ServerConfig, ServerId, ServiceKey};
use crate::snapshot::rows::{ConnectionRow, ServerRow, ServiceRow, TemplateRow, TotalsRow, Usual, alike};
use crate::snapshot::{Entry, Restored, Row, Saved, left};
use crate::time::Instant;

/// What the numbers in a snapshot stand for here.
struct Names {
    servers: HashMap<u32, (ServerId, Usual, ServiceKey), RandomState>,
    templates: HashMap<u64, TemplateId, RandomState>,
    parents: HashMap<u64, ConnectionId, RandomState>,
    /// Connections, and whom they belong to.
    orphans: Vec<(ConnectionId, u64)>,
    /// Servers that were overloaded.
    overloaded: Vec<ServerId>,
}

impl Director {
    /// Adds what a snapshot says to this director, which has its rules already and has seen no packet. The snapshot was
    /// taken `away` ago: entries whose time is over by now are left out, as are those that `wants` does not want. The
    /// rules and settings stay as they are; a server that they do not name is a deleted one.
    ///
    /// Entries that a bound of this director does not allow are left out and counted; there is no error.
    pub fn restore(
        &mut self,
        now: Instant,
        saved: &Saved,
        away: Duration,
        mut wants: impl FnMut(Entry) -> bool,
    ) -> Restored {
        let now = self.clock.advance(now);
        let counts = wants(Entry::Counts);
        let word = |part| self.site.seed.derive(RESTORE).derive(part).value();
        let state = RandomState::with_seeds(word(0), word(1), word(2), word(3));
        let mut names = Names {
            servers: HashMap::with_hasher(state.clone()),
            templates: HashMap::with_hasher(state.clone()),
            parents: HashMap::with_hasher(state),
            orphans: Vec::new(),
            overloaded: Vec::new(),
        };
        let mut restored = Restored::default();
        for row in saved.rows(now) {
            match row {
                Row::Totals(row) if counts => self.restore_totals(now, &row),
                Row::Server(row) => self.restore_server(now, &row, counts, &mut names),
                Row::Service(row) if counts => self.restore_service(&row, &names),
                Row::Totals(_) | Row::Service(_) => {}
                Row::Template(row) => {
                    let is_wanted = wants(Entry::Template(row.template.key.client));
                    *self.restore_template(now, row, away, is_wanted, &mut names).counter(&mut restored) += 1;
                }
                Row::Connection(row) => {
                    let is_wanted = wants(Entry::Connection(row.connection.client.address));
                    *self.restore_connection(now, row, away, is_wanted, &mut names).counter(&mut restored) += 1;
                }
            }
        }
        for (child, parent) in names.orphans {
            self.restore_parent(child, names.parents.get(&parent).copied());
        }
        for id in names.overloaded {
            let has_threshold = self.services.servers.get(id).is_some_and(|record| record.config.upper_threshold != 0);
            if has_threshold {
                self.change_counts(id, |server| server.is_overloaded = true);
            }
        }
        // There may be more than one too many.
        let mut before = u32::MAX;
        while self.flows.connections.newcomers_len(Newcomer::HalfOpen) < before {
            before = self.flows.connections.newcomers_len(Newcomer::HalfOpen);
            self.keep_half_open_bound(now);
        }
        restored
    }

    fn restore_totals(&mut self, now: Instant, row: &TotalsRow) {
        self.services.totals.add_words(&row.meter);
        self.outlet.answers = self.outlet.answers.wrapping_add(row.answers);
        if let (Some(due), Some(sample_in)) = (&mut self.upkeep.estimator_due, row.sample_in) {
            *due = now + sample_in.min(ESTIMATOR_PERIOD);
        }
    }

    /// The server with this name, which is a deleted one if the rules do not name it.
    fn restore_server(&mut self, now: Instant, row: &ServerRow, counts: bool, names: &mut Names) {
        let is_known = names.servers.contains_key(&row.number);
        let config = || {
            let at = core::net::SocketAddr::new(row.key.address, row.key.port);
            ServerConfig::new(at, row.forward)
        };
        let id = match self.services.locate(&row.service, &row.key) {
            Ok((_, _, id)) => id,
            Err(_) => match self.services.servers.find_buried(&row.service, &config()) {
                Some(id) => id,
                None => match self.bury_unknown(now, row, config()) {
                    Some(id) => id,
                    None => return,
                },
            },
        };
        let is_same = names.servers.get(&row.number).is_some_and(|(known, ..)| *known == id);
        names.servers.insert(row.number, (id, Usual::of(&row.service, row.key), row.service));
        if is_known && is_same || !counts {
            return;
        }
        if row.is_overloaded && row.is_listed {
            names.overloaded.push(id);
        }
        let Some(record) = self.services.servers.get_mut(id) else { return };
        record.meter.add_words(&row.meter);
        self.restore_weight(now, id, row);
    }

    /// A server that the rules do not name.
    fn bury_unknown(&mut self, now: Instant, row: &ServerRow, config: ServerConfig) -> Option<ServerId> {
        if self.services.servers.len() >= self.site.config.servers_max {
            return None;
        }
        let id = self.services.servers.insert(ServerRecord {
            service: row.service,
            config,
            place: Place::Listed { service: u32::MAX, position: 0 },
            meter: Meter::default(),
            service_was_deleted: false,
            ramp_since: None,
            drain: None,
            over: 0,
            factor: row.factor.min(FACTOR_MAX),
            told_ports_exhausted: false,
            route: None,
            proof: 0,
        });
        self.services.servers.bury(id, RealServer::new(id, row.key, 0), now, false);
        Some(id)
    }

    /// Slow start goes on; a server that was warm stays so. Load factors are commands: the rules say them.
    fn restore_weight(&mut self, now: Instant, id: ServerId, row: &ServerRow) {
        let Some((service, position)) = self.services.position_of(id) else { return };
        let Some(record) = self.services.servers.get_mut(id) else { return };
        if row.is_listed {
            let age = row.ramp.map(|age| age.as_nanos() as u64);
            record.ramp_since = age.and_then(|age| now.as_nanos().checked_sub(age)).map(Instant::from_nanos);
        }
        self.refresh_weight(now, service, position);
        if let Some(server) = self.services.table.get_mut(service).and_then(|service| service.servers.get_mut(position))
        {
            if server.weight == 0 {
                server.last_weight = row.last_weight;
            }
        }
    }

    fn restore_service(&mut self, row: &ServiceRow<'_>, names: &Names) {
        let Some(index) = self.services.table.index_of(&row.service) else { return };
        let last = row.last.and_then(|number| names.servers.get(&number)).map(|(id, ..)| *id);
        let Some(service) = self.services.table.get_mut(index) else { return };
        service.meter.add_words(&row.meter);
        if service.config.scheduler.as_bytes() == row.scheduler {
            let last = last.and_then(|last| service.servers.iter().position(|server| server.id == last));
            self.schedulers.resume(index, Position { last, word: row.word }, &service.servers);
        }
    }

    fn restore_template(
        &mut self,
        now: Instant,
        row: TemplateRow,
        away: Duration,
        is_wanted: bool,
        names: &mut Names,
    ) -> Fate {
        let mut template = row.template;
        let Some(left) = left(row.remaining, away) else { return Fate::Ended };
        if !is_wanted {
            return Fate::LeftOut;
        }
        let Some((server, ..)) = names.servers.get(&template.server.0) else { return Fate::NoServer };
        template.server = *server;
        if !template.invalidated {
            if let Some(known) = self.flows.templates.find(now, &template.key) {
                names.templates.insert(row.number, known);
                return Fate::Replaced;
            }
        }
        let server = template.server;
        match self.flows.templates.insert_until(template, now + left) {
            Ok(id) => {
                names.templates.insert(row.number, id);
                self.count_up(server, Count::Template);
                Fate::Template
            }
            Err(_) => Fate::NoRoom,
        }
    }

    fn restore_connection(
        &mut self,
        now: Instant,
        row: ConnectionRow,
        away: Duration,
        is_wanted: bool,
        names: &mut Names,
    ) -> Fate {
        let mut connection = row.connection.clone();
        let Some(left) = left(row.remaining, away) else { return Fate::Ended };
        if !is_wanted {
            return Fate::LeftOut;
        }
        if let Some(number) = row.server {
            let Some((id, usual, _)) = names.servers.get(&number) else { return Fate::NoServer };
            connection.server = Some(*id);
            if !row.has_real {
                connection.real = usual.real;
            }
            if !row.has_virtual_endpoint {
                let Some(usual) = usual.virtual_endpoint else { return Fate::NoServer };
                connection.virtual_endpoint = usual;
            }
        }
        if !is_possible(&connection) {
            return Fate::NoServer;
        }
        self.put_back(now, connection, left, &row, names)
    }

    /// A connection whose parts are known goes into the table, with what hangs on it.
    fn put_back(
        &mut self,
        now: Instant,
        mut connection: Connection,
        left: Duration,
        row: &ConnectionRow,
        names: &mut Names,
    ) -> Fate {
        let Connection { protocol, client, virtual_endpoint, real, .. } = connection;
        let older = self.flows.connections.find_exactly(now, protocol, client, virtual_endpoint);
        if let Some(older) = older {
            self.give_up(now, older);
        }
        if self.flows.connections.would_refuse(now, &connection).is_some() {
            return Fate::NoRoom;
        }
        if let Some(local) = connection.local {
            if !self.flows.full_nat.pool.lease_exactly(protocol, real, local, client.address) {
                return Fate::NoPort;
            }
        }
        let template = row.template.and_then(|number| names.templates.get(&number).copied());
        connection.template = template.filter(|id| self.flows.templates.get(*id).is_some());
        let helper = self.services.service_of(connection.server).and_then(|service| service.helper.clone());
        connection.has_helper &= helper.is_some();
        connection.children = 0;
        let placed = connection.clone();
        let Ok(id) = self.flows.connections.insert_until(now, connection, now + left) else { return Fate::NoRoom };
        if let Some(helper) = helper.filter(|_| placed.has_helper) {
            let (notes, counts) = row.beside.helped.unwrap_or_default();
            self.flows.helped.insert(id, Helped { notes: Notes(notes), counts, ..Helped::by(helper) });
        }
        if let Some(translation) = row.beside.translation.filter(|_| placed.local.is_some()) {
            self.flows.full_nat.translations.insert(id, translation);
        }
        if placed.checks_window {
            self.watch(id, protocol);
        }
        if let Some(server) = placed.server {
            self.count_up(server, Count::of(&placed));
            if placed.is_active {
                self.count_up(server, Count::Active);
            }
            if placed.state.is_over() {
                self.note_over(server, true);
            }
        }
        if let Some(template) = placed.template.and_then(|id| self.flows.templates.get_mut(id)) {
            template.children += 1;
        }
        if let Some(number) = row.number {
            names.parents.insert(number, id);
        }
        if let Some(parent) = row.parent {
            names.orphans.push((id, parent));
        }
        if older.is_some() { Fate::Replaced } else { Fate::Connection }
    }

    fn restore_parent(&mut self, child: ConnectionId, parent: Option<ConnectionId>) {
        // One generation only: whoever hangs on somebody holds nobody.
        let holds = |id| self.flows.connections.get(id).is_some_and(|connection| connection.parent.is_none());
        let Some(parent) = parent.filter(|parent| *parent != child && holds(*parent)) else { return };
        let Some(connection) = self.flows.connections.get_mut(child).filter(|child| child.children == 0) else {
            return;
        };
        let is_expected = connection.is_expected;
        connection.parent = Some(parent);
        self.flows.connections.adopt(parent);
        if let Some(helped) = self.flows.helped.get_mut(parent).filter(|_| is_expected) {
            helped.announced.push(child);
        }
    }
}

/// Whether a connection's endpoints go together, and can be found.
fn is_possible(connection: &Connection) -> bool {
    let Connection { client, virtual_endpoint, real, local, forward, .. } = *connection;
    let real_is_right = match forward {
        ForwardMethod::Tunnel => true,
        ForwardMethod::FullNat => {
            local.is_some_and(|local| alike(local, real)) && (alike(client, real) || client.address.is_ipv6())
        }
        _ => alike(client, real),
    };
    let local_is_right = local.is_some() == (forward == ForwardMethod::FullNat);
    let port_is_right = connection.no_client_port == (client.port == 0);
    alike(client, virtual_endpoint) && real_is_right && local_is_right && port_is_right
}

/// What became of an entry.
#[derive(Clone, Copy)]
enum Fate {
    Connection,
    Template,
    Ended,
    NoRoom,
    NoPort,
    NoServer,
    LeftOut,
    Replaced,
}

impl Fate {
    fn counter(self, of: &mut Restored) -> &mut u32 {
        match self {
            Self::Connection => &mut of.connections,
            Self::Template => &mut of.templates,
            Self::Ended => &mut of.ended,
            Self::NoRoom => &mut of.no_room,
            Self::NoPort => &mut of.no_port,
            Self::NoServer => &mut of.no_server,
            Self::LeftOut => &mut of.left_out,
            Self::Replaced => &mut of.replaced,
        }
    }
}

/// The purpose of hashes here.
const RESTORE: u64 = 0x7265_7374;
/// The greatest load factor.
const FACTOR_MAX: u32 = 1 << 20;
/// Samples of counters are no further apart.
const ESTIMATOR_PERIOD: Duration = Duration::from_secs(2);
