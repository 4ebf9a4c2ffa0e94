//! A load balancer on two TUN devices, one towards the clients and one towards the servers, set up by a file of rules
//! as `ipvsadm -S` writes them. Every few seconds it prints what `ipvsadm -Ln --stats` would.
//!
//! ```text
//! printf '%s\n' '-A -t 192.0.2.80:80 -s wlc' '-a -t 192.0.2.80:80 -r 10.0.0.2:8080 -m' > rules
//! cargo run --release -p lvs-examples --example tun_director -- front back rules
//! ```
//!
//! While it runs (the devices live as long as it does), in another terminal, as root. The machine is a router:
//! `sysctl net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=2`. Requests go into `front`, and come out of `back`
//! towards the servers; their replies (here they come in by eth1) go into `back` and come out of `front`:
//! ```text
//! ip link set front up; ip link set back up; ip route add 192.0.2.80 dev front
//! ip route add default dev back table 80; ip rule add iif eth1 from 10.0.0.0/24 lookup 80
//! ```
use std::error::Error;
use std::thread;
use std::time::Duration;

use lvs_admin::{Columns, ListOptions, Listing, Names, list, parse_rules};
use lvs_core::{Director, DirectorConfig, Instant, Seed};
use lvs_io::{Worker, WorkerHandle};
use lvs_io_tun::{TunOptions, TunQueue};

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [front, back, rules] = &arguments[..] else { return Err("usage: tun_director FRONT BACK RULES-FILE".into()) };

    // Each line of the rules is a command for the director.
    let rules = std::fs::read_to_string(rules).map_err(|error| format!("{rules}: {error}"))?;
    let mut director = Director::new(DirectorConfig::default(), Seed::new(std::process::id().into()));
    for command in parse_rules(&rules)? {
        director.apply(Instant::ZERO, &command)?;
    }

    // Requests are received in front and sent at the back, replies the other way round.
    let front = TunQueue::open(front, &TunOptions::default())?;
    let back = TunQueue::open(back, &TunOptions::default())?;
    println!("balancing between {} and {}", front.name(), back.name());
    let mut worker = Worker::new(director, front.into_arm(), Some(back.into_arm()))?;

    // The director belongs to the worker's thread. Others ask through its handle, between two batches of packets.
    let handle = worker.handle();
    thread::spawn(move || print_statistics(&handle));
    worker.run()?;
    Ok(())
}

fn print_statistics(worker: &WorkerHandle) {
    let options =
        ListOptions { listing: Listing::Services(Columns::Statistics), numeric: true, ..ListOptions::default() };
    // Until the worker ends.
    while let Ok(services) = worker.with(|director, now| director.services(now)) {
        match list(&services, &options, &Names::none()) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("{error}"),
        }
        thread::sleep(EVERY);
    }
}

const EVERY: Duration = Duration::from_secs(5);
