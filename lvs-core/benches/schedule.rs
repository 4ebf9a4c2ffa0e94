//! What one choice costs, for every scheduler at 10 to 10,000 servers, beside the plain linear scan in the same run;
//! and what adding, editing and deleting a server costs.
//! One `choose` is a whole connection as a scheduler sees it: the choice and the counts that move: opened, active,
//! closed.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion};
use lvs_core::scheduler::Change;
use lvs_core::service::RealServer;
use lvs_core::{Instant, Scheduler, SchedulerRegistry, Settings};
use lvs_testkit::scheduler::plain::plain;
use lvs_testkit::scheduler::{INIT, request, server};

fn main() {
    let mut criterion = Criterion::default()
        .measurement_time(Duration::from_millis(300))
        .warm_up_time(Duration::from_millis(100))
        .sample_size(15)
        .without_plots()
        .configure_from_args();
    choose(&mut criterion);
    change(&mut criterion);
    criterion.final_summary();
}

fn choose(criterion: &mut Criterion) {
    let registry = SchedulerRegistry::default();
    for count in COUNTS {
        for name in registry.names().filter(|name| *name != "none") {
            let made = || registry.create(name, &INIT).expect("a registered name");
            choose_with(criterion, name, count, made, even);
            let scanned = || plain(name, &INIT).expect("asked before");
            if plain(name, &INIT).is_some() {
                choose_with(criterion, &format!("{name} scanned"), count, scanned, even);
            }
            if name == "wrr" {
                choose_with(criterion, "wrr steep", count, made, steep);
                choose_with(criterion, "wrr steep scanned", count, scanned, steep);
            }
        }
    }
}

fn choose_with(
    criterion: &mut Criterion,
    label: &str,
    count: u32,
    scheduler: impl FnOnce() -> Box<dyn Scheduler>,
    weight: fn(u32) -> u32,
) {
    let mut service = Service::new(scheduler(), count, weight);
    criterion
        .benchmark_group("choose")
        .bench_function(BenchmarkId::new(label, count), |bencher| bencher.iter(|| service.connect()));
}

/// Weights 1 to 5.
fn even(number: u32) -> u32 {
    number % 5 + 1
}

/// One server of weight 1,000 among servers of weight 1.
fn steep(number: u32) -> u32 {
    if number == 5 { 1_000 } else { 1 }
}

/// Adding a server at the head and deleting it again, and changing the weight of one to and fro.
fn change(criterion: &mut Criterion) {
    let registry = SchedulerRegistry::default();
    for count in COUNTS {
        let mut group = criterion.benchmark_group("change");
        for name in registry.names().filter(|name| *name != "none") {
            let made = registry.create(name, &INIT).expect("a registered name");
            let mut service = Service::new(made, count, even);
            group.bench_function(BenchmarkId::new(format!("{name} add and delete"), count), |bencher| {
                bencher.iter_batched(
                    || server(1 << 20, 3),
                    |server| service.add_and_delete(server),
                    BatchSize::SmallInput,
                );
            });
            group.bench_function(BenchmarkId::new(format!("{name} edit"), count), |bencher| {
                bencher.iter(|| service.edit());
            });
        }
    }
}

/// A service with `count` servers under a steady load: for each of weight w some 4w connections.
struct Service {
    scheduler: Box<dyn Scheduler>,
    servers: Vec<RealServer>,
    settings: Settings,
    /// Where the last connections went, oldest at `next`.
    open: Vec<Option<usize>>,
    next: usize,
    requests: u16,
}

impl Service {
    fn new(mut scheduler: Box<dyn Scheduler>, count: u32, weight: fn(u32) -> u32) -> Self {
        let mut servers: Vec<RealServer> = (0..count).map(|number| server(number, weight(number))).collect();
        let mut open = Vec::new();
        for turn in 0..20 {
            for (index, server) in servers.iter_mut().enumerate().filter(|(_, server)| turn < server.weight * 4) {
                server.total_connections += 1;
                server.active_connections += 1;
                open.push(Some(index));
            }
        }
        scheduler.servers_changed(Change::Reset, &servers);
        Self { scheduler, servers, settings: Settings::default(), open, next: 0, requests: 0 }
    }

    /// A connection opens and becomes active; the oldest one closes.
    fn connect(&mut self) {
        self.requests = self.requests.wrapping_add(1);
        let request = request(Instant::ZERO, self.requests, self.requests % 1_000, &self.settings);
        let choice = self.scheduler.schedule(black_box(&request), &self.servers);
        if let Some(index) = choice {
            self.count(index, |server| server.total_connections += 1);
            self.count(index, |server| server.active_connections += 1);
        }
        if let Some(index) = core::mem::replace(&mut self.open[self.next], choice) {
            self.count(index, |server| server.active_connections -= 1);
            self.count(index, |server| server.total_connections -= 1);
        }
        self.next = (self.next + 1) % self.open.len();
    }

    fn count(&mut self, index: usize, moves: impl FnOnce(&mut RealServer)) {
        moves(&mut self.servers[index]);
        self.scheduler.load_changed(index, &self.servers);
    }

    fn add_and_delete(&mut self, server: RealServer) {
        let id = server.id;
        self.servers.insert(0, server);
        self.scheduler.servers_changed(Change::Added { index: 0 }, &self.servers);
        self.servers.remove(0);
        self.scheduler.servers_changed(Change::Removed { index: 0, id }, &self.servers);
    }

    fn edit(&mut self) {
        let index = self.servers.len() / 2;
        let server = &mut self.servers[index];
        server.weight = server.weight % 5 + 1;
        server.last_weight = server.weight;
        self.scheduler.servers_changed(Change::Edited { index }, &self.servers);
    }
}

const COUNTS: [u32; 4] = [10, 100, 1_000, 10_000];
