//! A scheduler of your own: of two random servers the one whose reported latency is lower.
//! Under its name it works wherever one is accepted. `cargo run -p lvs-examples --example custom_scheduler`

use std::sync::{Arc, RwLock};

use lvs_core::rng::Rng;
use lvs_core::scheduler::{Change, LoadFormula, Request, SchedulerInit};
use lvs_core::service::{RealServer, SchedulerFlags, ServerId};
use lvs_core::{AddressFamily, Endpoint, Instant, Protocol, Scheduler, SchedulerRegistry, Seed, Settings};

/// Milliseconds by address, shared with the agent that measures them.
pub(crate) type Latencies = Arc<RwLock<std::collections::HashMap<Endpoint, u32>>>;

/// Power of two choices, by latency.
#[derive(Clone)]
pub(crate) struct FasterOfTwo {
    pub(crate) random: Rng,
    pub(crate) latencies: Latencies,
}

impl Scheduler for FasterOfTwo {
    fn name(&self) -> &'static str {
        "faster"
    }

    fn schedule(&mut self, _: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
        let eligible: Vec<usize> = (0..servers.len()).filter(|index| servers[*index].is_eligible()).collect();
        let last = eligible.len().checked_sub(1)?;
        let two = [(); 2].map(|()| eligible[self.random.up_to(last as u32) as usize]);
        let latencies = self.latencies.read().ok()?;
        two.into_iter().min_by_key(|index| latencies.get(&servers[*index].key))
    }

    fn boxed_clone(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }
}

fn main() {
    let (latencies, mut registry) = (Latencies::default(), SchedulerRegistry::default());
    let reported = latencies.clone(); // what the agent writes, every shard's scheduler reads
    registry.register("faster", move |init| {
        Box::new(FasterOfTwo { random: Rng::new(init.seed), latencies: reported.clone() })
    });

    let init = SchedulerInit { seed: Seed::new(1), load_formula: LoadFormula::default(), family: AddressFamily::Ipv4 };
    let mut scheduler = registry.create("faster", &init).expect("registered above");
    let at = |host: u32| Endpoint::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 + host).into(), 80);
    let servers: Vec<_> = (1..=4).map(|host| RealServer::new(ServerId(host), at(host), 1)).collect();
    scheduler.servers_changed(Change::Reset, &servers);
    latencies.write().expect("no other thread").extend([(at(1), 90), (at(2), 10), (at(3), 30), (at(4), 20)]);

    let (now, protocol, settings) = (Instant::ZERO, Protocol::Tcp, &Settings::default());
    let (client, destination, flags) = (at(99), at(80), SchedulerFlags::default());
    let request = Request { now, protocol, client, destination, flags, settings };
    let chosen: Vec<_> = (0..1000).filter_map(|_| scheduler.schedule(&request, &servers)).collect();
    for (index, server) in servers.iter().enumerate() {
        println!("{} was chosen {} times", server.key, chosen.iter().filter(|choice| **choice == index).count());
    }
}
