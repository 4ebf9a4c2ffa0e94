//! A property kit for schedulers: what everybody may rely on, checked by random histories of a service.
//! The built-in ones run through it, and so should yours: [`check_scheduler`]. [`plain`] holds the rules as written,
//! server by server: the oracles for the faster ones.

pub mod plain;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lvs_core::scheduler::{Change, LoadFormula, Request, SchedulerInit};
use lvs_core::service::{RealServer, SchedulerFlags, ServerId};
use lvs_core::{AddressFamily, Endpoint, Instant, Protocol, Scheduler, Seed, Settings};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

/// What a scheduler promises. [`Promises::ALL`] is what most do; take back what yours does not.
#[derive(Clone, Copy, Debug)]
pub struct Promises {
    /// Chooses somebody as long as anybody is eligible. Schedulers that tie clients to servers (`sh`, `dh`, `mh`) do
    /// not, nor does one that fills servers up (`ovf`).
    pub serves_while_it_can: bool,
    /// Never chooses an overloaded server. `lblc` does, for destinations it remembers.
    pub respects_thresholds: bool,
    /// Under equal weights every eligible server is chosen sooner or later. `fo` and `ovf` prefer one on purpose.
    pub starves_nobody: bool,
}

impl Promises {
    /// Everything.
    pub const ALL: Self = Self { serves_while_it_can: true, respects_thresholds: true, starves_nobody: true };

    /// Without [`Self::serves_while_it_can`].
    #[must_use]
    pub const fn may_refuse(mut self) -> Self {
        self.serves_while_it_can = false;
        self
    }

    /// Without [`Self::respects_thresholds`].
    #[must_use]
    pub const fn may_pass_thresholds(mut self) -> Self {
        self.respects_thresholds = false;
        self
    }

    /// Without [`Self::starves_nobody`].
    #[must_use]
    pub const fn may_starve(mut self) -> Self {
        self.starves_nobody = false;
        self
    }
}

/// Plays random histories (additions, deletions, edits, moving loads, requests, time) and checks:
///
/// * a choice is in the list, not quiesced, and not overloaded (unless excepted);
/// * there is no choice if nobody is eligible, and (unless excepted) only then;
/// * equal seeds and equal histories give equal choices, and so does a copy from the moment it was made;
/// * no eligible server starves under equal weights (unless excepted);
/// * a server that never was is not remembered; nothing panics.
///
/// # Panics
///
/// With the shortest history found that breaks a promise.
pub fn check_scheduler(factory: impl Fn(&SchedulerInit) -> Box<dyn Scheduler>, promises: Promises) {
    let weights = prop_oneof![4 => 0..6u32, 1 => 0..=65_535u32];
    for initial in [0..6, 60..140] {
        run(&history(initial, weights.clone()), |history| {
            let mut original = Stage::new(factory(&INIT));
            let mut repeated = Stage::new(factory(&INIT));
            let mut copy: Option<Stage> = None;
            for (place, step) in history.iter().enumerate() {
                let choice = original.play(step);
                if let Some(choice) = choice {
                    original.check_choice(choice, promises)?;
                }
                prop_assert_eq!(repeated.play(step), choice, "a second run chooses otherwise");
                if let Some(copy) = &mut copy {
                    prop_assert_eq!(copy.play(step), choice, "a copy chooses otherwise");
                }
                if place == history.len() / 2 {
                    copy = Some(original.copy());
                }
            }
            prop_assert!(!original.scheduler.remembers(ServerId(u32::MAX)), "remembers a server that never was");
            Ok(())
        });
    }
    if promises.starves_nobody {
        check_nobody_starves(&factory);
    }
}

/// Plays random histories through two schedulers, which must choose alike at every request.
/// `weights` says which weights servers have.
///
/// # Panics
///
/// With the shortest history found in which they differ.
pub fn check_same_choices(
    one: impl Fn(&SchedulerInit) -> Box<dyn Scheduler>,
    other: impl Fn(&SchedulerInit) -> Box<dyn Scheduler>,
    weights: impl Strategy<Value = u32> + Clone,
) {
    for initial in [0..6, 60..140] {
        run(&history(initial, weights.clone()), |history| {
            let mut one = Stage::new(one(&INIT));
            let mut other = Stage::new(other(&INIT));
            for step in &history {
                prop_assert_eq!(one.play(step), other.play(step));
            }
            Ok(())
        });
    }
}

/// What the kit tells every scheduler: the default load formula, IPv4, a fixed seed.
pub const INIT: SchedulerInit = SchedulerInit {
    seed: Seed::new(0x5c4e_d01e),
    load_formula: LoadFormula::ActiveAndTotal,
    family: AddressFamily::Ipv4,
};

/// A real server 10.x.y.z:80, named `number`.
pub fn server(number: u32, weight: u32) -> RealServer {
    let address = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number));
    RealServer::new(ServerId(number), Endpoint::new(address, 80), weight)
}

/// A request from client 198.18.x.y to 198.51.x.y, at `now`.
pub fn request<'a>(now: Instant, client: u16, destination: u16, settings: &'a Settings) -> Request<'a> {
    let client = IpAddr::V4(Ipv4Addr::from_bits(0xc612_0000 + u32::from(client)));
    let destination = IpAddr::V4(Ipv4Addr::from_bits(0xc633_0000 + u32::from(destination)));
    Request {
        now,
        protocol: Protocol::Tcp,
        client: Endpoint::new(client, 40_000),
        destination: Endpoint::new(destination, 80),
        flags: SchedulerFlags::default(),
        settings,
    }
}

/// One thing that happens to a service. Servers are named by any number, taken modulo how many there are.
#[derive(Clone, Debug)]
enum Step {
    Add { weight: u32 },
    Remove { which: usize },
    Edit { which: usize, weight: u32 },
    Load { which: usize, active: u32, inactive: u32, is_overloaded: bool },
    Request { client: u16, destination: u16, is_tcp: bool },
    Sleep { seconds: u64 },
}

/// A service is built up, and then is either much edited or left in peace for long.
fn history(
    initial: std::ops::Range<usize>,
    weights: impl Strategy<Value = u32> + Clone,
) -> impl Strategy<Value = Vec<Step>> {
    let additions = vec(weights.clone().prop_map(|weight| Step::Add { weight }), initial);
    let steps = prop_oneof![vec(step(6, weights.clone()), 1..200), vec(step(300, weights), 1..600)];
    (additions, steps).prop_map(|(mut additions, steps)| {
        additions.extend(steps);
        additions
    })
}

/// One step; `requests` of them come to each addition, deletion and edit.
fn step(requests: u32, weights: impl Strategy<Value = u32> + Clone) -> impl Strategy<Value = Step> + Clone {
    let which = || 0..1_000usize;
    let connections = || prop_oneof![6 => 0..20u32, 1 => 0..3_000_000_000u32];
    prop_oneof![
        1 => weights.clone().prop_map(|weight| Step::Add { weight }),
        1 => which().prop_map(|which| Step::Remove { which }),
        1 => (which(), weights).prop_map(|(which, weight)| Step::Edit { which, weight }),
        requests / 2 => (which(), connections(), 0..20u32, prop::bool::weighted(0.3)).prop_map(
            |(which, active, inactive, is_overloaded)| Step::Load { which, active, inactive, is_overloaded }
        ),
        requests => (0..40u16, 0..40u16, any::<bool>())
            .prop_map(|(client, destination, is_tcp)| Step::Request { client, destination, is_tcp }),
        1 => (0..100_000u64).prop_map(|seconds| Step::Sleep { seconds }),
    ]
}

/// Runs a property on histories from a fixed seed.
fn run<S: Strategy>(strategy: &S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases: 64, rng_seed: RngSeed::Fixed(0x1f5), failure_persistence: None, ..Config::default() };
    if let Err(error) = TestRunner::new(config).run(strategy, property) {
        panic!("{error}");
    }
}

/// Equal servers, some of them out of service, and many clients of many destinations.
fn check_nobody_starves(factory: &impl Fn(&SchedulerInit) -> Box<dyn Scheduler>) {
    for count in [1, 2, 3, 8, 16, 70] {
        for weight in [1, 3] {
            let mut stage = Stage::new(factory(&INIT));
            for _ in 0..count {
                stage.play(&Step::Add { weight });
            }
            if count > 2 {
                stage.play(&Step::Edit { which: 1, weight: 0 });
            }
            let mut chosen = vec![0; count];
            for number in 0..count as u16 * 64 {
                let step = Step::Request { client: number, destination: number, is_tcp: true };
                if let Some(Some(index)) = stage.play(&step) {
                    chosen[index] += 1;
                }
            }
            for (server, chosen) in stage.servers.iter().zip(chosen) {
                assert!(chosen > 0 || !server.is_eligible(), "{:?} of {count} starves", server.id);
            }
        }
    }
}

/// A service with its scheduler, kept as the director keeps one.
struct Stage {
    scheduler: Box<dyn Scheduler>,
    servers: Vec<RealServer>,
    servers_made: u32,
    now: Instant,
    settings: Settings,
}

impl Stage {
    fn new(mut scheduler: Box<dyn Scheduler>) -> Self {
        scheduler.servers_changed(Change::Reset, &[]);
        let servers = Vec::new();
        Self { scheduler, servers, servers_made: 0, now: Instant::ZERO, settings: Settings::default() }
    }

    fn copy(&self) -> Self {
        Self {
            scheduler: self.scheduler.boxed_clone(),
            servers: self.servers.clone(),
            settings: self.settings.clone(),
            ..*self
        }
    }

    /// What a request was answered; `None` for every other step.
    fn play(&mut self, step: &Step) -> Option<Option<usize>> {
        let count = self.servers.len();
        let pick = |which: usize| (count > 0).then(|| which % count);
        match *step {
            Step::Add { weight } => {
                self.servers_made += 1;
                self.servers.insert(0, server(self.servers_made, weight));
                self.scheduler.servers_changed(Change::Added { index: 0 }, &self.servers);
            }
            Step::Remove { which } => {
                let index = pick(which)?;
                let id = self.servers.remove(index).id;
                self.scheduler.servers_changed(Change::Removed { index, id }, &self.servers);
            }
            Step::Edit { which, weight } => {
                let index = pick(which)?;
                let server = &mut self.servers[index];
                server.weight = weight;
                server.last_weight = if weight > 0 { weight } else { server.last_weight };
                self.scheduler.servers_changed(Change::Edited { index }, &self.servers);
            }
            Step::Load { which, active, inactive, is_overloaded } => {
                let index = pick(which)?;
                let server = &mut self.servers[index];
                server.active_connections = active;
                server.total_connections = active + inactive;
                server.is_overloaded = is_overloaded;
                self.scheduler.load_changed(index, &self.servers);
            }
            Step::Request { client, destination, is_tcp } => {
                let request = request(self.now, client, destination, &self.settings);
                let choice = self.scheduler.schedule(&request, &self.servers);
                if let Some(index) = choice.filter(|index| *index < count) {
                    self.servers[index].active_connections += u32::from(is_tcp);
                    self.servers[index].total_connections += 1;
                    self.scheduler.load_changed(index, &self.servers);
                }
                return Some(choice);
            }
            Step::Sleep { seconds } => self.now = self.now + Duration::from_secs(seconds),
        }
        None
    }

    fn check_choice(&self, choice: Option<usize>, promises: Promises) -> Result<(), TestCaseError> {
        let Some(index) = choice else {
            let refused = !promises.serves_while_it_can || !self.servers.iter().any(RealServer::is_eligible);
            prop_assert!(refused, "no choice, though a server is eligible");
            return Ok(());
        };
        prop_assert!(index < self.servers.len(), "chose a server that is not there");
        prop_assert!(self.servers[index].weight > 0, "chose a quiesced server");
        prop_assert!(!promises.respects_thresholds || !self.servers[index].is_overloaded, "chose an overloaded server");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chooses by a rule that may well be wrong.
    #[derive(Clone)]
    struct Faulty(fn(&Request<'_>, &[RealServer]) -> Option<usize>);

    impl Scheduler for Faulty {
        fn name(&self) -> &'static str {
            "faulty"
        }

        fn schedule(&mut self, request: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
            self.0(request, servers)
        }

        fn boxed_clone(&self) -> Box<dyn Scheduler> {
            Box::new(self.clone())
        }
    }

    fn check(rule: fn(&Request<'_>, &[RealServer]) -> Option<usize>, promises: Promises) {
        check_scheduler(|_| Box::new(Faulty(rule)), promises);
    }

    fn by_client(request: &Request<'_>, candidates: Vec<usize>) -> Option<usize> {
        let IpAddr::V4(client) = request.client.address else { return None };
        candidates.get(client.to_bits() as usize % candidates.len().max(1)).copied()
    }

    fn eligible(servers: &[RealServer]) -> Vec<usize> {
        (0..servers.len()).filter(|index| servers[*index].is_eligible()).collect()
    }

    #[test]
    fn a_faultless_scheduler_passes() {
        check(|request, servers| by_client(request, eligible(servers)), Promises::ALL);
    }

    #[test]
    #[should_panic(expected = "chose a quiesced server")]
    fn choosing_a_quiesced_server_is_found() {
        let anybody = |request: &Request<'_>, servers: &[RealServer]| by_client(request, (0..servers.len()).collect());
        check(anybody, Promises::ALL.may_pass_thresholds());
    }

    #[test]
    #[should_panic(expected = "chose an overloaded server")]
    fn choosing_an_overloaded_server_is_found() {
        let not_quiesced = |request: &Request<'_>, servers: &[RealServer]| {
            by_client(request, (0..servers.len()).filter(|index| servers[*index].weight > 0).collect())
        };
        check(not_quiesced, Promises::ALL);
    }

    #[test]
    #[should_panic(expected = "no choice, though a server is eligible")]
    fn refusing_while_somebody_is_eligible_is_found() {
        check(|request, servers| by_client(request, eligible(servers)).filter(|index| *index != 1), Promises::ALL);
    }

    #[test]
    #[should_panic(expected = "starves")]
    fn starving_a_server_is_found() {
        check(|_, servers| eligible(servers).first().copied(), Promises::ALL);
    }

    #[test]
    #[should_panic(expected = "remembers a server that never was")]
    fn remembering_strangers_is_found() {
        #[derive(Clone)]
        struct Dreamer;
        impl Scheduler for Dreamer {
            fn name(&self) -> &'static str {
                "dreamer"
            }

            fn schedule(&mut self, _: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
                servers.iter().position(RealServer::is_eligible)
            }

            fn remembers(&self, _: ServerId) -> bool {
                true
            }

            fn boxed_clone(&self) -> Box<dyn Scheduler> {
                Box::new(self.clone())
            }
        }
        check_scheduler(|_| Box::new(Dreamer), Promises::ALL);
    }
}
