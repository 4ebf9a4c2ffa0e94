//! Any packets over several queues of a device, for the fuzz target `steering` and for the properties beside it. Every
//! packet reaches exactly one shard, whichever queue it came by, and it is the one the steering names; both directions
//! of a flow, and errors about either, reach the same one; a kernel that spreads otherwise changes nothing.

use std::net::{IpAddr, SocketAddr};

use lvs_core::wire::parse::parse;
use lvs_core::{Direction, Seed};
use lvs_io::{Arm, MemoryPort, Prefix, Steering, share};
use lvs_testkit::{icmp_error, sctp, tcp, udp};

/// Plays the packets that `data` is: a byte for the number of shards, one for the secret, then lengths and bytes.
pub fn play(data: &[u8]) {
    let [shards, secret, script @ ..] = data else { return };
    let shards = 1 + u32::from(shards % 5);
    let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("constant")).collect::<Vec<Prefix>>();
    let steering =
        Steering::new(shards, networks(&["10.0.0.0/24", "fd00::/64", "10.0.1.7"]), Seed::new(u64::from(*secret)))
            .with_local_addresses(networks(&["10.0.0.200", "fd00::200"]));
    let mut queues = Queues::new(&steering);
    let mut rest = script;
    while let Some((&kind, after)) = rest.split_first() {
        let take = usize::from(kind / 2).min(after.len());
        let (bytes, after) = after.split_at(take);
        rest = after;
        if kind % 2 == 0 {
            queues.check(&steering, bytes);
        } else {
            both_ways(&steering, &mut queues, bytes);
        }
    }
}

/// A queue of the device for each shard.
struct Queues {
    far: Vec<MemoryPort>,
    arms: Vec<Arm>,
    turn: usize,
}

impl Queues {
    fn new(steering: &Steering) -> Self {
        let pairs = (0..steering.shards()).map(|_| MemoryPort::pair(64));
        let (far, arms): (Vec<_>, Vec<_>) = pairs.map(|(far, near)| (far, near.into_arm())).unzip();
        Self { far, arms: share(arms, steering, None).expect("descriptors are left"), turn: 0 }
    }

    /// Which shards the packet reaches, by one queue or another.
    fn reached(&mut self, packet: &[u8]) -> Vec<usize> {
        self.turn = (self.turn + 1) % self.far.len();
        assert!(self.far[self.turn].push(packet), "the queue is empty");
        let mut reached = Vec::new();
        // What one posts to another is there a round later.
        for _ in 0..3 {
            for (shard, arm) in self.arms.iter_mut().enumerate() {
                while arm
                    .source
                    .receive(&mut |packets| {
                        reached.extend(packets.iter().filter(|one| one.bytes() == packet).map(|_| shard));
                    })
                    .expect("memory does not fail")
                    > 0
                {}
            }
        }
        reached
    }

    fn check(&mut self, steering: &Steering, packet: &[u8]) {
        let named = steering.shard(packet);
        assert!(named < steering.shards());
        for direction in [Direction::Request, Direction::Reply] {
            assert!(steering.shard_by_direction(packet, direction) < steering.shards());
        }
        let lost = |queues: &Self| queues.arms.iter().map(|arm| arm.source.lost()).sum::<u64>();
        let (before, reached) = (lost(self), self.reached(packet));
        // A fragment for a local address goes where its first one went, and waits for that one.
        let may_wait = parse(packet).is_ok_and(|headers| {
            headers.fragment.is_some() && steering.local_addresses().contains(headers.destination)
        });
        if may_wait {
            assert!(reached.len() <= 1 + usize::from(lost(self) == before) * 64);
        } else {
            assert_eq!(reached, [named], "{packet:02x?}");
        }
    }
}

/// A flow of these bytes' making: every packet of it reaches one shard.
fn both_ways(steering: &Steering, queues: &mut Queues, bytes: &[u8]) {
    let byte = |index: usize| bytes.get(index).copied().unwrap_or(0);
    let is_ipv4 = byte(0) & 1 == 0;
    let address = |head: &str, head_v6: &str, low: u8, high: u8| -> IpAddr {
        let text = if is_ipv4 { format!("{head}.{high}.{low}") } else { format!("{head_v6}:{high:x}::{low:x}") };
        text.parse().expect("an address")
    };
    let client = SocketAddr::new(address("203.0", "2001:db8", byte(1), byte(2)), 1024 + u16::from(byte(3)));
    let service = SocketAddr::new(address("192.0", "2001:db9", byte(4), byte(5)), 80);
    let server: SocketAddr = if is_ipv4 { "10.0.0.7:8080" } else { "[fd00::7]:8080" }.parse().expect("constant");
    let packet = |from: SocketAddr, to: SocketAddr| match byte(0) >> 1 & 3 {
        0 => tcp(from, to).build(),
        1 => udp(from, to).build(),
        2 => sctp(from, to).chunk(0, &[0; 8]).build(),
        _ => udp(from, to).payload_len(usize::from(byte(6))).build(),
    };
    let request = packet(client, service);
    let shard = steering.shard(&request);
    let to_server = packet(client, server);
    let to_client = packet(service, client);
    for (name, packet) in [
        ("request", request),
        ("reply", packet(server, client)),
        ("error about the reply", icmp_error(client, 3, 1, 0, &to_client).build()),
        ("error about the request", icmp_error(server, 3, 1, 0, &to_server).build()),
    ] {
        assert_eq!(steering.shard(&packet), shard, "{name} of {client}");
        assert_eq!(queues.reached(&packet), [shard], "{name} of {client}");
    }
}
