//! Services and servers, and what is counted of them. Nobody else asks whether a server is listed or deleted: what a
//! connection needs of its server is here whichever it is.

use core::time::Duration;

use crate::connection::State;
use crate::connection::tcp::TcpState;
use crate::connection::timeouts::Timeouts;
use crate::director::server_timers::ServerTimers;
use crate::error::ControlError;
use crate::rng::Seed;
use crate::service::server_table::{Place, ServerRecord, ServerTable};
use crate::service::stats::{Counters, Meter};
use crate::service::table::{Service, ServiceIndex, ServiceTable};
use crate::service::{RealServer, ServerId, ServerKey, ServiceKey};

pub(super) struct Services {
    pub table: ServiceTable,
    pub servers: ServerTable,
    pub timers: ServerTimers,
    pub totals: Meter,
    pub timeouts: Timeouts,
    /// How many schedulers were made so far: each has a seed of its own.
    pub scheduler_count: u64,
    /// How many services were added so far.
    pub added: u64,
}

/// Reading.
impl Services {
    pub fn new(seeds: [Seed; 2], timeouts: Timeouts) -> Self {
        let [services, servers] = seeds;
        Self {
            table: ServiceTable::new(services),
            servers: ServerTable::new(servers),
            timers: ServerTimers::default(),
            totals: Meter::default(),
            timeouts,
            scheduler_count: 0,
            added: 0,
        }
    }

    /// The service with this key.
    pub fn find(&self, key: &ServiceKey) -> Option<&Service> {
        self.table.get(self.table.index_of(key)?)
    }

    /// The service in whose list a server is; `None` once it is deleted.
    #[inline]
    pub fn list_of(&self, id: ServerId) -> Option<&Service> {
        self.list_of_record(self.servers.get(id)?)
    }

    /// The same of a record.
    #[inline]
    pub fn list_of_record(&self, record: &ServerRecord) -> Option<&Service> {
        match record.place {
            Place::Listed { service, .. } => self.table.get(service),
            Place::Trash { .. } => None,
        }
    }

    /// The service that a server belongs to, or belonged to, if there is one of that key.
    pub fn service_of(&self, server: Option<ServerId>) -> Option<&Service> {
        self.find(&self.servers.get(server?)?.service)
    }

    /// A server's place in its service's list; `None` once it is deleted.
    pub fn position_of(&self, id: ServerId) -> Option<(ServiceIndex, usize)> {
        match self.servers.get(id)?.place {
            Place::Listed { service, position } => Some((service, position)),
            Place::Trash { .. } => None,
        }
    }

    /// What is counted of a server, and its effective weight.
    pub fn counts(&self, id: ServerId) -> Option<&RealServer> {
        match &self.servers.get(id)?.place {
            Place::Listed { service, position } => Some(&self.table.get(*service)?.servers[*position]),
            Place::Trash { counts, .. } => Some(counts),
        }
    }

    /// A listed server's place and name.
    pub fn locate(
        &self,
        key: &ServiceKey,
        server: &ServerKey,
    ) -> Result<(ServiceIndex, usize, ServerId), ControlError> {
        let index = self.table.index_of(key).ok_or(ControlError::ServiceNotDefined(*key))?;
        let service = self.table.get(index).expect("the index was just found");
        let position = service.position(server).ok_or(ControlError::NoSuchServer(*server))?;
        Ok((index, position, service.servers[position].id))
    }

    /// How long a connection of this server lives in this state: by its service, else by the director.
    pub fn timeout_of(&self, server: Option<ServerId>, state: State) -> Duration {
        timeout_in(server.and_then(|id| self.list_of(id)), &self.timeouts, state)
    }
}

/// How long a connection of this service lives in this state: by the service's own timeouts, else by the director's.
#[inline(always)]
pub(super) fn timeout_in(service: Option<&Service>, timeouts: &Timeouts, state: State) -> Duration {
    let own = service.and_then(|service| service.config.timeouts).and_then(|own| match state {
        State::Tcp(TcpState::Established) => own.tcp,
        State::Tcp(TcpState::FinWait) => own.tcp_fin,
        State::Udp => own.udp,
        _ => None,
    });
    own.unwrap_or_else(|| timeouts.of(state))
}

/// Counting.
impl Services {
    /// Counts for a server, its service and the whole; only while it is listed.
    #[inline]
    pub fn measure(&mut self, server: Option<ServerId>, add: impl Fn(&mut Counters)) {
        let Some(record) = server.and_then(|id| self.servers.get_mut(id)) else { return };
        let Place::Listed { service, .. } = record.place else { return };
        add(&mut record.meter.live);
        if let Some(service) = self.table.get_mut(service) {
            add(&mut service.meter.live);
        }
        add(&mut self.totals.live);
    }

    /// Changes the counts of a server. Where it is in its service's list, `told` is called with that and its position.
    #[inline]
    pub fn change_counts(
        &mut self,
        id: ServerId,
        change: impl FnOnce(&mut RealServer),
        told: impl FnOnce(ServiceIndex, usize, &[RealServer]),
    ) -> Overload {
        let Some(record) = self.servers.get_mut(id) else { return Overload::Same };
        let (index, position) = match &mut record.place {
            Place::Trash { counts, .. } => {
                change(counts);
                return Overload::Same;
            }
            Place::Listed { service, position } => (*service, *position),
        };
        let service = self.table.get_mut(index).expect("a listed server's service exists");
        let was_overloaded = service.servers[position].is_overloaded;
        change(&mut service.servers[position]);
        told(index, position, &service.servers);
        let server = &service.servers[position];
        match (was_overloaded, server.is_overloaded) {
            (false, true) => Overload::Begun(service.key, server.key),
            (true, false) => Overload::Over(service.key, server.key),
            _ => Overload::Same,
        }
    }
}

/// What became of a server's overload flag.
pub(super) enum Overload {
    Same,
    Begun(ServiceKey, ServerKey),
    Over(ServiceKey, ServerKey),
}
