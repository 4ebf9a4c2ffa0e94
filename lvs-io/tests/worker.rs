//! What the worker loop does with packets and verdicts, seen from the two ends of in-memory devices.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use lvs_core::{
    ChecksumOffload, Command, Director, DirectorConfig, Gso, GsoKind, Instant, Offload, PacketBuf, Protocol, Seed,
    ServerConfig, ServiceConfig, ServiceKey, Side,
};
use lvs_io::memory::MemoryPacket;
use lvs_io::{Host, HostConfig, ManualClock, MemoryPort, OnPass, PacketSink, SinkOffloads, Worker, WorkerGone};
use lvs_testkit::{describe, icmp, oracle, tcp, udp};

const CLIENT: &str = "203.0.113.7:1024";
const VIRTUAL: &str = "192.0.2.1:80";
const SERVER: &str = "10.0.0.2:8080";

/// A director for 192.0.2.1:80 (TCP and UDP) with one NAT server, between two in-memory links, and their far ends.
struct Bench {
    client: MemoryPort,
    server: MemoryPort,
    worker: Worker,
    clock: ManualClock,
}

impl Bench {
    fn new() -> Self {
        Self::with(1500, SinkOffloads { checksum: true, tcp: true, udp: true })
    }

    fn with(server_mtu: u16, offloads: SinkOffloads) -> Self {
        let config = DirectorConfig::default().with(|config| {
            config.server_side = Side::default().with(|side| side.mtu = server_mtu);
            config.connections_max = 64;
        });
        let mut director = Director::new(config, Seed::new(1));
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let service = ServiceKey::address(protocol, VIRTUAL.parse().unwrap());
            let server = ServerConfig::nat(SERVER.parse().unwrap());
            director.apply(Instant::ZERO, &Command::AddService(service, ServiceConfig::new("rr"))).unwrap();
            director.apply(Instant::ZERO, &Command::AddServer(service, server)).unwrap();
        }
        let (client, client_device) = MemoryPort::pair(64);
        let (server, server_device) = MemoryPort::pair(64);
        let clock = ManualClock::new();
        let worker = Worker::new(director, client_device.into_arm(), Some(server_device.into_arm_with(offloads)))
            .unwrap()
            .with_clock(clock.clone());
        Self { client, server, worker, clock }
    }

    /// Sends a packet from the client side; what reached the server side then.
    fn send_from_client(&mut self, packet: MemoryPacket) -> Vec<MemoryPacket> {
        assert!(self.client.push_packet(packet));
        self.worker.turn().unwrap();
        std::iter::from_fn(|| self.server.pop()).collect()
    }
}

#[test]
fn requests_leave_by_the_server_side_and_replies_by_the_client_side() {
    let mut bench = Bench::new();
    let there = bench.send_from_client(MemoryPacket::new(tcp(CLIENT, VIRTUAL).syn().build()));
    assert_eq!(there.len(), 1);
    assert!(describe(&there[0].bytes).starts_with("203.0.113.7.1024 > 10.0.0.2.8080 TCP S"));
    assert_eq!(there[0].next_hop, Some(IpAddr::from([10, 0, 0, 2])));

    bench.server.push(tcp(SERVER, CLIENT).syn().ack().build());
    bench.worker.turn().unwrap();
    let back = bench.client.pop().expect("a reply");
    assert!(describe(&back.bytes).starts_with("192.0.2.1.80 > 203.0.113.7.1024 TCP SA"));
    let counters = bench.worker.counters();
    assert_eq!((counters.client.received, counters.server.sent), (1, 1));
    assert_eq!((counters.server.received, counters.client.sent), (1, 1));
}

#[test]
fn one_device_serves_both_sides() {
    let config = DirectorConfig::default().with(|config| config.connections_max = 64);
    let mut director = Director::new(config, Seed::new(1));
    let service = ServiceKey::address(Protocol::Udp, VIRTUAL.parse().unwrap());
    director.apply(Instant::ZERO, &Command::AddService(service, ServiceConfig::new("rr"))).unwrap();
    director.apply(Instant::ZERO, &Command::AddServer(service, ServerConfig::nat(SERVER.parse().unwrap()))).unwrap();
    let (wire, device) = MemoryPort::pair(8);
    let mut worker = Worker::new(director, device.into_arm(), None).unwrap().with_clock(ManualClock::new());
    wire.push(udp(CLIENT, VIRTUAL).payload(b"question").build());
    wire.push(udp(SERVER, CLIENT).payload(b"answer").build());
    worker.turn().unwrap();
    let sent: Vec<String> = std::iter::from_fn(|| wire.pop()).map(|packet| describe(&packet.bytes)).collect();
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert!(sent[0].starts_with("203.0.113.7.1024 > 10.0.0.2.8080 UDP"), "{sent:?}");
    assert!(sent[1].starts_with("192.0.2.1.80 > 203.0.113.7.1024 UDP"), "{sent:?}");
}

#[test]
fn a_packet_longer_than_the_way_out_leaves_as_fragments() {
    let mut bench = Bench::with(1280, SinkOffloads::default());
    let pieces = bench.send_from_client(MemoryPacket::new(udp(CLIENT, VIRTUAL).payload_len(1400).build()));
    let lengths: Vec<usize> = pieces.iter().map(|piece| piece.bytes.len()).collect();
    assert_eq!(lengths, [1276, 172]);
    for piece in &pieces {
        assert_eq!(oracle::checksum_errors(&piece.bytes), [""; 0]);
    }
    let datagram = oracle::reassemble(pieces.iter().map(|piece| piece.bytes.as_slice())).expect("they make a datagram");
    let wanted = udp("203.0.113.7:1024", SERVER).payload_len(1400).build();
    assert_eq!(datagram, wanted[20..]);
    assert_eq!(bench.worker.counters().server.sent, 2);
}

#[test]
fn a_super_packet_passes_unsplit_where_the_device_takes_it() {
    let mut bench = Bench::new();
    let request = tcp(CLIENT, VIRTUAL).syn();
    bench.send_from_client(MemoryPacket::new(request.build()));
    let out = bench.send_from_client(super_packet());
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].offload, super_packet().offload);
    assert_eq!(out[0].bytes.len(), 40 + 4000);
}

#[test]
fn a_super_packet_is_cut_in_software_where_the_device_takes_none() {
    let mut bench = Bench::with(1500, SinkOffloads::default());
    bench.send_from_client(MemoryPacket::new(tcp(CLIENT, VIRTUAL).syn().build()));
    let segments = bench.send_from_client(super_packet());
    let seen: Vec<String> = segments.iter().map(|segment| describe(&segment.bytes)).collect();
    let wanted = [
        "203.0.113.7.1024 > 10.0.0.2.8080 TCP A seq=1000 ack=1 pl=1460 id=4660 ttl=63 len=1500",
        "203.0.113.7.1024 > 10.0.0.2.8080 TCP A seq=2460 ack=1 pl=1460 id=4661 ttl=63 len=1500",
        "203.0.113.7.1024 > 10.0.0.2.8080 TCP PA seq=3920 ack=1 pl=1080 id=4662 ttl=63 len=1120",
    ];
    assert_eq!(seen, wanted);
    for segment in &segments {
        assert_eq!(oracle::checksum_errors(&segment.bytes), [""; 0]);
        assert_eq!(segment.offload, Offload::default());
    }
}

/// 4000 bytes from the client in segments of 1460, as a device with segmentation offload hands them over.
fn super_packet() -> MemoryPacket {
    let packet = tcp(CLIENT, VIRTUAL).ack().psh().numbers(1000, 1).payload_len(4000).partial_checksum();
    let checksum = packet.offload();
    assert!(matches!(checksum, ChecksumOffload::Partial { start: 20, offset: 16 }));
    let gso = Some(Gso { kind: GsoKind::TcpV4, size: 1460, ecn: false });
    MemoryPacket { offload: Offload { checksum, gso }, ..MemoryPacket::new(packet.build()) }
}

#[test]
fn a_partial_checksum_is_completed_for_a_device_that_completes_none() {
    let mut bench = Bench::with(1500, SinkOffloads::default());
    let packet = udp(CLIENT, VIRTUAL).payload(b"hello").partial_checksum();
    let offload = Offload { checksum: packet.offload(), gso: None };
    let out = bench.send_from_client(MemoryPacket { offload, ..MemoryPacket::new(packet.build()) });
    assert_eq!(out[0].offload, Offload::default());
    assert_eq!(oracle::checksum_errors(&out[0].bytes), [""; 0]);
}

#[test]
fn what_is_not_ours_goes_where_on_pass_says() {
    let stray = || MemoryPacket::new(udp(CLIENT, "192.0.2.9:53").payload(b"?").build());

    let mut bench = Bench::new();
    assert!(bench.send_from_client(stray()).is_empty());
    assert_eq!((bench.worker.counters().passed, bench.worker.counters().pass_dropped), (1, 1));

    let mut bench = Bench::new();
    let (host, device) = MemoryPort::pair(8);
    bench.worker = bench.worker.with_on_pass(OnPass::ToHost(device.into_arm().sink));
    bench.send_from_client(stray());
    assert_eq!(host.pop().expect("the host gets it").bytes, stray().bytes);

    let mut bench = Bench::new();
    let config = HostConfig { local_addresses: vec!["192.0.2.9".parse().unwrap()], ..HostConfig::default() };
    bench.worker = bench.worker.with_on_pass(OnPass::Route(Box::new(Host::new(config, Seed::new(1)))));
    bench.send_from_client(stray());
    let answer = bench.client.pop().expect("the stand-in answers");
    assert_eq!(bench.worker.counters().host.answered, 1);
    assert!(describe(&answer.bytes).starts_with("192.0.2.9 > 203.0.113.7 ICMP 3/3"), "{}", describe(&answer.bytes));
}

/// A sink that keeps what it is given until it is flushed, as Ethernet devices keep short frames.
struct Gathering {
    inner: Box<dyn PacketSink>,
    waiting: Vec<Vec<u8>>,
}

impl PacketSink for Gathering {
    fn send(&mut self, packet: &mut PacketBuf<'_>, _next_hop: IpAddr) -> io::Result<()> {
        self.waiting.push(packet.bytes().to_vec());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.waiting.drain(..).try_for_each(|mut bytes| {
            let len = bytes.len();
            self.inner.send(&mut PacketBuf::new(&mut bytes, 0, len), IpAddr::from([0; 4]))
        })
    }
}

#[test]
fn what_the_host_gets_waits_for_nothing() {
    let mut bench = Bench::new();
    let (host, device) = MemoryPort::pair(8);
    let sink = Gathering { inner: device.into_arm().sink, waiting: Vec::new() };
    bench.worker = bench.worker.with_on_pass(OnPass::ToHost(Box::new(sink)));
    bench.send_from_client(MemoryPacket::new(udp(CLIENT, "192.0.2.9:53").payload(b"?").build()));
    assert!(host.pop().is_some());
}

#[test]
fn a_full_device_loses_packets_and_counts_them() {
    let mut bench = Bench::new();
    let (far, device) = MemoryPort::pair(1);
    let host = HostConfig { local_addresses: vec!["192.0.2.9".parse().unwrap()], ..HostConfig::default() };
    bench.worker = Worker::new(
        Director::new(DirectorConfig::default().with(|config| config.connections_max = 1), Seed::new(1)),
        device.into_arm(),
        None,
    )
    .unwrap()
    .with_on_pass(OnPass::Route(Box::new(Host::new(host, Seed::new(1)))));
    for _ in 0..2 {
        far.push(udp(CLIENT, "192.0.2.9:53").build());
        bench.worker.turn().unwrap();
    }
    let client = bench.worker.counters().client;
    assert_eq!((client.received, client.sent, client.queue_full), (2, 1, 1));
}

#[test]
fn timers_that_are_due_are_worked_off() {
    let mut bench = Bench::new();
    bench.send_from_client(MemoryPacket::new(udp(CLIENT, VIRTUAL).build()));
    assert_eq!(bench.worker.director().connections(Instant::ZERO).count(), 1);
    bench.clock.advance(Duration::from_secs(301));
    while bench.worker.turn().unwrap() {}
    let now = Instant::from_secs(301);
    assert_eq!(bench.worker.director().connections(now).count(), 0);
}

#[test]
fn another_thread_changes_and_reads_the_director_and_stops_the_loop() {
    let mut bench = Bench::new();
    let handle = bench.worker.handle();
    let running = std::thread::spawn(move || {
        bench.worker.run().expect("it ends because it was told to");
        bench.worker
    });
    let service = ServiceKey::address(Protocol::Tcp, "192.0.2.1:443".parse().unwrap());
    handle.apply(Command::AddService(service, ServiceConfig::new("rr"))).unwrap().unwrap();
    let again = handle.apply(Command::AddService(service, ServiceConfig::new("rr"))).unwrap();
    assert!(again.is_err(), "it is there already");
    let count = handle.with(|director, now| director.services(now).len()).unwrap();
    assert_eq!(count, 3);
    assert_eq!(handle.counters().unwrap().passed, 0);
    handle.stop();
    let worker = running.join().unwrap();
    assert_eq!(handle.counters(), Err(WorkerGone));
    drop(worker);
}

#[test]
fn what_the_host_answers_for_a_server_of_its_own_comes_from_the_virtual_address() {
    let own: std::net::Ipv4Addr = "10.0.0.254".parse().unwrap();
    let server_side = Side::default().with(|side| side.ipv4 = Some(own));
    let mut director =
        Director::new(DirectorConfig::default().with(|config| config.server_side = server_side), Seed::new(1));
    let service = ServiceKey::address(Protocol::Tcp, VIRTUAL.parse().unwrap());
    director.apply(Instant::ZERO, &Command::AddService(service, ServiceConfig::new("rr"))).unwrap();
    let server = ServerConfig::nat("10.0.0.254:8080".parse().unwrap());
    director.apply(Instant::ZERO, &Command::AddServer(service, server)).unwrap();
    let (client, client_device) = MemoryPort::pair(64);
    let host = Host::new(HostConfig { server_side, ..HostConfig::default() }, Seed::new(1));
    let mut worker = Worker::new(director, client_device.into_arm(), None)
        .unwrap()
        .with_clock(ManualClock::new())
        .with_on_pass(OnPass::Route(Box::new(host)));
    client.push(tcp(CLIENT, VIRTUAL).syn().numbers(7, 0).build());
    worker.turn().unwrap();
    let answer = client.pop().expect("nobody listens there");
    let line = describe(&answer.bytes);
    assert!(line.starts_with("192.0.2.1.80 > 203.0.113.7.1024 TCP RA seq=0 ack=8"), "{line}");
    assert_eq!(oracle::checksum_errors(&answer.bytes), [""; 0]);
    assert_eq!(worker.director().connections(Instant::ZERO).next().map(|connection| connection.state), Some("CLOSE"));
    assert_eq!(worker.director().statistics().live.out_packets, 1);
    // Not a server's: an echo reply goes as the host says.
    client.push(icmp(CLIENT, "10.0.0.254:0", 8, 0, 7).build());
    worker.turn().unwrap();
    let line = describe(&client.pop().expect("an echo reply").bytes);
    assert!(line.starts_with("10.0.0.254 > 203.0.113.7 ICMP 0/0"), "{line}");
}
