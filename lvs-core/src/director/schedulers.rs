//! Each service's scheduler, apart from the services: a decision reads those and lends itself this one.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::scheduler::none::NeverChoose;
use crate::scheduler::{Change, Position, Scheduler};
use crate::service::table::ServiceIndex;
use crate::service::{RealServer, ServerId};

/// Lends schedulers to a decision.
pub(super) trait Lend {
    fn scheduler(&mut self, service: ServiceIndex) -> &mut dyn Scheduler;
}

/// Schedulers by the place of their service.
#[derive(Default)]
pub(super) struct Schedulers {
    slots: Vec<Box<dyn Scheduler>>,
}

impl Schedulers {
    /// Gives a service its scheduler.
    pub fn set(&mut self, service: ServiceIndex, scheduler: Box<dyn Scheduler>) {
        let place = service as usize;
        while self.slots.len() <= place {
            self.slots.push(Box::new(NeverChoose));
        }
        self.slots[place] = scheduler;
    }

    /// Its service is gone.
    pub fn remove(&mut self, service: ServiceIndex) {
        self.slots[service as usize] = Box::new(NeverChoose);
    }

    /// Servers of the service came, went or were edited; `servers` is the list after that.
    pub fn servers_changed(&mut self, service: ServiceIndex, change: Change, servers: &[RealServer]) {
        self.slots[service as usize].servers_changed(change, servers);
    }

    /// Counts of one server moved.
    #[inline]
    pub fn load_changed(&mut self, service: ServiceIndex, position: usize, servers: &[RealServer]) {
        self.slots[service as usize].load_changed(position, servers);
    }

    /// The scheduler of a service, and where it stands.
    pub fn position(&self, service: ServiceIndex) -> (&'static str, Option<Position>) {
        self.slots.get(service as usize).map_or(("", None), |scheduler| (scheduler.name(), scheduler.position()))
    }

    /// The scheduler of a service goes on from there.
    pub fn resume(&mut self, service: ServiceIndex, position: Position, servers: &[RealServer]) {
        self.slots[service as usize].resume(position, servers);
    }

    /// Whether the service's scheduler still names this server.
    pub fn remembers(&self, service: ServiceIndex, server: ServerId) -> bool {
        self.slots[service as usize].remembers(server)
    }

    /// Copies of them, each made when it is asked for: a decision on these leaves the schedulers as they are.
    pub fn copies(&self) -> Copies<'_> {
        Copies { of: self, copy: None }
    }
}

impl Lend for Schedulers {
    fn scheduler(&mut self, service: ServiceIndex) -> &mut dyn Scheduler {
        self.slots[service as usize].as_mut()
    }
}

/// The copies that `explain` asks.
pub(super) struct Copies<'a> {
    of: &'a Schedulers,
    copy: Option<Box<dyn Scheduler>>,
}

impl Lend for Copies<'_> {
    fn scheduler(&mut self, service: ServiceIndex) -> &mut dyn Scheduler {
        self.copy.insert(self.of.slots[service as usize].boxed_clone()).as_mut()
    }
}
