//! Whatever belongs to one conversation goes to one shard: both directions, errors about either, fragments in any
//! order. Behind FullNAT, where servers do not know the client, too. The packets are those that real directors make.

use std::net::SocketAddr;

use lvs_core::local_address::LocalPorts;
use lvs_core::{Direction, Seed, Verdict};
use lvs_io::{Arm, MemoryPort, Steering, share};
use lvs_testkit::{Desk, Packet, describe, icmp_error, oracle, sctp, strategy, tcp, udp};
use proptest::prelude::*;

const RULES: &str = "-A -t 192.0.2.80:80 -s rr\n\
    --add-laddr -t 192.0.2.80:80 --local-address 10.0.0.200\n\
    -a -t 192.0.2.80:80 -r 10.0.0.2:8080 --fullnat\n\
    -A -u 192.0.2.80:53 -s rr --client-address uoa\n\
    --add-laddr -u 192.0.2.80:53 --local-address 10.0.0.201\n\
    -a -u 192.0.2.80:53 -r 10.0.0.2:53 --fullnat\n\
    -A --sctp-service 192.0.2.80:99 -s rr\n\
    --add-laddr --sctp-service 192.0.2.80:99 --local-address 10.0.0.201\n\
    -a --sctp-service 192.0.2.80:99 -r 10.0.0.2:99 --fullnat\n\
    -A -t [2001:db8::80]:80 -s rr\n\
    --add-laddr -t [2001:db8::80]:80 --local-address fd00::200\n\
    -a -t [2001:db8::80]:80 -r [fd00::2]:8080 --fullnat\n\
    -A -u [2001:db8::80]:53 -s rr\n\
    --add-laddr -u [2001:db8::80]:53 --local-address 10.0.0.200\n\
    -a -u [2001:db8::80]:53 -r 10.0.0.2:53 --fullnat\n\
    -A -t 192.0.2.80:81 -s rr\n\
    -a -t 192.0.2.80:81 -r 10.0.0.2:8080 -m\n";

fn steering(shards: u32) -> Steering {
    Steering::new(shards, networks(&["10.0.0.0/24", "fd00::/64"]), Seed::new(7)).with_local_addresses(networks(&[
        "10.0.0.200",
        "10.0.0.201",
        "fd00::200",
    ]))
}

fn networks(texts: &[&str]) -> Vec<lvs_io::Prefix> {
    texts.iter().map(|text| text.parse().expect("a network")).collect()
}

/// One director for each shard.
fn desks(steering: &Steering) -> Vec<Desk> {
    let desk = |shard| {
        let local_ports = steering.local_ports(shard, LocalPorts::default());
        Desk::with_config(Desk::config().with(|config| config.local_ports = local_ports), RULES)
    };
    (0..steering.shards()).map(desk).collect()
}

/// A packet of this length or so, in the service's protocol.
type Make = fn(SocketAddr, SocketAddr, usize) -> Packet;

/// The services: virtual endpoint, protocol, and where errors from between director and server come from.
const SERVICES: [(&str, Make, &str); 6] = [
    ("192.0.2.80:80", |from, to, len| tcp(from, to).syn().payload_len(len), "172.16.0.1"),
    ("192.0.2.80:53", |from, to, len| udp(from, to).payload_len(len), "172.16.0.1"),
    ("192.0.2.80:99", |from, to, len| sctp(from, to).chunk(1, &vec![0; 16 + len]), "172.16.0.1"),
    ("[2001:db8::80]:80", |from, to, len| tcp(from, to).syn().payload_len(len), "2001:db8:ffff::9"),
    ("[2001:db8::80]:53", |from, to, len| udp(from, to).payload_len(len), "172.16.0.1"),
    ("192.0.2.80:81", |from, to, len| tcp(from, to).syn().payload_len(len), "172.16.0.1"),
];

fn error_about(packet: &[u8], from: &str) -> Vec<u8> {
    let unreachable = if packet[0] >> 4 == 4 { (3, 1) } else { (1, 3) };
    icmp_error(from, unreachable.0, unreachable.1, 0, &packet[..packet.len().min(500)]).build()
}

proptest! {
    #![proptest_config(strategy::config())]

    #[test]
    fn a_conversation_stays_with_the_shard_it_began_at(
        service in 0..SERVICES.len(),
        clients in (strategy::endpoint(false), strategy::endpoint(true)),
        shards in 1..9u32,
        payload_len in 0..600usize,
        knows_direction in any::<bool>(),
    ) {
        let (to, make, router) = SERVICES[service];
        let to: SocketAddr = to.parse().unwrap();
        let client = if to.is_ipv4() { clients.0 } else { clients.1 };
        prop_assume!(client.port() != 20 && !client.ip().to_string().starts_with("10."));
        let steering = steering(shards);
        let mut desks = desks(&steering);
        let find = |packet: &[u8], direction| {
            if knows_direction { steering.shard_by_direction(packet, direction) } else { steering.shard(packet) }
        };
        // The first datagrams may say whose they are, which no error can be about; the last one does not.
        let request = make(client, to, payload_len).build();
        let own = find(&request, Direction::Request);
        let mut at_server = Vec::new();
        for _ in 0..4 {
            let outcome = desks[own].send(&request);
            prop_assert!(matches!(outcome.verdict, Verdict::Forward { .. }), "{}", outcome.line());
            at_server = outcome.bytes;
        }
        let connection = desks[own].connections()[0].clone();
        let local = connection.local.unwrap_or(connection.client);
        let real = SocketAddr::new(connection.real.address, connection.real.port);
        let reply = make(real, SocketAddr::new(local.address, local.port), payload_len).build();
        let mut steered = |packet: &[u8], direction, towards: SocketAddr| {
            let shard = find(packet, direction);
            prop_assert_eq!(shard, own, "{}", describe(packet));
            let outcome = desks[shard].send(packet);
            let to = oracle::parse(&outcome.bytes).expect("a packet").destination;
            let is_forwarded = matches!(outcome.verdict, Verdict::Forward { .. });
            prop_assert!(is_forwarded && to == towards.ip(), "{}", outcome.line());
            Ok(outcome.bytes)
        };
        let at_client = steered(&reply, Direction::Reply, client)?;
        let real_address = real.ip().to_string();
        steered(&error_about(&at_server, &real_address), Direction::Reply, client)?;
        // A router beyond the servers' network; only FullNAT's local address tells where its error belongs.
        if connection.local.is_some() || knows_direction {
            steered(&error_about(&at_server, router), Direction::Reply, client)?;
        }
        let client_address = client.ip().to_string();
        let router = if client.is_ipv4() { "172.16.9.9" } else { "2001:db8:9::9" };
        for from in [client_address.as_str(), router] {
            steered(&error_about(&at_client, from), Direction::Request, real)?;
        }
    }

    #[test]
    fn fragments_follow_their_first_one_whatever_way_they_come(
        datagrams in prop::collection::vec((2000..2040u16, 100..400usize, any::<bool>()), 1..8),
        shuffle in prop::collection::vec((any::<u32>(), 0..4usize), 64),
        shards in 1..5usize,
    ) {
        let steering = steering(shards as u32);
        let (far, mut arms): (Vec<_>, Vec<_>) =
            (0..shards).map(|_| MemoryPort::pair(1000)).map(|(far, device)| (far, device.into_arm())).unzip();
        arms = share(arms, &steering, None).unwrap();
        let mut parts = Vec::new();
        for (number, (port, len, is_ipv6)) in datagrams.iter().enumerate() {
            let (from, to) = if *is_ipv6 { ("[fd00::2]:53", "[fd00::200]") } else { ("10.0.0.2:53", "10.0.0.201") };
            let datagram = udp(from, format!("{to}:{port}").as_str()).identification(number as u32).payload_len(*len);
            let owner = usize::from(*port) % shards;
            parts.extend(datagram.fragments(64).into_iter().map(|part| (part, owner)));
        }
        let mut parts: Vec<_> = parts.into_iter().zip(shuffle.into_iter().cycle()).collect();
        // 64 may wait at one time.
        parts.truncate(64);
        parts.sort_by_key(|(_, (place, _))| *place);
        for ((part, _), (_, queue)) in &parts {
            prop_assert!(far[queue % shards].push(part.clone()));
        }
        let received = receive_all(&mut arms);
        let mut expected = vec![Vec::new(); shards];
        for ((part, owner), _) in parts.iter().filter(|((part, _), _)| has_first(part, &parts)) {
            expected[*owner].push(part.clone());
        }
        for (mut expected, mut received) in expected.into_iter().zip(received) {
            expected.sort();
            received.sort();
            prop_assert_eq!(received, expected);
        }
        prop_assert_eq!(arms.iter().map(|arm| arm.source.lost()).sum::<u64>(), 0);
    }
}

/// A fragment with its owner, and a place in the order.
type Part = ((Vec<u8>, usize), (u32, usize));

/// Whether the first fragment of its datagram is among those sent.
fn has_first(part: &[u8], all: &[Part]) -> bool {
    let of = |bytes: &[u8]| {
        let parsed = oracle::parse(bytes).expect("a packet");
        (parsed.source, parsed.identification, parsed.fragment.expect("a fragment").0)
    };
    let (source, id, _) = of(part);
    all.iter().any(|((other, _), _)| of(other) == (source, id, 0))
}

/// What every arm has to give, until none has anything more.
fn receive_all(arms: &mut [Arm]) -> Vec<Vec<Vec<u8>>> {
    let mut all = vec![Vec::new(); arms.len()];
    loop {
        let mut count = 0;
        for (arm, all) in arms.iter_mut().zip(&mut all) {
            let take = &mut |packets: &mut [lvs_core::PacketBuf<'_>]| {
                all.extend(packets.iter().map(|packet| packet.bytes().to_vec()));
            };
            count += arm.source.receive(take).unwrap();
        }
        if count == 0 {
            return all;
        }
    }
}

#[test]
fn fragments_whose_first_never_comes_are_bounded_and_counted() {
    let steering = steering(1);
    let (far, device) = MemoryPort::pair(1000);
    let mut arms = share(vec![device.into_arm()], &steering, None).unwrap();
    for id in 0..300 {
        far.push(udp("10.0.0.2:53", "10.0.0.200:2000").identification(id).payload_len(200).fragments(120)[1].clone());
    }
    assert_eq!(receive_all(&mut arms), [[[0u8; 0]; 0]]);
    // One source has room for 128.
    assert_eq!(arms[0].source.lost(), 300 - 128);
}

/// A device with a queue for each shard: the far ends of the queues, and the arms.
fn queues(steering: &Steering) -> (Vec<MemoryPort>, Vec<Arm>) {
    let pairs = (0..steering.shards()).map(|_| MemoryPort::pair(1000));
    let (far, arms) = pairs.map(|(far, device)| (far, device.into_arm())).unzip();
    (far, share(arms, steering, None).expect("descriptors are left"))
}

/// First packets of clients that a shard owns.
fn requests_of(steering: &Steering, shard: usize) -> impl Iterator<Item = Vec<u8>> {
    let clients = (0..=u16::MAX).map(|number| {
        let [c, d] = number.to_be_bytes();
        tcp(format!("198.51.{c}.{d}:1024").as_str(), "192.0.2.80:80").syn().build()
    });
    clients.filter(move |packet| steering.shard(packet) == shard)
}

/// The two fragments of a datagram to a local address's port.
fn datagram(id: u32, port: u16) -> Vec<Vec<u8>> {
    let from = format!("203.0.113.{}:53", id % 256);
    udp(from.as_str(), format!("10.0.0.201:{port}").as_str()).identification(id).payload_len(100).fragments(56)
}

/// How many packets an arm has to give, until it has none.
fn drain(arm: &mut Arm) -> usize {
    let mut count = 0;
    while arm.source.receive(&mut |packets| count += packets.len()).expect("memory does not fail") > 0 {}
    count
}

#[test]
fn fragments_without_their_first_do_not_keep_others_from_their_shards() {
    let steering = steering(4);
    let (far, mut arms) = queues(&steering);
    for id in 0..6_000 {
        assert!(far[0].push(datagram(id, 2000).swap_remove(1)));
        if id % 16 == 0 {
            assert_eq!(receive_all(&mut arms).concat(), [[0; 0]; 0]);
        }
    }
    assert_eq!(receive_all(&mut arms).concat(), [[0; 0]; 0]);
    // 1,024 wait at each of the four sorters.
    assert_eq!(arms.iter().map(|arm| arm.source.lost()).sum::<u64>(), 6_000 - 4 * 1_024);
    for shard in 1..4 {
        let request = requests_of(&steering, shard).next().expect("it has clients");
        assert!(far[0].push(request.clone()));
        assert_eq!(receive_all(&mut arms)[shard], [request]);
    }
}

#[test]
fn a_shard_that_does_not_keep_up_costs_the_others_nothing() {
    let steering = steering(3);
    let (far, mut arms) = queues(&steering);
    let requests: Vec<_> = requests_of(&steering, 1).take(300).collect();
    for queue in [0, 2] {
        requests.iter().for_each(|packet| assert!(far[queue].push(packet.clone())));
        assert_eq!(drain(&mut arms[queue]), 0);
    }
    for (queue, other) in [(0, 2), (2, 0)] {
        requests_of(&steering, other).take(10).for_each(|packet| assert!(far[queue].push(packet)));
        assert_eq!(drain(&mut arms[queue]), 0);
        assert_eq!(drain(&mut arms[other]), 10);
    }
    // What it has lost is on its own account.
    assert_eq!((arms[0].source.lost(), arms[2].source.lost()), (0, 0));
    let lost = arms[1].source.lost();
    assert_eq!(drain(&mut arms[1]) as u64 + lost, 600);
    assert!(lost > 0);
}

#[test]
fn a_sorter_does_not_wait_for_a_shard_that_does_not_keep_up() {
    let steering = steering(3);
    let (far, mut arms) = queues(&steering);
    // By the first queue, sorted by the second shard, owned by the third: ports are dealt out in turn.
    let datagrams = (0..2000).map(|id| datagram(id, 3 * 700 + 2)).filter(|parts| steering.shard(&parts[0]) == 1);
    for parts in datagrams.take(200) {
        parts.into_iter().for_each(|part| assert!(far[0].push(part)));
        assert_eq!((drain(&mut arms[0]), drain(&mut arms[1])), (0, 0));
    }
    let request = requests_of(&steering, 1).next().expect("it has clients");
    assert!(far[0].push(request));
    assert_eq!((drain(&mut arms[0]), drain(&mut arms[1])), (0, 1));
    assert_eq!((arms[0].source.lost(), arms[1].source.lost()), (0, 0));
    let lost = arms[2].source.lost();
    assert_eq!((drain(&mut arms[2]) as u64 + lost, lost > 0), (400, true));
}

#[test]
fn the_first_fragment_goes_before_those_that_waited_for_it() {
    let steering = steering(2);
    let (far, mut arms) = queues(&steering);
    for (sorter, owner) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut datagrams = (0..256).map(|id| datagram(256 * owner + id, 2 * 1000 + owner as u16));
        let parts = datagrams.find(|parts| steering.shard(&parts[0]) == sorter).expect("some source's");
        parts.iter().rev().for_each(|part| assert!(far[0].push(part.clone())));
        assert_eq!(receive_all(&mut arms)[owner as usize], parts, "{sorter} sorts for {owner}");
    }
}
