//! How many instructions the steps of a packet's way take, counted by valgrind: numbers that do not depend on how busy
//! the machine is. The benches in `packets.rs` say what they cost in time, caches included.
//!
//! Needs valgrind and, in the version of the `gungraun` dependency, its runner:
//! `cargo install gungraun-runner --version 0.20.0`, then `cargo bench -p lvs-core --bench instructions`.
//! Without the runner the bench stops and says so. Each figure is for one packet, those of `handle_batch` for 32.

#![allow(missing_docs, reason = "the macros make public items")]

use std::hint::black_box;

use gungraun::{library_benchmark, library_benchmark_group, main};
use lvs_core::wire::parse::{Headers, parse};
use lvs_core::wire::rewrite::{Rewrite, rewrite};
use lvs_core::{Director, DirectorConfig, DropReason, HEADROOM, Instant, PacketBuf, Seed, Verdict};
use lvs_testkit::{tcp, udp};

/// Bytes from one packet to the next.
const STRIDE: usize = 192;
const BATCH: usize = 32;

/// A packet with room around it.
fn stored(packet: &[u8]) -> Vec<u8> {
    let mut storage = vec![0; STRIDE];
    storage[HEADROOM..HEADROOM + packet.len()].copy_from_slice(packet);
    storage
}

/// The whole packet that `storage` holds, with the length its header gives.
fn packet(storage: &mut [u8]) -> PacketBuf<'_> {
    let headers = parse(&storage[HEADROOM..]).expect("the packet is right");
    PacketBuf::new(storage, HEADROOM, headers.packet_len)
}

fn tcp4() -> Vec<u8> {
    tcp("203.0.113.7:1024", "192.0.2.1:80").ack().build()
}

fn tcp6() -> Vec<u8> {
    tcp("[2001:db8:1::7]:1024", "[2001:db8::1]:80").ack().build()
}

fn udp4() -> Vec<u8> {
    udp("203.0.113.7:1024", "192.0.2.1:80").payload(b"question").build()
}

#[library_benchmark]
#[bench::tcp4(tcp4())]
#[bench::tcp6(tcp6())]
fn parse_packet(packet: Vec<u8>) -> (Result<Headers, DropReason>, Vec<u8>) {
    (black_box(parse(black_box(&packet))), packet)
}

/// A packet, its headers, and where it goes.
struct Translation {
    storage: Vec<u8>,
    headers: Headers,
    len: usize,
    change: Rewrite,
}

fn translation(packet: Vec<u8>, server: &str) -> Box<Translation> {
    let headers = parse(&packet).expect("the packet is right");
    let change = Rewrite { source: None, destination: Some(server.parse().map(endpoint).expect("an address")) };
    Box::new(Translation { storage: stored(&packet), headers, len: packet.len(), change })
}

fn endpoint(address: std::net::SocketAddr) -> lvs_core::Endpoint {
    lvs_core::Endpoint::new(address.ip(), address.port())
}

#[library_benchmark]
#[bench::tcp4(translation(tcp4(), "10.0.0.2:8080"))]
#[bench::udp4(translation(udp4(), "10.0.0.2:8080"))]
#[bench::tcp6(translation(tcp6(), "[2001:db8:2::2]:8080"))]
fn rewrite_packet(mut given: Box<Translation>) -> Box<Translation> {
    let mut packet = PacketBuf::new(&mut given.storage, HEADROOM, given.len);
    black_box(rewrite(black_box(&mut packet), black_box(&given.headers), black_box(&given.change))).expect("it fits");
    given
}

/// A director, the next packets for it, and what became of them.
struct Traffic {
    director: Director,
    storages: Vec<Vec<u8>>,
}

/// A director that was given `seen` and will be given `coming`.
fn traffic(method: &str, seen: &[Vec<u8>], coming: &[Vec<u8>]) -> Box<Traffic> {
    let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
    let rules = format!(
        "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 {method}\n\
         -A -t [2001:db8::1]:80 -s rr\n-a -t [2001:db8::1]:80 -r [2001:db8:2::2]:80 {method}"
    );
    for command in lvs_admin::parse_rules(&rules).expect("the rules are right") {
        director.apply(Instant::ZERO, &command).expect("the rules are accepted");
    }
    for bytes in seen {
        let mut storage = stored(bytes);
        let verdict = director.handle_packet(Instant::ZERO, &mut packet(&mut storage));
        assert!(matches!(verdict, Verdict::Forward { .. }));
    }
    Box::new(Traffic { director, storages: coming.iter().map(|bytes| stored(bytes)).collect() })
}

fn syn4() -> Vec<u8> {
    tcp("203.0.113.7:1024", "192.0.2.1:80").syn().build()
}

fn syn6() -> Vec<u8> {
    tcp("[2001:db8:1::7]:1024", "[2001:db8::1]:80").syn().build()
}

fn known4(method: &str) -> Box<Traffic> {
    traffic(method, &[syn4(), tcp4()], &[tcp4()])
}

fn known6(method: &str) -> Box<Traffic> {
    traffic(method, &[syn6(), tcp6()], &[tcp6()])
}

fn replies4() -> Box<Traffic> {
    let reply = tcp("10.0.0.2:80", "203.0.113.7:1024").ack().build();
    traffic("-m", &[syn4(), tcp4(), reply.clone()], &[reply])
}

fn opening4(method: &str) -> Box<Traffic> {
    let other = tcp("203.0.113.8:1024", "192.0.2.1:80").syn().build();
    traffic(method, &[other], &[syn4()])
}

fn nobodys4() -> Box<Traffic> {
    traffic("-m", &[syn4()], &[tcp("203.0.113.7:1024", "198.51.100.1:80").ack().build()])
}

#[library_benchmark]
#[bench::known_nat4(known4("-m"))]
#[bench::known_nat6(known6("-m"))]
#[bench::known_reply4(replies4())]
#[bench::known_dr4(known4("-g"))]
#[bench::known_dr6(known6("-g"))]
#[bench::new_nat4(opening4("-m"))]
#[bench::nobodys4(nobodys4())]
fn handle_packet(mut given: Box<Traffic>) -> Box<Traffic> {
    let Traffic { director, storages } = &mut *given;
    let len = if storages[0][HEADROOM] >> 4 == 4 { 40 } else { 60 };
    let mut packet = PacketBuf::new(&mut storages[0], HEADROOM, len);
    let _ = black_box(director.handle_packet(Instant::ZERO, black_box(&mut packet)));
    given
}

/// As many flows as fit a batch, each with a packet to come.
fn batch4(method: &str) -> Box<Traffic> {
    let client = |n: usize| format!("203.0.113.{n}:1024");
    let opening: Vec<_> = (0..BATCH).map(|n| tcp(client(n).as_str(), "192.0.2.1:80").syn().build()).collect();
    let coming: Vec<_> = (0..BATCH).map(|n| tcp(client(n).as_str(), "192.0.2.1:80").ack().build()).collect();
    traffic(method, &[opening, coming.clone()].concat(), &coming)
}

#[library_benchmark]
#[bench::known_nat4(batch4("-m"))]
fn handle_batch(mut given: Box<Traffic>) -> Box<Traffic> {
    let Traffic { director, storages } = &mut *given;
    let mut storages = storages.iter_mut();
    let mut packets: [PacketBuf<'_>; BATCH] =
        std::array::from_fn(|_| PacketBuf::new(storages.next().expect("one for each packet"), HEADROOM, 40));
    director.handle_batch(Instant::ZERO, &mut packets, |_, _, verdict| {
        let _ = black_box(verdict);
    });
    given
}

library_benchmark_group!(name = wire; benchmarks = parse_packet, rewrite_packet);
library_benchmark_group!(name = director; benchmarks = handle_packet, handle_batch);
main!(library_benchmark_groups = wire, director);
