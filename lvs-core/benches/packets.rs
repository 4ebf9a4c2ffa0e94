//! What a packet of a known connection costs in the core: requests of random flows through NAT and direct routing, one
//! by one and in batches, beside a bare hashbrown lookup of the same keys in the same run.
//!
//! `cargo bench -p lvs-core --bench packets`; `LVS_BENCH_FLOWS=1000000` for one size only.

use std::collections::HashMap;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lvs_core::{Director, DirectorConfig, HEADROOM, Instant, PacketBuf, Seed};
use lvs_testkit::tcp;

/// Bytes from one packet to the next: not a power of two, so that headers do not share cache sets.
const STRIDE: usize = 2112;
const RING: usize = 64;
const BATCH: usize = 32;

fn sizes() -> Vec<u32> {
    match std::env::var("LVS_BENCH_FLOWS") {
        Ok(flows) => vec![flows.parse().expect("a number of flows")],
        Err(_) => vec![1_000, 60_000, 1_000_000],
    }
}

fn director(flows: u32, method: &str) -> Director {
    let config = DirectorConfig { connections_max: flows + flows / 8, ..DirectorConfig::default() };
    let mut director = Director::new(config, Seed::new(1));
    let rules = format!("-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 {method}");
    for command in lvs_admin::parse_rules(&rules).expect("the rules are right") {
        director.apply(Instant::ZERO, &command).expect("the rules are accepted");
    }
    director
}

/// The request of one flow, as a template whose client is rewritten for each use.
fn template(flags: &str) -> Vec<u8> {
    let packet = tcp("10.0.0.0:1024", "192.0.2.1:80");
    if flags == "syn" { packet.syn().build() } else { packet.ack().build() }
}

/// Gives the packet the client of flow `n` and a right header checksum; the TCP checksum is not looked at.
fn aim(packet: &mut [u8], n: u32) {
    let client = Ipv4Addr::from(0x0b00_0000 + n / 60_000);
    packet[8] = 64;
    packet[12..16].copy_from_slice(&client.octets());
    packet[16..20].copy_from_slice(&[192, 0, 2, 1]);
    packet[20..22].copy_from_slice(&((n % 60_000) as u16 + 1024).to_be_bytes());
    packet[22..24].copy_from_slice(&80u16.to_be_bytes());
    packet[10..12].fill(0);
    let sum: u32 = packet[..20].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(folded + (folded >> 16)) as u16).to_be_bytes());
}

/// A sequence of flows without pattern.
fn next(n: &mut u64, flows: u32) -> u32 {
    *n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (((*n >> 32) * u64::from(flows)) >> 32) as u32
}

fn known(c: &mut Criterion) {
    for (name, method) in [("nat", "-m"), ("dr", "-g")] {
        let mut group = c.benchmark_group(format!("known_{name}"));
        group.throughput(Throughput::Elements(RING as u64)).measurement_time(Duration::from_secs(2)).sample_size(20);
        for flows in sizes() {
            let mut director = director(flows, method);
            let mut ring = vec![0u8; RING * STRIDE];
            for n in 0..flows {
                let syn = template("syn");
                ring[HEADROOM..HEADROOM + syn.len()].copy_from_slice(&syn);
                aim(&mut ring[HEADROOM..HEADROOM + syn.len()], n);
                let mut packet = PacketBuf::new(&mut ring[..STRIDE], HEADROOM, syn.len());
                let _ = director.handle_packet(Instant::ZERO, &mut packet);
            }
            let ack = template("ack");
            let mut n = 1;
            let refill = |ring: &mut [u8], n: &mut u64| {
                for storage in ring.chunks_mut(STRIDE) {
                    let packet = &mut storage[HEADROOM..HEADROOM + ack.len()];
                    packet.copy_from_slice(&ack);
                    aim(packet, next(n, flows));
                }
            };
            group.bench_function(BenchmarkId::new("refill_only", flows), |b| b.iter(|| refill(&mut ring, &mut n)));
            group.bench_function(BenchmarkId::new("single", flows), |b| {
                b.iter(|| {
                    refill(&mut ring, &mut n);
                    for storage in ring.chunks_mut(STRIDE) {
                        let mut packet = PacketBuf::new(storage, HEADROOM, ack.len());
                        let _ = black_box(director.handle_packet(Instant::ZERO, &mut packet));
                    }
                });
            });
            group.bench_function(BenchmarkId::new("batch", flows), |b| {
                b.iter(|| {
                    refill(&mut ring, &mut n);
                    for part in ring.chunks_mut(STRIDE * BATCH) {
                        let mut storages = part.chunks_mut(STRIDE);
                        let mut packets: [PacketBuf<'_>; BATCH] = std::array::from_fn(|_| {
                            PacketBuf::new(storages.next().expect("a part holds a batch"), HEADROOM, ack.len())
                        });
                        director.handle_batch(Instant::ZERO, &mut packets, |_, _, verdict| {
                            let _ = black_box(verdict);
                        });
                    }
                });
            });
        }
        group.finish();
    }
}

/// What anybody pays who keeps such a table in hashbrown: one lookup by a 13-byte key.
fn bare_lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("bare_hashbrown_lookup");
    group.throughput(Throughput::Elements(RING as u64)).measurement_time(Duration::from_secs(2)).sample_size(20);
    for flows in sizes() {
        let key = |n: u32| (0x0b00_0000 + n / 60_000, (n % 60_000) as u16 + 1024, 0xc000_0201u32, 80u16, 6u8);
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let mut table = HashMap::with_capacity_and_hasher(flows as usize, hasher);
        table.extend((0..flows).map(|n| (key(n), [u64::from(n); 7])));
        let mut n = 1;
        group.bench_function(BenchmarkId::new("get", flows), |b| {
            b.iter(|| {
                for _ in 0..RING {
                    black_box(table.get(&key(next(&mut n, flows))));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, known, bare_lookup);
criterion_main!(benches);
