//! No difference between two addresses says, for every secret, whether they share a shard: whoever does not know the
//! secret cannot choose addresses for one shard.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lvs_core::Seed;
use lvs_core::rng::Rng;
use lvs_io::Steering;
use lvs_testkit::udp;

/// So many secrets are tried; with as many coins between 384 and 640 of them show heads, eight deviations either way.
const SECRETS: u64 = 1024;
const HEADS: std::ops::RangeInclusive<usize> = 384..=640;

fn packet(client: IpAddr) -> Vec<u8> {
    let service = if client.is_ipv4() { "192.0.2.80:53" } else { "[2001:db8::80]:53" };
    udp(std::net::SocketAddr::new(client, 1024), service).build()
}

/// Under how many secrets the two are with different shards, of two and of four.
fn parted(one: IpAddr, other: IpAddr) -> [usize; 2] {
    let packets = [one, other].map(packet);
    [2, 4].map(|shards| {
        let differs = |secret: &u64| {
            let steering = Steering::new(shards, Vec::new(), Seed::new(*secret));
            let [one, other] = packets.each_ref().map(|packet| steering.shard(packet));
            // Of four shards the upper bit, then of both the lower one: with half of the secrets each.
            if shards == 2 { one != other } else { one / 2 != other / 2 }
        };
        (0..SECRETS).filter(differs).count()
    })
}

#[track_caller]
fn check(one: IpAddr, other: IpAddr) {
    for (counts, shards) in parted(one, other).into_iter().zip([2, 4]) {
        assert!(HEADS.contains(&counts), "{one} and {other} part under {counts} of {SECRETS} secrets, {shards} shards");
    }
}

#[test]
fn each_bit_of_an_ipv4_address_and_each_pair_of_bits_moves_it_under_half_of_the_secrets() {
    let address = Ipv4Addr::new(203, 0, 113, 7).to_bits();
    for first in 0..32 {
        for second in first..32 {
            let flipped = 1 << first | 1 << second;
            check(Ipv4Addr::from_bits(address).into(), Ipv4Addr::from_bits(address ^ flipped).into());
        }
    }
}

#[test]
fn each_bit_of_an_ipv6_address_moves_it_under_half_of_the_secrets() {
    let address = "2001:db8:1:2:3:4:5:6".parse::<Ipv6Addr>().unwrap().to_bits();
    for bit in 0..128 {
        check(Ipv6Addr::from_bits(address).into(), Ipv6Addr::from_bits(address ^ 1 << bit).into());
    }
    // The same bit of two words.
    for bit in 0..32 {
        check(Ipv6Addr::from_bits(address).into(), Ipv6Addr::from_bits(address ^ (1 << bit | 1 << (bit + 64))).into());
    }
}

#[test]
fn random_pairs_of_addresses_part_under_half_of_the_secrets() {
    let mut rng = Rng::new(Seed::new(7));
    for _ in 0..100 {
        let [one, other] = [0; 2].map(|_| rng.next_u64() as u32);
        check(Ipv4Addr::from_bits(one).into(), Ipv4Addr::from_bits(other).into());
    }
}

#[test]
fn neighbours_spread_over_the_shards_under_every_secret() {
    for secret in 0..SECRETS {
        let steering = Steering::new(4, Vec::new(), Seed::new(secret));
        let mut counts = [0; 4];
        for last in 0..=255 {
            counts[steering.shard(&packet(Ipv4Addr::new(203, 0, 113, last).into()))] += 1;
        }
        // 64 each; 55 away are eight deviations.
        assert!(counts.iter().all(|count| (9..=119).contains(count)), "{counts:?} under secret {secret}");
    }
}
