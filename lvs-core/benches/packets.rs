//! What a packet of a known connection costs in the core: random flows through every forwarding method, requests and
//! replies, over IPv4 and IPv6, one by one and in batches, beside a bare hashbrown lookup of the same keys in the same
//! run.
//!
//! `cargo bench -p lvs-core --bench packets`; `LVS_BENCH_FLOWS=1000000` for one size only, `-- known_nat4` for some
//! rows. `refill_only` is what the bench itself takes to write the packets: to be subtracted from the others.
//! The figures it gave are in `benches/README.md`.

use std::collections::HashMap;
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lvs_core::{Director, DirectorConfig, HEADROOM, Instant, PacketBuf, Seed, Side, Verdict};
use lvs_testkit::tcp;

/// Bytes from one packet to the next: not a power of two, so that headers do not share cache sets.
const STRIDE: usize = 2112;
const RING: usize = 64;
const BATCH: usize = 32;
/// FullNAT has some 60,000 local ports towards each of them.
const SERVERS: u32 = 20;

fn sizes() -> Vec<u32> {
    match std::env::var("LVS_BENCH_FLOWS") {
        Ok(flows) => vec![flows.parse().expect("a number of flows")],
        Err(_) => vec![1_000, 60_000, 1_000_000],
    }
}

/// Which packets a row is about.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    is_ipv4: bool,
    is_reply: bool,
    method: &'static str,
}

const ROWS: [Row; 11] = [
    Row { name: "nat4", is_ipv4: true, is_reply: false, method: "-m" },
    Row { name: "nat4_reply", is_ipv4: true, is_reply: true, method: "-m" },
    Row { name: "nat6", is_ipv4: false, is_reply: false, method: "-m" },
    Row { name: "nat6_reply", is_ipv4: false, is_reply: true, method: "-m" },
    Row { name: "dr4", is_ipv4: true, is_reply: false, method: "-g" },
    Row { name: "dr6", is_ipv4: false, is_reply: false, method: "-g" },
    Row { name: "tunnel4", is_ipv4: true, is_reply: false, method: "-i" },
    Row { name: "tunnel6", is_ipv4: false, is_reply: false, method: "-i" },
    Row { name: "fullnat4", is_ipv4: true, is_reply: false, method: "--fullnat" },
    Row { name: "fullnat4_reply", is_ipv4: true, is_reply: true, method: "--fullnat" },
    Row { name: "fullnat6", is_ipv4: false, is_reply: false, method: "--fullnat" },
];

/// A director with open connections, and the packets to come.
struct Traffic {
    row: Row,
    director: Director,
    flows: u32,
    template: Vec<u8>,
    /// Server and port at this side of each flow, as its server sees it.
    server_sides: Vec<(u8, u16)>,
    next: u64,
}

impl Traffic {
    fn new(row: Row, flows: u32) -> Self {
        let side = Side::default().with(|side| {
            side.mtu = 1500;
            side.ipv4 = "10.0.0.254".parse().ok();
            side.ipv6 = "fd00::ff".parse().ok();
        });
        let config = DirectorConfig::default().with(|config| {
            config.connections_max = flows + flows / 8;
            config.server_side = side;
        });
        let mut director = Director::new(config, Seed::new(1));
        for command in lvs_admin::parse_rules(&rules(row)).expect("the rules are right") {
            director.apply(Instant::ZERO, &command).expect("the rules are accepted");
        }
        let template = template(row, false);
        let mut traffic = Self { row, director, flows, template, server_sides: Vec::new(), next: 1 };
        for n in 0..flows {
            traffic.open(n);
        }
        traffic
    }

    /// A handshake, as far as the director sees it.
    fn open(&mut self, n: u32) {
        let mut storage = [0; 192];
        let to_server = Row { is_reply: false, ..self.row };
        for is_syn in [true, false] {
            let template = template(to_server, is_syn);
            storage[HEADROOM..HEADROOM + template.len()].copy_from_slice(&template);
            aim(&mut storage[HEADROOM..], to_server, client(n), (0, 0));
            let mut packet = PacketBuf::new(&mut storage, HEADROOM, template.len());
            let verdict = self.director.handle_packet(Instant::ZERO, &mut packet);
            assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
            if is_syn && self.row.is_reply {
                let (server_at, port_at) = if self.row.is_ipv4 { (19, 20) } else { (39, 40) };
                let bytes = packet.bytes();
                let port = u16::from_be_bytes([bytes[port_at], bytes[port_at + 1]]);
                self.server_sides.push((bytes[server_at], port));
            }
        }
    }

    /// Writes the next packets, of flows without pattern.
    fn refill(&mut self, ring: &mut [u8]) {
        for storage in ring.chunks_mut(STRIDE) {
            self.next = self.next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let n = (((self.next >> 32) * u64::from(self.flows)) >> 32) as u32;
            let packet = &mut storage[HEADROOM..HEADROOM + self.template.len()];
            packet.copy_from_slice(&self.template);
            let server_side = self.server_sides.get(n as usize).copied().unwrap_or_default();
            aim(packet, self.row, client(n), server_side);
        }
    }
}

fn rules(row: Row) -> String {
    let (vip, local) = if row.is_ipv4 { ("192.0.2.1", "10.0.0.200") } else { ("[2001:db8::1]", "fd00::200") };
    let mut rules = format!("-A -t {vip}:80 -s rr\n--add-laddr -t {vip}:80 --local-address {local}\n");
    for n in 1..=SERVERS {
        let server = if row.is_ipv4 { format!("10.0.0.{n}") } else { format!("[fd00::{n:x}]") };
        rules += &format!("-a -t {vip}:80 -r {server}:80 {}\n", row.method);
    }
    rules
}

fn template(row: Row, is_syn: bool) -> Vec<u8> {
    let packet = match (row.is_ipv4, row.is_reply) {
        (true, false) => tcp("11.0.0.0:1024", "192.0.2.1:80"),
        (true, true) => tcp("10.0.0.0:80", "10.0.0.200:1024"),
        (false, false) => tcp("[2001:db8:c::]:1024", "[2001:db8::1]:80"),
        (false, true) => tcp("[fd00::]:80", "[fd00::200]:1024"),
    };
    if is_syn { packet.syn().build() } else { packet.ack().build() }
}

fn client(n: u32) -> (u32, u16) {
    (n / 60_000, (n % 60_000) as u16 + 1024)
}

/// Gives a packet the ends of a flow and a right header checksum; the TCP checksum is not looked at.
fn aim(packet: &mut [u8], row: Row, (client, port): (u32, u16), (server, local_port): (u8, u16)) {
    let is_fullnat_reply = row.is_reply && row.method == "--fullnat";
    let (addresses, ports) = if row.is_ipv4 { (12, 20) } else { (8, 40) };
    let address_len = (ports - addresses) / 2;
    let (client_at, port_at) = if row.is_reply { (addresses + address_len, ports + 2) } else { (addresses, ports) };
    if !is_fullnat_reply && row.is_ipv4 {
        packet[client_at..client_at + 4].copy_from_slice(&Ipv4Addr::from(0x0b00_0000 + client).octets());
    } else if !is_fullnat_reply {
        let client = Ipv6Addr::from(0x2001_0db8_000c_0000_0000_0000_0000_0000 + u128::from(client));
        packet[client_at..client_at + 16].copy_from_slice(&client.octets());
    }
    let port = if is_fullnat_reply { local_port } else { port };
    packet[port_at..port_at + 2].copy_from_slice(&port.to_be_bytes());
    if row.is_reply {
        packet[addresses + address_len - 1] = server;
    }
    if row.is_ipv4 {
        packet[10..12].fill(0);
        let sum: u32 = packet[..20].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        packet[10..12].copy_from_slice(&(!(folded + (folded >> 16)) as u16).to_be_bytes());
    }
}

fn known(c: &mut Criterion) {
    for row in ROWS {
        let mut group = c.benchmark_group(format!("known_{}", row.name));
        group.throughput(Throughput::Elements(RING as u64)).measurement_time(Duration::from_secs(1)).sample_size(20);
        group.warm_up_time(Duration::from_millis(500));
        for flows in sizes() {
            // Made only for rows that were asked for.
            let mut made = None;
            let mut ring = vec![0u8; RING * STRIDE];
            group.bench_function(BenchmarkId::new("refill_only", flows), |b| {
                let traffic = made.get_or_insert_with(|| Traffic::new(row, flows));
                b.iter(|| traffic.refill(&mut ring));
            });
            group.bench_function(BenchmarkId::new("single", flows), |b| {
                let traffic = made.get_or_insert_with(|| Traffic::new(row, flows));
                b.iter(|| {
                    traffic.refill(&mut ring);
                    for storage in ring.chunks_mut(STRIDE) {
                        let mut packet = PacketBuf::new(storage, HEADROOM, traffic.template.len());
                        let _ = black_box(traffic.director.handle_packet(Instant::ZERO, &mut packet));
                    }
                });
            });
            group.bench_function(BenchmarkId::new("batch", flows), |b| {
                let traffic = made.get_or_insert_with(|| Traffic::new(row, flows));
                b.iter(|| {
                    traffic.refill(&mut ring);
                    for part in ring.chunks_mut(STRIDE * BATCH) {
                        let mut storages = part.chunks_mut(STRIDE);
                        let mut packets: [PacketBuf<'_>; BATCH] = std::array::from_fn(|_| {
                            let storage = storages.next().expect("a part holds a batch");
                            PacketBuf::new(storage, HEADROOM, traffic.template.len())
                        });
                        traffic.director.handle_batch(Instant::ZERO, &mut packets, |_, _, verdict| {
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
    group.throughput(Throughput::Elements(RING as u64)).measurement_time(Duration::from_secs(1)).sample_size(20);
    group.warm_up_time(Duration::from_millis(500));
    for flows in sizes() {
        let key = |n: u32| (0x0b00_0000 + n / 60_000, (n % 60_000) as u16 + 1024, 0xc000_0201u32, 80u16, 6u8);
        let mut made = None;
        let mut next = 1u64;
        group.bench_function(BenchmarkId::new("get", flows), |b| {
            let table = made.get_or_insert_with(|| {
                let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
                let mut table = HashMap::with_capacity_and_hasher(flows as usize, hasher);
                table.extend((0..flows).map(|n| (key(n), [u64::from(n); 7])));
                table
            });
            b.iter(|| {
                for _ in 0..RING {
                    next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    black_box(table.get(&key((((next >> 32) * u64::from(flows)) >> 32) as u32)));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, known, bare_lookup);
criterion_main!(benches);
