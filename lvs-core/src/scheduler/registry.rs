//! Which schedulers there are, by name. The default registry holds every built-in one; an application registers its own
//! beside them, and from then on its name works everywhere a scheduler's name is accepted.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use super::{Scheduler, SchedulerInit};
use super::{dh, fo, lblc, lblcr, lc, mh, none, nq, ovf, rr, sed, sh, twos, wlc, wrr};

/// Makes a scheduler: called once for each service that uses it, on every shard.
pub type SchedulerFactory = Arc<dyn Fn(&SchedulerInit) -> Box<dyn Scheduler> + Send + Sync>;

/// Which schedulers there are, by name. The default holds every built-in one; register your own beside them.
///
/// ```
/// use lvs_core::SchedulerRegistry;
/// use lvs_core::scheduler::rr::RoundRobin;
///
/// let mut registry = SchedulerRegistry::default();
/// registry.register("mine", |_init| Box::new(RoundRobin::new()));
/// assert!(registry.contains("mine") && registry.contains("wlc"));
/// ```
#[derive(Clone)]
pub struct SchedulerRegistry {
    factories: BTreeMap<String, SchedulerFactory>,
}

impl SchedulerRegistry {
    /// No scheduler at all.
    pub const fn empty() -> Self {
        Self { factories: BTreeMap::new() }
    }

    /// Adds a scheduler under a name; replaces one of the same name. `factory` may own state that its schedulers
    /// share, such as a table of reported loads.
    pub fn register(
        &mut self,
        name: impl Into<String>,
        factory: impl Fn(&SchedulerInit) -> Box<dyn Scheduler> + Send + Sync + 'static,
    ) {
        self.factories.insert(name.into(), Arc::new(factory));
    }

    /// A new scheduler of this name; `None` if there is none.
    pub fn create(&self, name: &str, init: &SchedulerInit) -> Option<Box<dyn Scheduler>> {
        self.factories.get(name).map(|factory| factory(init))
    }

    /// Whether there is one of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.factories.contains_key(name)
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.factories.keys().map(String::as_str)
    }
}

impl Default for SchedulerRegistry {
    /// Linux's fourteen, and `none`, which never chooses.
    fn default() -> Self {
        let mut registry = Self::empty();
        registry.register("dh", |_| Box::new(dh::DestinationHashing::new()));
        registry.register("fo", |init| Box::new(fo::weighted_failover(init)));
        registry.register("lblc", |init| Box::new(lblc::LocalityBased::new(init)));
        registry.register("lblcr", |init| Box::new(lblcr::LocalityBasedReplicated::new(init)));
        registry.register("lc", |init| Box::new(lc::least_connection(init)));
        registry.register("mh", |init| Box::new(mh::MaglevHashing::new(init)));
        registry.register("none", |_| Box::new(none::NeverChoose));
        registry.register("nq", |init| Box::new(nq::never_queue(init)));
        registry.register("ovf", |init| Box::new(ovf::weighted_overflow(init)));
        registry.register("rr", |_| Box::new(rr::RoundRobin::new()));
        registry.register("sed", |init| Box::new(sed::shortest_expected_delay(init)));
        registry.register("sh", |_| Box::new(sh::SourceHashing::new()));
        registry.register("twos", |init| Box::new(twos::PowerOfTwoChoices::new(init)));
        registry.register("wlc", |init| Box::new(wlc::weighted_least_connection(init)));
        registry.register("wrr", |_| Box::new(wrr::WeightedRoundRobin::new()));
        registry
    }
}

impl fmt::Debug for SchedulerRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
