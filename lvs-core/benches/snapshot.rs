//! A million connections saved and loaded, beside plain insertion: what a restart costs.
//! `cargo bench -p lvs-core --bench snapshot`.

use core::time::Duration;
use std::hint::black_box;
use std::time::Instant as Wall;

use lvs_core::snapshot::{Restore, Snapshot};
use lvs_core::{Command, Protocol};
use lvs_core::{Director, DirectorConfig, Instant, Seed, ServerConfig, ServiceConfig, ServiceKey};
use lvs_testkit::{Storage, udp};

const CONNECTIONS: u32 = 1_000_000;
const NOW: Instant = Instant::from_secs(1);
const ROUNDS: usize = 5;

fn director() -> Director {
    let config = DirectorConfig::default().with(|config| config.connections_max = CONNECTIONS + 1);
    let mut director = Director::new(config, Seed::new(1));
    let service = ServiceKey::address(Protocol::Udp, "192.0.2.1:53".parse().expect("an address"));
    director.apply(NOW, &Command::AddService(service, ServiceConfig::new("rr"))).expect("it is right");
    for last in 1..=10 {
        let server = ServerConfig::nat(([10, 0, 0, last], 53).into());
        director.apply(NOW, &Command::AddServer(service, server)).expect("it is right");
    }
    director
}

/// A million first packets, and how long they take by themselves.
fn fill(director: &mut Director) -> Duration {
    let template = udp("198.51.100.7:1024", "192.0.2.1:53").no_checksum().payload(b"x").build();
    let mut took = Duration::ZERO;
    let mut first = 0;
    while first < CONNECTIONS {
        let batch = 10_000.min(CONNECTIONS - first);
        let mut storages: Vec<_> = (first..first + batch)
            .map(|number| {
                let mut packet = template.clone();
                packet[12..16].copy_from_slice(&(0x0b00_0000 + number).to_be_bytes());
                lvs_testkit::strategy::repair_ipv4_checksum(&mut packet);
                Storage::with_room(&packet, 64, 128)
            })
            .collect();
        let start = Wall::now();
        for storage in &mut storages {
            let _ = black_box(director.handle_packet(NOW, &mut storage.packet()));
        }
        took += start.elapsed();
        first += batch;
    }
    assert_eq!(director.connection_count(NOW), CONNECTIONS as usize);
    took
}

/// Time, longest step, bytes.
fn save(director: &Director) -> (Duration, Duration, Vec<u8>) {
    let mut bytes = Vec::with_capacity(32 << 20);
    let (mut snapshot, mut chunk) = (Snapshot::new(), vec![0; Snapshot::CHUNK]);
    let (mut whole, mut longest) = (Duration::ZERO, Duration::ZERO);
    loop {
        let start = Wall::now();
        let len = director.save(NOW, &mut snapshot, &mut chunk);
        let step = start.elapsed();
        (whole, longest) = (whole + step, longest.max(step));
        if len == 0 {
            return (whole, longest, bytes);
        }
        bytes.extend_from_slice(&chunk[..len]);
    }
}

fn main() {
    let median = |mut all: Vec<Duration>| {
        all.sort_unstable();
        all[all.len() / 2]
    };
    let mut source = director();
    let mut inserted = vec![fill(&mut source)];
    let (mut saved, mut steps, mut read, mut loaded, mut len) = (vec![], vec![], vec![], vec![], 0);
    for _ in 0..ROUNDS {
        let (whole, longest, bytes) = save(&source);
        saved.push(whole);
        steps.push(longest);
        len = bytes.len();
        let start = Wall::now();
        let mut restore = Restore::new();
        bytes.chunks(64 << 10).for_each(|piece| assert!(restore.feed(piece).is_ok()));
        let whole = restore.finish().expect("a snapshot");
        read.push(start.elapsed());
        let mut target = director();
        let start = Wall::now();
        let outcome = target.restore(NOW, &whole, Duration::ZERO, |_| true);
        loaded.push(start.elapsed());
        assert_eq!(outcome.connections, CONNECTIONS);
        drop(target);
        inserted.push(fill(&mut director()));
    }
    let [inserted, saved, step, read, loaded] = [inserted, saved, steps, read, loaded].map(median);
    println!("a million connections, {len} bytes (medians of {ROUNDS})");
    println!("  saved:          {saved:?}, longest step {step:?}");
    println!("  read, checked:  {read:?}");
    println!("  loaded:         {loaded:?}");
    println!(
        "  first packets:  {inserted:?}; read and loaded take {:.2} of it",
        (read + loaded).as_secs_f64() / inserted.as_secs_f64()
    );
}
