//! A device at the end of tunnels, in a worker: parts of outer packets are put together by the worker's clock.

use std::time::Duration;

use lvs_core::service::TunnelConfig;
use lvs_core::tunnel::{Accepts, Tunnel, encapsulate};
use lvs_core::wire::fragment::fragment;
use lvs_core::wire::parse::parse;
use lvs_core::{Director, DirectorConfig, Seed};
use lvs_io::{EndCountersHandle, ManualClock, MemoryPort, OnPass, Worker};
use lvs_testkit::{Storage, udp};

/// The network's side of the device, the host's, and what stands between them.
struct Bench {
    network: MemoryPort,
    host: MemoryPort,
    worker: Worker,
    clock: ManualClock,
    counters: EndCountersHandle,
}

fn bench() -> Bench {
    let (network, device) = MemoryPort::pair(64);
    let (host, to_host) = MemoryPort::pair(64);
    let clock = ManualClock::new();
    let accepts = Accepts { ipip: true, ..Accepts::default() };
    let addresses = vec!["192.0.2.1".parse().expect("a constant")];
    let (arm, counters) = device.into_arm().with_counted_tunnel_end(accepts, addresses, clock.clone());
    let nobody = Director::new(DirectorConfig::default(), Seed::new(1));
    let worker = Worker::new(nobody, arm, None).expect("descriptors").with_clock(clock.clone());
    let worker = worker.with_on_pass(OnPass::ToHost(to_host.into_arm().sink));
    Bench { network, host, worker, clock, counters }
}

/// A datagram through an IPIP tunnel, in three parts.
fn parts(fill: u8) -> (Vec<u8>, Vec<Vec<u8>>) {
    let inner = udp("203.0.113.7:1024", "192.0.2.1:53").payload(&[fill; 3000]).build();
    let [source, destination] = ["10.0.0.254", "10.0.0.2"].map(|text| text.parse().expect("a constant"));
    let tunnel = Tunnel { identification: fill.into(), ..Tunnel::new(TunnelConfig::default(), source, destination) };
    let mut storage = Storage::new(&inner);
    let mut packet = storage.packet();
    encapsulate(&mut packet, &parse(&inner).expect("whole"), &tunnel).expect("it fits");
    let mut parts = Vec::new();
    fragment(packet.bytes(), 1500, 0, &mut [0; 1500], |part| parts.push(part.to_vec())).expect("no DF");
    assert_eq!(parts.len(), 3);
    (inner, parts)
}

#[test]
fn datagrams_in_parts_reach_the_host_whole() {
    let Bench { network, host, mut worker, counters, .. } = bench();
    let sent: Vec<_> = (1..=12).map(parts).collect();
    // Interleaved, so that one batch completes many.
    for index in 0..3 {
        sent.iter().for_each(|(_, parts)| assert!(network.push(parts[index].clone())));
    }
    while worker.turn().expect("memory does not fail") {}
    for (inner, _) in &sent {
        assert_eq!(host.pop().expect("it came out").bytes, *inner);
    }
    assert!(host.pop().is_none());
    assert_eq!((counters.get().joined, worker.counters().passed), (12, 12));
}

#[test]
fn parts_are_given_up_by_the_workers_clock() {
    let Bench { network, host, mut worker, clock, counters } = bench();
    let (_, parts) = parts(1);
    network.push(parts[0].clone());
    network.push(parts[1].clone());
    worker.turn().expect("memory does not fail");
    clock.advance(Duration::from_secs(30));
    worker.turn().expect("memory does not fail");
    assert_eq!(counters.get().parts_timed_out, 2);
    network.push(parts[2].clone());
    while worker.turn().expect("memory does not fail") {}
    assert!(host.pop().is_none());
}
